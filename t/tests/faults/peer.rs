//! What is at the other end.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use t::ports::Reservation;
use t::protocol::Protocol;
use t::{Conn, FullBacklog, RefusedPort, Upstream, script};

/// What an upstream does with each connection, of which it knows the number.
pub(crate) type Script = Box<dyn Fn(usize, &mut Conn) + Send + Sync>;

/// What is at the other end.
pub(crate) enum Peer {
    /// A server on 127.0.0.1.
    Tcp(Script),
    /// A server on `::1`.
    Tcp6(Script),
    /// A server on a unix socket.
    Unix(Script),
    /// A port on 127.0.0.1 without a listener.
    Refused,
    /// The same on `::1`.
    Refused6,
    /// A unix socket whose process is gone.
    RefusedUnix,
    /// A listener on 127.0.0.1 whose queue is full.
    FullTcp,
    /// The same on a unix socket.
    FullUnix,
    /// A unix socket that may not be used.
    PrivateUnix,
    /// A path at which there is no socket.
    MissingUnix,
    /// A unix socket for datagrams.
    DatagramUnix,
    /// This address.
    At(&'static str),
}

pub(crate) fn tcp(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Peer {
    Peer::Tcp(Box::new(script))
}

pub(crate) fn tcp6(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Peer {
    Peer::Tcp6(Box::new(script))
}

pub(crate) fn unix(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Peer {
    Peer::Unix(Box::new(script))
}

/// How a connection ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// With FIN.
    Fin,
    /// With RST.
    Rst,
    /// By nginx.
    Wait,
}

/// Reads a request of the protocol, sends these bytes and ends the connection.
pub(crate) fn sends(
    protocol: &Protocol,
    bytes: &[u8],
    end: End,
) -> impl Fn(usize, &mut Conn) + Send + Sync + use<> {
    let (read, bytes) = (protocol.read, bytes.to_vec());
    move |_, conn| {
        if read(conn) && conn.write(&bytes) {
            match end {
                End::Fin => {}
                End::Rst => conn.reset(),
                End::Wait => conn.wait_peer_close(),
            }
        }
    }
}

/// What keeps an address as it is. Nothing of most is looked at.
#[expect(dead_code, reason = "dropping it is what counts")]
pub(crate) enum Kept {
    Upstream(Upstream),
    Refused(RefusedPort),
    Refused6(Reservation),
    Full(FullBacklog),
    Datagram(UnixDatagram),
    Nothing,
}

/// Makes what is at the other end: its address, and what keeps that.
pub(crate) fn make(peer: Peer, path: &Path) -> (String, Kept) {
    let unix = format!("unix:{}", path.display());
    let up = |up: Upstream| (up.addr(), Kept::Upstream(up));
    match peer {
        Peer::Tcp(script) => up(Upstream::tcp(script)),
        Peer::Tcp6(script) => up(Upstream::tcp6(script)),
        Peer::Unix(script) => up(Upstream::unix(path, script)),
        Peer::PrivateUnix => {
            let private = Upstream::unix(path, script::ok("never"));
            set_permissions(path, Permissions::from_mode(0o000)).expect("chmod");
            up(private)
        }
        Peer::Refused => {
            let port = t::refused_port();
            (port.addr(), Kept::Refused(port))
        }
        Peer::Refused6 => {
            let port = Reservation::v6().expect("a port on ::1");
            (port.addr().to_string(), Kept::Refused6(port))
        }
        Peer::RefusedUnix => (t::dead_unix(path), Kept::Nothing),
        Peer::FullTcp => {
            let full = t::full_backlog_tcp();
            (full.addr().to_owned(), Kept::Full(full))
        }
        Peer::FullUnix => (unix, Kept::Full(t::full_backlog_unix(path))),
        Peer::MissingUnix => (unix, Kept::Nothing),
        Peer::DatagramUnix => {
            let socket = UnixDatagram::bind(path).expect("a datagram socket");
            set_permissions(path, Permissions::from_mode(0o777)).expect("chmod");
            (unix, Kept::Datagram(socket))
        }
        Peer::At(addr) => (addr.to_owned(), Kept::Nothing),
    }
}
