//! The kernel's announcements of devices that come and go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recvfrom, socket_with, sockopt,
};

/// A socket that hears them.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

/// A device came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// `net`, `usb`, `watchdog`, …
    pub subsystem: String,
    /// The name of its node below `/dev`, as `sda1`; empty if it has none.
    pub name: String,
    /// What to load a module by; empty if it names none.
    pub modalias: String,
}

impl Uevents {
    /// Starts to listen. Only root's namespace hears the kernel.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
        // A hub full of devices speaks in bursts.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 512 * 1024);
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Self { socket })
    }

    /// The next announcement, if there is one. Those that are lost (a full buffer) or not the kernel's are
    /// left out.
    pub fn next(&self) -> Option<Uevent> {
        let mut buffer = [0u8; 8192];
        for _ in 0..256 {
            let received = recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty());
            let (n, from) = match received {
                Ok((_, n, from)) => (n, from),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => continue,
                Err(_) => return None,
            };
            let kernel =
                from.and_then(|a| netlink::SocketAddrNetlink::try_from(a).ok()).is_some_and(|a| a.pid() == 0);
            if kernel && let Some(event) = parse(buffer.get(..n).unwrap_or_default()) {
                return Some(event);
            }
        }
        None
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads `add@/devices/…\0ACTION=add\0SUBSYSTEM=usb\0…`.
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut fields = message.split(|b| *b == 0).map(|f| std::str::from_utf8(f).unwrap_or_default());
    fields.next().filter(|head| head.contains('@'))?;
    let mut event = Uevent {
        action: String::new(),
        subsystem: String::new(),
        name: String::new(),
        modalias: String::new(),
    };
    for field in fields {
        match field.split_once('=') {
            Some(("ACTION", v)) => event.action = v.to_owned(),
            Some(("SUBSYSTEM", v)) => event.subsystem = v.to_owned(),
            Some(("DEVNAME", v)) => event.name = v.trim_start_matches("/dev/").to_owned(),
            Some(("MODALIAS", v)) => event.modalias = v.to_owned(),
            _ => {}
        }
    }
    (!event.action.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_kernel() {
        let text = b"add@/devices/x/usb1/1-1\0ACTION=add\0SUBSYSTEM=usb\0MODALIAS=usb:v0525pA4A2\0SEQNUM=7\0";
        let event = parse(text).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("add", "usb"));
        assert_eq!(event.modalias, "usb:v0525pA4A2");
        let text =
            b"add@/devices/x/block/sda/sda1\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda1\0DEVTYPE=partition\0";
        assert_eq!(parse(text).unwrap().name, "sda1");
        assert_eq!(parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"add@/x"), None);
        assert_eq!(parse(b"add@/x\0ACTION=\xff"), None);
    }
}
