//! Addresses at which connecting fails in a certain way.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen_unix;
use crate::ports::Reservation;

/// How long a connection must hang to count as one that hangs. Only a check of
/// the machine: loopback answers within the same system call.
const HANG: Duration = Duration::from_millis(200);

/// A port on 127.0.0.1 that refuses connections as long as this lives.
#[derive(Debug)]
pub struct RefusedPort(pub(super) Reservation);

impl RefusedPort {
    /// The address as the argument of `server`.
    pub fn addr(&self) -> String {
        self.0.addr().to_string()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

/// A port that is bound and has no listener, thus is not given to anybody else.
///
/// # Panics
/// When there is none.
pub fn refused_port() -> RefusedPort {
    RefusedPort(Reservation::v4().expect("a port on 127.0.0.1"))
}

/// A unix socket nobody listens on any more: connecting is refused.
///
/// # Panics
/// When the socket cannot be made there.
pub fn dead_unix(path: &Path) -> String {
    drop(listen_unix(path, 0));
    format!("unix:{}", path.display())
}

/// A listener whose queue is full and which accepts nobody.
#[derive(Debug)]
pub struct FullBacklog {
    addr: String,
    _listener: Socket,
    _port: Option<Reservation>,
    waiting: Vec<Socket>,
}

impl FullBacklog {
    /// [`full_backlog_tcp`] with a queue for so many.
    ///
    /// # Panics
    /// As that.
    pub fn tcp(backlog: i32) -> Self {
        let port = Reservation::v4().expect("a port on 127.0.0.1");
        let listener = port.listen(backlog).expect("a reserved port can be listened on");
        let waiting = fill(|| connect_tcp(port.addr()), io::ErrorKind::TimedOut);
        let addr = port.addr().to_string();
        Self { addr, _listener: listener, _port: Some(port), waiting }
    }

    /// [`full_backlog_unix`] with a queue for so many.
    ///
    /// # Panics
    /// As that.
    pub fn unix(path: &Path, backlog: i32) -> Self {
        let listener = listen_unix(path, backlog);
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.connect(&SockAddr::unix(path)?).map(|()| socket)
        };
        let waiting = fill(connect, io::ErrorKind::WouldBlock);
        let addr = format!("unix:{}", path.display());
        Self { addr, _listener: listener, _port: None, waiting }
    }

    /// The address as the argument of `server`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// How many connections wait: one or two more than the queue is for.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// A port on 127.0.0.1 where connecting hangs: the kernel drops the SYN when
/// the queue is full (unless `tcp_abort_on_overflow` is set).
///
/// # Panics
/// When connecting does not hang.
pub fn full_backlog_tcp() -> FullBacklog {
    FullBacklog::tcp(0)
}

/// A unix socket where connecting without blocking gives EAGAIN.
///
/// # Panics
/// When it does not.
pub fn full_backlog_unix(path: &Path) -> FullBacklog {
    FullBacklog::unix(path, 0)
}

fn connect_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.connect_timeout(&addr.into(), HANG).map(|()| socket)
}

/// Connects until that fails as wanted. A backlog of 0 means one or two
/// connections, depending on the kernel.
fn fill(connect: impl Fn() -> io::Result<Socket>, wanted: io::ErrorKind) -> Vec<Socket> {
    let mut waiting = Vec::new();
    while waiting.len() < 16 {
        match connect() {
            Ok(socket) => waiting.push(socket),
            Err(e) if e.kind() == wanted => return waiting,
            Err(e) => panic!("a full queue should give {wanted:?}, not {e}"),
        }
    }
    panic!("the queue is never full");
}
