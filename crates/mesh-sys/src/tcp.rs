//! TCP sockets that never block: listeners tied to one interface, and connections that are still being made.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use crate::udp::Family;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 16;

/// Listens on `address`.
///
/// # Errors
/// The kernel's: the address is not ours, the port is taken or below 1024, …
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    start(address, None)
}

/// Listens on a port of one interface, on all its addresses: nothing else is heard.
///
/// # Errors
/// The kernel's: no such interface, port below 1024 without `CAP_NET_BIND_SERVICE`, …
pub fn listen_on(interface: &str, family: Family, port: u16) -> io::Result<TcpListener> {
    let any = match family {
        Family::V4 => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        Family::V6 => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
    };
    start(any, Some(interface))
}

fn start(address: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Or a service that ended a moment ago would keep its successor out (TIME_WAIT).
    socket.set_reuse_address(true)?;
    // One on all addresses of an interface, beside one on an address of the machine.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts to connect. Once the socket can be written the connection stands, or the first write tells why not.
///
/// # Errors
/// What the kernel knows at once: no route, no socket left, …
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(e) if e.kind() != ErrorKind::WouldBlock && e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    #[test]
    fn a_connection_is_made_without_waiting_and_a_refused_one_says_so() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let writes = |address| {
            let mut stream = connect(address)?;
            let end = Instant::now() + Duration::from_secs(5);
            loop {
                match stream.write(b"x") {
                    Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected => {
                        assert!(Instant::now() < end, "still connecting");
                        std::thread::yield_now();
                    }
                    other => return other,
                }
            }
        };
        assert_eq!(writes(address).unwrap(), 1);
        drop(listener);
        writes(address).unwrap_err();
    }

    #[test]
    fn a_listener_on_an_interface_stands_beside_one_on_an_address() {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listen_on("lo", Family::V4, first.local_addr().unwrap().port()).unwrap();
    }

    #[test]
    fn a_listener_on_an_interface_hears_it() {
        let listener = listen_on("lo", Family::V4, 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        listen_on("no-such-interface", Family::V6, 0).unwrap_err();
    }
}
