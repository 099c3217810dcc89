//! A TCP port that nobody else gets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Holds a port by a socket that is bound and never listens.
///
/// As long as this lives, the kernel gives the port to no other `bind(0)` and
/// no outgoing connection, while a server that sets `SO_REUSEADDR` (as nginx
/// does) can listen on it, stop and listen again. There is thus no moment
/// between choosing a port and using it in which another test could take it.
#[derive(Debug)]
pub struct Reservation {
    _socket: Socket,
    addr: SocketAddr,
}

impl Reservation {
    /// A port on 127.0.0.1.
    pub fn v4() -> io::Result<Self> {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// A port on `::1`.
    pub fn v6() -> io::Result<Self> {
        Self::on(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
    }

    /// A port on an address of this host; any if it is 0.
    pub fn on(addr: SocketAddr) -> io::Result<Self> {
        let socket = bound(addr)?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { _socket: socket, addr })
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

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}
