//! Addresses as small numbers: what graphs and routing tables count with.

use alloc::vec::Vec;
use core::net::IpAddr;

use rfc5444::NetAddr;

/// The number of an address or prefix, for as long as someone holds it.
pub(crate) type Name = u32;

/// All addresses that someone holds.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// By number; `None` is free. All of one family.
    list: Vec<Option<NetAddr>>,
    /// By number: how many hold it.
    holders: Vec<u32>,
    /// Numbers in the order of their addresses.
    sorted: Vec<Name>,
    free: Vec<Name>,
    /// Perhaps held by nobody.
    dead: Vec<Name>,
}

impl Names {
    /// Every number is below this.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn address(&self, name: Name) -> Option<NetAddr> {
        self.list.get(name as usize).copied().flatten()
    }

    pub(crate) fn find(&self, address: NetAddr) -> Option<Name> {
        self.search(address).ok().and_then(|at| self.sorted.get(at).copied())
    }

    fn search(&self, address: NetAddr) -> Result<usize, usize> {
        let key = |a: NetAddr| match a.ip() {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), a.prefix_len()),
            IpAddr::V6(ip) => (ip.to_bits(), a.prefix_len()),
        };
        let wanted = Some(key(address));
        self.sorted.binary_search_by(|name| self.address(*name).map(key).cmp(&wanted))
    }

    /// The address' number, held once more.
    pub(crate) fn hold(&mut self, address: NetAddr) -> Name {
        let name = match self.search(address) {
            Ok(at) => self.sorted.get(at).copied().unwrap_or(0),
            Err(at) => {
                let name = self.free.pop().unwrap_or_else(|| {
                    self.list.push(None);
                    self.holders.push(0);
                    (self.list.len() - 1) as Name
                });
                if let Some(slot) = self.list.get_mut(name as usize) {
                    *slot = Some(address);
                }
                self.sorted.insert(at, name);
                name
            }
        };
        if let Some(n) = self.holders.get_mut(name as usize) {
            *n += 1;
        }
        name
    }

    /// Held once less. The number keeps its meaning until the next [`Names::sweep`].
    pub(crate) fn release(&mut self, name: Name) {
        if let Some(n) = self.holders.get_mut(name as usize) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.dead.push(name);
            }
        }
    }

    /// Forgets what nobody holds.
    pub(crate) fn sweep(&mut self) {
        for name in core::mem::take(&mut self.dead) {
            let unheld = self.holders.get(name as usize) == Some(&0);
            let Some(address) = self.address(name).filter(|_| unheld) else { continue };
            if let Ok(at) = self.search(address) {
                self.sorted.remove(at);
            }
            if let Some(slot) = self.list.get_mut(name as usize) {
                *slot = None;
                self.free.push(name);
            }
        }
    }

    /// All, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Name, NetAddr)> {
        self.sorted.iter().filter_map(|name| Some((*name, self.address(*name)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_it_is_held() {
        let net = |n: u8| NetAddr::host([10, 0, 0, n].into());
        let mut names = Names::default();
        let (a, b) = (names.hold(net(9)), names.hold(net(3)));
        assert_eq!(names.hold(net(9)), a);
        names.release(a);
        names.release(b);
        names.sweep();
        assert_eq!((names.find(net(9)), names.find(net(3))), (Some(a), None));
        assert_eq!(names.hold(net(1)), b, "numbers are used again");
        assert_eq!(names.iter().map(|(_, a)| a).collect::<Vec<_>>(), [net(1), net(9)]);
        names.release(a);
        names.hold(net(9));
        names.sweep();
        assert_eq!(names.find(net(9)), Some(a), "held again in time");
    }
}
