//! A TCP port that nobody else gets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Holds a port by a socket that is bound and never listens.
///
/// As long as this lives, the kernel gives the port to no other `bind(0)` and
/// no outgoing connection, while a server that sets `SO_REUSEADDR` (as nginx
/// does) can listen on it, stop and listen again. There is thus no moment
/// between choosing a port and using it in which another test could take it.
///
/// Nobody gets the port on the other loopback address either: the module looks
/// who listens on a port of this host, whatever the address.
#[derive(Debug)]
pub struct Reservation {
    _sockets: Vec<Socket>,
    addr: SocketAddr,
}

/// Where nobody else is to listen on a port that is reserved.
const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How often a port is looked for that is free on all addresses.
const TRIES: usize = 100;

impl Reservation {
    /// A port on 127.0.0.1.
    pub fn v4() -> io::Result<Self> {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    /// A port on `::1`.
    pub fn v6() -> io::Result<Self> {
        Self::on(Ipv6Addr::LOCALHOST.into())
    }

    /// A port on a loopback address.
    pub fn on(ip: IpAddr) -> io::Result<Self> {
        (1..TRIES).find_map(|_| Self::once(ip).transpose()).unwrap_or_else(|| {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free on all addresses"))
        })
    }

    /// `None` if the port is taken on another address.
    fn once(ip: IpAddr) -> io::Result<Option<Self>> {
        let socket = bound((ip, 0).into())?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut sockets = vec![socket];
        for other in BOTH {
            if other == ip {
                continue;
            }
            match taken((other, addr.port()).into()) {
                Ok(socket) => sockets.push(socket),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Ok(None),
                // There is no IPv6.
                Err(_) => {}
            }
        }
        Ok(Some(Self { _sockets: sockets, addr }))
    }

    /// The address with the port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// A listening socket on the port.
    pub fn listen(&self, backlog: i32) -> io::Result<Socket> {
        let socket = bound(self.addr)?;
        socket.listen(backlog)?;
        Ok(socket)
    }
}

/// [`bound`], if nobody else has it: that could be another reservation.
fn taken(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a port that is somebody else's on the other address, and against one that its
    /// own test cannot listen on.
    #[test]
    fn a_port_is_held_on_both_addresses() {
        for reserve in [Reservation::v4, Reservation::v6] {
            let port = reserve().expect("a port");
            for ip in BOTH {
                let addr = SocketAddr::new(ip, port.port());
                let error = taken(addr).expect_err("it is taken").kind();
                let without =
                    matches!(ip, IpAddr::V6(_)) && error == io::ErrorKind::AddrNotAvailable;
                assert!(error == io::ErrorKind::AddrInUse || without, "{addr}: {error}");
                if !without {
                    bound(addr).and_then(|socket| socket.listen(1)).expect("a listener");
                }
            }
        }
    }
}
