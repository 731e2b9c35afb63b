//! Routes by prefix, packed: a large mesh has thousands, over a handful of next hops.

use std::net::IpAddr;

use mesh_sys::netlink::Route;

/// Prefix, its length, and table; all of ours have small numbers.
pub(super) type Key = (IpAddr, u8, u8);

pub(super) const fn key(route: &Route) -> Key {
    (route.prefix, route.prefix_len, route.table as u8)
}

/// Routes, one for each key.
#[derive(Debug, Default)]
pub(super) struct Table {
    v6: List<16>,
    v4: List<4>,
    /// Routes less their keys, and how many there are of each; none: free.
    ways: Vec<(Route, u32)>,
}

/// The place of a way.
type Way = u16;
/// Octets of the prefix, its length, table.
type Place<const N: usize> = ([u8; N], u8, u8);

/// In the order of the keys, in one piece: a tree needs half as much again.
#[derive(Debug, Default)]
struct List<const N: usize>(Vec<(Place<N>, Way)>);

impl<const N: usize> List<N> {
    fn find(&self, place: &Place<N>) -> Result<usize, usize> {
        self.0.binary_search_by(|(p, _)| p.cmp(place))
    }

    fn get(&self, place: &Place<N>) -> Option<Way> {
        self.find(place).ok().and_then(|at| self.0.get(at)).map(|(_, way)| *way)
    }

    /// Puts one in that is not there.
    fn insert(&mut self, place: Place<N>, way: Way) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(self.0.len() / 16 + 8);
        }
        let at = self.find(&place).unwrap_or_else(|at| at);
        self.0.insert(at, (place, way));
    }

    fn remove(&mut self, place: &Place<N>) -> Option<Way> {
        let at = self.find(place).ok()?;
        Some(self.0.remove(at).1)
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.v6.0.len() + self.v4.0.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Route> {
        let (prefix, len, table) = *key;
        let way = match prefix {
            IpAddr::V6(ip) => self.v6.get(&(ip.octets(), len, table)),
            IpAddr::V4(ip) => self.v4.get(&(ip.octets(), len, table)),
        };
        self.route(prefix, len, way?)
    }

    fn route(&self, prefix: IpAddr, prefix_len: u8, way: Way) -> Option<Route> {
        let (way, _) = self.ways.get(usize::from(way))?;
        Some(Route { prefix, prefix_len, ..*way })
    }

    /// Puts a route in; what was in its place.
    pub(super) fn insert(&mut self, route: Route) -> Option<Route> {
        let key = key(&route);
        let old = self.remove(&key);
        let way = Route { prefix: IpAddr::from([0; 4]), prefix_len: 0, ..route };
        let same = self.ways.iter().position(|(w, n)| *w == way && *n > 0);
        let at = same.or_else(|| self.ways.iter().position(|(_, n)| *n == 0)).unwrap_or(self.ways.len());
        // As many next hops can't be; the route is missed and put back when routes are compared.
        let Ok(place) = Way::try_from(at) else { return old };
        match self.ways.get_mut(at) {
            Some((slot, n)) => (*slot, *n) = (way, *n + 1),
            None => self.ways.push((way, 1)),
        }
        match route.prefix {
            IpAddr::V6(ip) => self.v6.insert((ip.octets(), key.1, key.2), place),
            IpAddr::V4(ip) => self.v4.insert((ip.octets(), key.1, key.2), place),
        }
        old
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Route> {
        let (prefix, len, table) = *key;
        let way = match prefix {
            IpAddr::V6(ip) => self.v6.remove(&(ip.octets(), len, table)),
            IpAddr::V4(ip) => self.v4.remove(&(ip.octets(), len, table)),
        }?;
        let route = self.route(prefix, len, way);
        if let Some((_, n)) = self.ways.get_mut(usize::from(way)) {
            *n = n.saturating_sub(1);
        }
        route
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Route> {
        let v6 = self.v6.0.iter().filter_map(|((ip, len, _), way)| self.route((*ip).into(), *len, *way));
        let v4 = self.v4.0.iter().filter_map(|((ip, len, _), way)| self.route((*ip).into(), *len, *way));
        v4.chain(v6)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
