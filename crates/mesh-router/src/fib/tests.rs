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
    let core = olsrv2::Route {
        prefix: net(to),
        next_hop: via.parse().unwrap(),
        interface: 2,
        metric: mesh_types::Metric::MIN,
        hops: 1,
        dist: 1,
        router: to.parse().unwrap(),
    };
    kernel_route(&core, "fd00::1".parse().unwrap())
}

fn new(kernel: &mut Fake) -> Fib {
    Fib::new(kernel, Instant::ZERO, Duration::from_secs(20)).unwrap()
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
    assert_eq!(fib.len(), 1);
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
    assert_eq!(fib.next_check(), Instant::from_millis(5_000), "the mesh is known when no more routes come");
    fib.set(route("fd00::3", "fe80::7"));
    fib.commit(&mut kernel, Instant::from_millis(1_000));
    fib.check(&mut kernel, fib.next_check());
    assert_eq!(kernel.routes.len(), 3);
    assert_eq!(fib.next_check(), Instant::from_millis(6_000));
    fib.check(&mut kernel, fib.next_check());
    assert_eq!(kernel.all(), [route("fd00::2", "fe80::7"), route("fd00::3", "fe80::7")]);
}

#[test]
fn what_an_earlier_run_left_does_not_outlive_the_grace() {
    let mut kernel = Fake::default();
    kernel.put(route("fd00::9", "fe80::2"));
    let mut fib = new(&mut kernel);
    fib.set(own_prefix_route(NetAddr::new("fd00:7::".parse().unwrap(), 64)));
    fib.commit(&mut kernel, Instant::ZERO);
    assert_eq!(fib.next_check(), Instant::from_millis(20_000), "nothing was learnt yet");
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
    assert_eq!((fib.problems().count(), fib.failures), (1, 1));
    assert_eq!(fib.next_check(), Instant::ZERO + RETRY);
    kernel.refuse = false;
    fib.check(&mut kernel, fib.next_check());
    assert_eq!((fib.problems().count(), kernel.routes.len()), (0, 1));
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
    assert_eq!(fib.next_check(), Instant::ZERO + RETRY);
    kernel.broken = false;
    fib.check(&mut kernel, fib.next_check());
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
fn the_packed_table_is_a_map() {
    let mut table = table::Table::default();
    let mut plain = BTreeMap::new();
    let mut rng = 1u64;
    for _ in 0..5_000 {
        rng = rng.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let (to, via) = ((rng >> 33) % 60, (rng >> 50) % 7);
        let family = |n: u64, v6: bool| if v6 { format!("fd00::{n:x}") } else { format!("10.0.0.{n}") };
        let one = route(&family(to, rng >> 62 == 0), &family(via + 100, rng >> 62 == 0));
        let key = table::key(&one);
        if (rng >> 40).is_multiple_of(3) {
            assert_eq!(table.remove(&key), plain.remove(&key));
        } else {
            assert_eq!(table.insert(one), plain.insert(key, one));
        }
        assert_eq!((table.get(&key), table.len()), (plain.get(&key).copied(), plain.len()));
    }
    assert!(table.values().eq(plain.into_values()));
}
