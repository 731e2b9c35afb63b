use super::*;

/// A kernel that keeps routes by prefix and metric and writes down every call.
#[derive(Default)]
struct Fake {
    routes: BTreeMap<(IpAddr, u8, u32), Route>,
    calls: Vec<String>,
    refuse: bool,
    broken: bool,
    /// Its lists have routes twice.
    changing: bool,
}

impl Fake {
    fn put(&mut self, route: Route) {
        self.routes.insert((route.prefix, route.prefix_len, route.metric), route);
    }
}

impl Kernel for Fake {
    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error> {
        if self.broken {
            return Err(Error::Unsettled);
        }
        let one = |change: &Change| match change {
            Change::Replace(route) => {
                self.calls.push(format!("+{}", route.prefix));
                if self.refuse {
                    return Err(Error::Kernel { errno: 101, message: None });
                }
                self.put(*route);
                Ok(())
            }
            Change::Remove(route) => {
                self.calls.push(format!("-{}", route.prefix));
                self.routes.remove(&(route.prefix, route.prefix_len, route.metric));
                Ok(())
            }
        };
        Ok(changes.iter().map(one).collect())
    }
    fn list(&mut self, each: &mut dyn FnMut(Route)) -> Result<bool, Error> {
        self.routes.values().copied().for_each(each);
        Ok(!self.changing)
    }
}

impl Fake {
    fn all(&self) -> Vec<Route> {
        self.routes.values().copied().collect()
    }
}

fn net(text: &str) -> NetAddr {
    NetAddr::host(text.parse().unwrap())
}

fn route(to: &str, via: &str) -> Route {
    let way = Way { next_hop: via.parse().unwrap(), interface: 2 };
    kernel_route(net(to), way, "fd00::1".parse().unwrap())
}

impl Mesh for BTreeMap<NetAddr, Route> {
    fn route(&self, prefix: NetAddr) -> Option<Route> {
        self.get(&prefix).copied()
    }
    fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.values().copied()
    }
}

/// Together with the routes of a mesh.
struct Both {
    fib: Fib,
    mesh: BTreeMap<NetAddr, Route>,
}

fn new(kernel: &mut Fake) -> Both {
    let fib = Fib::new(kernel, Instant::ZERO, Duration::from_secs(20)).unwrap();
    Both { fib, mesh: BTreeMap::new() }
}

impl Both {
    /// The mesh wants that route, or our own part does.
    fn set(&mut self, route: Route) {
        let prefix = NetAddr::new(route.prefix, route.prefix_len);
        match route.kind {
            RouteKind::Unicast => {
                let old = self.mesh.insert(prefix, route);
                self.fib.mesh_changed(prefix, old);
            }
            _ => self.fib.set(route),
        }
    }
    fn unset(&mut self, prefix: NetAddr) {
        let old = self.mesh.remove(&prefix);
        self.fib.mesh_changed(prefix, old);
    }
    fn commit(&mut self, kernel: &mut Fake, now: Instant) {
        self.fib.commit(kernel, &self.mesh, now);
    }
    fn check(&mut self, kernel: &mut Fake, now: Instant) {
        self.fib.check(kernel, &self.mesh, now);
    }
    fn clear(&mut self, kernel: &mut Fake, now: Instant) {
        self.mesh.clear();
        self.fib.clear(kernel, &self.mesh, now);
    }
    fn gone(&mut self, route: &Route) -> bool {
        self.fib.gone(&self.mesh, route)
    }
}

#[test]
fn new_before_old_and_only_what_changed() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    fib.set(route("fd00::2", "fe80::2"));
    fib.commit(&mut kernel, Instant::ZERO);
    fib.unset(net("fd00::2"));
    fib.set(route("fd00::3", "fe80::2"));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(kernel.calls, ["+fd00::2", "+fd00::3", "-fd00::2"]);
    kernel.calls.clear();
    fib.unset(net("fd00::3"));
    fib.set(route("fd00::3", "fe80::4"));
    fib.set(route("fd00::3", "fe80::5"));
    fib.commit(&mut kernel, Instant::ZERO);
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(kernel.calls, ["+fd00::3"], "removed and set in one step is one replacement");
    assert_eq!(fib.fib.count(&fib.mesh), 1);
}

#[test]
fn a_neighbors_own_address_as_next_hop_means_on_link() {
    assert_eq!(route("10.64.0.2", "10.64.0.2").gateway, None);
    assert_eq!(route("10.64.0.3", "10.64.0.2").gateway, Some("10.64.0.2".parse().unwrap()));
}

#[test]
fn what_an_earlier_run_left_is_used_then_removed() {
    let mut kernel = Fake::default();
    kernel.put(route("fd00::2", "fe80::2"));
    kernel.put(route("fd00::9", "fe80::2"));
    let mut fib = new(&mut kernel);
    fib.set(route("fd00::2", "fe80::7"));
    fib.commit(&mut kernel, Instant::ZERO);
    fib.check(&mut kernel, Instant::from_millis(500));
    assert_eq!(kernel.routes.len(), 2, "the other one still stands");
    assert_eq!(
        fib.fib.next_check(),
        Instant::from_millis(5_000),
        "the mesh is known when no more routes come"
    );
    fib.set(route("fd00::3", "fe80::7"));
    fib.commit(&mut kernel, Instant::from_millis(1_000));
    fib.check(&mut kernel, fib.fib.next_check());
    assert_eq!(kernel.routes.len(), 3);
    assert_eq!(fib.fib.next_check(), Instant::from_millis(6_000));
    fib.check(&mut kernel, fib.fib.next_check());
    assert_eq!(kernel.all(), [route("fd00::2", "fe80::7"), route("fd00::3", "fe80::7")]);
}

#[test]
fn what_an_earlier_run_left_does_not_outlive_the_grace() {
    let mut kernel = Fake::default();
    kernel.put(route("fd00::9", "fe80::2"));
    let mut fib = new(&mut kernel);
    fib.set(own_prefix_route(NetAddr::new("fd00:7::".parse().unwrap(), 64)));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(fib.fib.next_check(), Instant::from_millis(20_000), "nothing was learnt yet");
    for second in 0..20 {
        fib.set(route("fd00::2", &format!("fe80::{second}")));
        fib.commit(&mut kernel, Instant::from_millis(second * 1000));
        fib.check(&mut kernel, Instant::from_millis(second * 1000 + 500));
        assert_eq!(kernel.routes.len(), 3);
    }
    fib.check(&mut kernel, Instant::from_millis(20_000));
    assert_eq!(kernel.routes.len(), 2);
}

#[test]
fn lost_and_foreign_changes_are_mended() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    fib.set(route("fd00::2", "fe80::2"));
    fib.set(own_prefix_route(NetAddr::new("fd00:7::".parse().unwrap(), 64)));
    fib.commit(&mut kernel, Instant::ZERO);
    kernel.routes.clear();
    kernel.put(route("fd00::8", "fe80::2"));
    fib.check(&mut kernel, Instant::from_millis(30_000));
    let prefixes: Vec<_> = kernel.routes.keys().map(|k| k.0.to_string()).collect();
    assert_eq!(prefixes, ["fd00::2", "fd00:7::"]);
    fib.clear(&mut kernel, Instant::ZERO);
    assert!(kernel.routes.is_empty());
}

#[test]
fn refused_routes_are_tried_again_and_reported_while_refused() {
    let mut kernel = Fake { refuse: true, ..Fake::default() };
    let mut fib = new(&mut kernel);
    fib.set(route("fd00::2", "fe80::2"));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!((fib.fib.problems().count(), fib.fib.failures), (1, 1));
    assert_eq!(fib.fib.next_check(), Instant::ZERO + RETRY);
    kernel.refuse = false;
    fib.check(&mut kernel, fib.fib.next_check());
    assert_eq!((fib.fib.problems().count(), kernel.routes.len()), (0, 1));
}

#[test]
fn the_cores_order_is_kept_near_first_and_far_gone_first() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    let order = ["fd00::9", "fd00::1", "fd00::5"];
    order.iter().for_each(|to| fib.set(route(to, "fe80::2")));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(kernel.calls, ["+fd00::9", "+fd00::1", "+fd00::5"]);
    kernel.calls.clear();
    fib.unset(net("fd00::5"));
    fib.set(route("fd00::1", "fe80::3"));
    fib.unset(net("fd00::9"));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(kernel.calls, ["+fd00::1", "-fd00::5", "-fd00::9"]);
}

#[test]
fn what_others_remove_comes_back_and_what_we_remove_does_not() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    let (one, two) = (route("fd00::1", "fe80::2"), route("fd00::2", "fe80::2"));
    fib.set(one);
    fib.set(two);
    fib.commit(&mut kernel, Instant::ZERO);
    kernel.routes.clear();
    fib.unset(net("fd00::2"));
    fib.commit(&mut kernel, Instant::ZERO);
    assert!(fib.gone(&one) && !fib.gone(&two) && !fib.gone(&route("fd00::1", "fe80::9")));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(kernel.all(), [one]);
}

#[test]
fn after_a_broken_socket_everything_is_compared() {
    let mut kernel = Fake { broken: true, ..Fake::default() };
    let mut fib = new(&mut kernel);
    kernel.put(route("fd00::7", "fe80::2"));
    fib.set(route("fd00::1", "fe80::2"));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(fib.fib.next_check(), Instant::ZERO + RETRY);
    kernel.broken = false;
    fib.check(&mut kernel, fib.fib.next_check());
    assert_eq!(kernel.all(), [route("fd00::1", "fe80::2")]);
}

#[test]
fn one_missing_of_many_is_found_also_in_a_list_that_changes() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    let all: Vec<Route> = (1..200).map(|n| route(&format!("fd00::{n:x}"), "fe80::2")).collect();
    all.iter().for_each(|r| fib.set(*r));
    fib.commit(&mut kernel, Instant::ZERO);
    for changing in [false, true] {
        kernel.changing = changing;
        kernel.routes.remove(&(all[77].prefix, 128, all[77].metric));
        kernel.put(route("fd00::5", "fe80::9"));
        kernel.calls.clear();
        fib.check(&mut kernel, Instant::from_millis(30_000));
        assert_eq!(kernel.calls, ["+fd00::5", "+fd00::4e"]);
        assert_eq!(kernel.all(), all);
    }
}

#[test]
fn what_the_mesh_did_not_say_yet_may_be_carried_out_early_and_is_right_in_the_end() {
    let mut kernel = Fake::default();
    let mut fib = new(&mut kernel);
    let (to, ways) = (net("fd00::2"), ["fe80::2", "fe80::3", "fe80::4"].map(|via| route("fd00::2", via)));
    let states = [None, Some(ways[0]), Some(ways[1]), Some(ways[2])];
    let mut rng = 1u64;
    let mut was = None;
    for _ in 0..500 {
        // The mesh has gone through all of these, and tells of them one by one.
        let mut steps = vec![was];
        for _ in 0..3 {
            rng = rng.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            steps.push(states[(rng >> 40) as usize % states.len()]);
        }
        was = steps[3];
        match was {
            Some(route) => drop(fib.mesh.insert(to, route)),
            None => drop(fib.mesh.remove(&to)),
        }
        for (at, pair) in steps.windows(2).enumerate() {
            if pair[0] != pair[1] {
                fib.fib.mesh_changed(to, pair[0]);
            }
            if rng >> (50 + at) & 1 == 0 {
                fib.commit(&mut kernel, Instant::ZERO);
            }
        }
        fib.commit(&mut kernel, Instant::ZERO);
        assert_eq!(kernel.all(), was.into_iter().collect::<Vec<_>>());
    }
}
