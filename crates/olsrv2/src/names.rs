//! Addresses as small numbers: what graphs and routing tables count with.

use alloc::vec::Vec;
use core::net::IpAddr;

use rfc5444::NetAddr;

/// The number of an address or prefix, for as long as someone holds it.
pub(crate) type Name = u32;

/// All addresses that someone holds, of one family.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// By number: the address' octets, then the prefix length.
    list: Vec<u8>,
    /// Octets of an address, as in the first that came.
    width: usize,
    /// By number: how many hold it. Zero: it is free, or will be; the largest: nobody counts any more.
    holders: Vec<u16>,
    /// Numbers in the order of their addresses.
    sorted: Vec<Name>,
    free: Vec<Name>,
    /// Perhaps held by nobody.
    dead: Vec<Name>,
}

/// Longest entry of the list.
const LONGEST: usize = 17;

impl Names {
    /// Every number is below this.
    pub(crate) fn len(&self) -> usize {
        self.holders.len()
    }

    /// The address of that number. A number that is free means nothing.
    pub(crate) fn address(&self, name: Name) -> Option<NetAddr> {
        let (len, octets) = self.entry(name)?.split_last()?;
        let ip = match <[u8; 4]>::try_from(octets) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        };
        Some(NetAddr::new(ip, *len))
    }

    pub(crate) fn find(&self, address: NetAddr) -> Option<Name> {
        self.search(&self.spell(address)).ok().and_then(|at| self.sorted.get(at).copied())
    }

    /// Whether that is its address.
    pub(crate) fn is(&self, name: Name, address: NetAddr) -> bool {
        self.entry(name) == self.spell(address).get(..=self.width)
    }

    fn entry(&self, name: Name) -> Option<&[u8]> {
        let size = self.width + 1;
        self.list.get(name as usize * size..)?.get(..size)
    }

    /// An address as the list has it; what follows in the array means nothing.
    fn spell(&self, address: NetAddr) -> [u8; LONGEST] {
        let len = address.prefix_len();
        let octets = match address.ip() {
            IpAddr::V4(ip) if self.width == 4 => {
                let [a, b, c, d] = ip.octets();
                [a, b, c, d, len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            }
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let mut entry = [len; LONGEST];
        entry.iter_mut().zip(octets).for_each(|(to, octet)| *to = octet);
        entry
    }

    fn search(&self, entry: &[u8; LONGEST]) -> Result<usize, usize> {
        let wanted = entry.get(..=self.width);
        self.sorted.binary_search_by(|name| self.entry(*name).cmp(&wanted))
    }

    /// The address' number, held once more.
    pub(crate) fn hold(&mut self, address: NetAddr) -> Name {
        if self.width == 0 {
            self.width = if address.ip().is_ipv4() { 4 } else { 16 };
        }
        let entry = self.spell(address);
        let name = match self.search(&entry) {
            Ok(at) => self.sorted.get(at).copied().unwrap_or(0),
            Err(at) => {
                let name = self.free.pop().unwrap_or_else(|| self.grow());
                let size = self.width + 1;
                let room = self.list.get_mut(name as usize * size..);
                if let Some((room, entry)) = room.and_then(|r| r.get_mut(..size)).zip(entry.get(..size)) {
                    room.copy_from_slice(entry);
                }
                make_room(&mut self.sorted);
                self.sorted.insert(at, name);
                name
            }
        };
        if let Some(n) = self.holders.get_mut(name as usize) {
            *n = n.saturating_add(1);
        }
        name
    }

    fn grow(&mut self) -> Name {
        let size = self.width + 1;
        if self.list.capacity() < self.list.len() + size {
            self.list.reserve_exact((self.holders.len() / 16 + 8) * size);
        }
        self.list.resize(self.list.len() + size, 0);
        make_room(&mut self.holders);
        self.holders.push(0);
        (self.holders.len() - 1) as Name
    }

    /// Held once less. The number keeps its meaning until the next [`Names::sweep`].
    pub(crate) fn release(&mut self, name: Name) {
        let Some(n) = self.holders.get_mut(name as usize) else { return };
        if *n < u16::MAX {
            *n = n.saturating_sub(1);
        }
        if *n == 0 {
            self.dead.push(name);
        }
    }

    /// How many may be held by nobody.
    pub(crate) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Forgets what nobody holds.
    pub(crate) fn sweep(&mut self) {
        let mut dead = core::mem::take(&mut self.dead);
        dead.sort_unstable();
        dead.dedup();
        for name in dead {
            let unheld = self.holders.get(name as usize) == Some(&0);
            let Some(address) = self.address(name).filter(|_| unheld) else { continue };
            let at = self.search(&self.spell(address)).ok();
            if let Some(at) = at.filter(|at| self.sorted.get(*at) == Some(&name)) {
                self.sorted.remove(at);
                self.free.push(name);
            }
        }
    }

    /// Octets on the heap.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.list.capacity()
            + 2 * self.holders.capacity()
            + 4 * (self.sorted.capacity() + self.free.capacity() + self.dead.capacity())
    }

    /// All, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Name, NetAddr)> {
        self.sorted.iter().filter_map(|name| Some((*name, self.address(*name)?)))
    }
}

/// Room for one more, in steps of a sixteenth: large tables that double waste too much.
pub(crate) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 16 + 8);
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
