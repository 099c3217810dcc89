//! Upstreams that do what a script says, most of it wrong.

mod conn;
pub mod fastcgi;
pub mod guards;
pub mod h2;
pub mod protocol;
pub mod script;
pub mod tls;

use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use crate::ports::Reservation;
pub use conn::{Conn, Gate};
use guards::RefusedPort;
pub use script::Step;

/// How long [`Upstream::wait_connections`] and the like wait.
const DEADLINE: Duration = Duration::from_secs(5);

/// A server whose connections each run the script in a thread of their own.
/// Dropping it ends the connections and waits for the threads.
#[derive(Debug)]
pub struct Upstream {
    addr: Address,
    /// Keeps the port, so that it refuses when the listener is closed.
    _port: Option<Reservation>,
    listener: Arc<Socket>,
    shared: Arc<Shared>,
    accept: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What the threads of an upstream share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    log: Mutex<Log>,
    /// Something was added to the log, or the upstream is ending.
    changed: Condvar,
    /// What scripts may be waiting for, to wake them at the end.
    gates: Mutex<Vec<Gate>>,
}

#[derive(Debug, Default)]
struct Log {
    connections: usize,
    requests: Vec<Vec<u8>>,
    /// Weak: a second owner would keep a socket open that its script closes.
    open: Vec<Weak<Socket>>,
    threads: Vec<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on 127.0.0.1.
    ///
    /// # Panics
    /// When there is no port.
    pub fn tcp(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::reserved(Reservation::v4().expect("a port on 127.0.0.1"), script)
    }

    /// Listens on `::1`.
    ///
    /// # Panics
    /// When there is no port, for example without IPv6.
    pub fn tcp6(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Self {
        Self::reserved(Reservation::v6().expect("a port on ::1"), script)
    }

    /// Listens on a port that refused until now, and will refuse again when
    /// the upstream is dropped.
    ///
    /// # Panics
    /// When the port has a listener already.
    pub fn tcp_at(
        port: &RefusedPort,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = port.0.listen(128).expect("nobody listens on a refused port");
        Self::run(Address::Tcp(port.0.addr()), None, listener, script)
    }

    /// Listens on a unix socket that everybody may connect to.
    ///
    /// # Panics
    /// When the socket cannot be made there.
    pub fn unix(
        path: impl AsRef<Path>,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let path = path.as_ref();
        let listener = listen_unix(path, 128);
        Self::run(Address::Unix(path.to_owned()), None, listener, script)
    }

    fn reserved(
        port: Reservation,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = port.listen(128).expect("a reserved port can be listened on");
        Self::run(Address::Tcp(port.addr()), Some(port), listener, script)
    }

    fn run(
        addr: Address,
        port: Option<Reservation>,
        listener: Socket,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared::default());
        let accept = {
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            let unix = matches!(addr, Address::Unix(_));
            let script: Arc<Script> = Arc::new(script);
            spawn(move || accept(&listener, &shared, unix, &script))
        };
        Self { addr, _port: port, listener, shared, accept: Some(accept) }
    }

    /// The address as the argument of `server`: `127.0.0.1:1`, `[::1]:1` or
    /// `unix:/path`.
    pub fn addr(&self) -> String {
        match &self.addr {
            Address::Tcp(addr) => addr.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The TCP port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match &self.addr {
            Address::Tcp(addr) => addr.port(),
            Address::Unix(_) => 0,
        }
    }

    /// Accepts nothing any more: new connections are refused while those that
    /// are open go on.
    pub fn close_listener(&mut self) {
        // Wakes accept(), which no other thread could otherwise interrupt.
        let _ = self.listener.shutdown(Shutdown::Both);
        if let Some(accept) = self.accept.take() {
            join(accept);
        }
    }

    /// The complete requests received so far.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.shared.log().requests.clone()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.log().connections
    }

    /// Waits until `n` connections were accepted.
    ///
    /// # Panics
    /// When they are too few for too long.
    pub fn wait_connections(&self, n: usize) {
        self.wait("connections", n, |log| log.connections);
    }

    /// Waits until `n` requests were read.
    ///
    /// # Panics
    /// When they are too few for too long.
    pub fn wait_requests(&self, n: usize) {
        self.wait("requests", n, |log| log.requests.len());
    }

    /// Waits until every connection accepted so far was closed by its script.
    ///
    /// # Panics
    /// When one is open for too long.
    pub fn wait_all_closed(&self) {
        self.wait("all closed", 1, |log| {
            usize::from(log.open.iter().all(|c| c.strong_count() == 0))
        });
    }

    fn wait(&self, what: &str, n: usize, count: impl Fn(&Log) -> usize) {
        let (log, late) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.log(), DEADLINE, |log| count(log) < n)
            .unwrap_or_else(PoisonError::into_inner);
        let have = count(&log);
        drop(log);
        assert!(!late.timed_out(), "{}: {have} {what}, wanted {n}", self.addr());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.close_listener();
        // No connection is added from here on: the accepting thread is gone.
        let (open, threads) = {
            let mut log = self.shared.log();
            (std::mem::take(&mut log.open), std::mem::take(&mut log.threads))
        };
        for socket in open.iter().filter_map(Weak::upgrade) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for gate in &*self.shared.gates.lock().unwrap_or_else(PoisonError::into_inner) {
            gate.wake();
        }
        self.shared.notify();
        threads.into_iter().for_each(join);
    }
}

type Script = dyn Fn(usize, &mut Conn) + Send + Sync;

fn accept(listener: &Socket, shared: &Arc<Shared>, unix: bool, script: &Arc<Script>) {
    // The only way out is the listener being shut down.
    while let Ok((socket, _)) = listener.accept() {
        if !unix {
            let _ = socket.set_tcp_nodelay(true);
        }
        let socket = Arc::new(socket);
        let mut log = shared.log();
        let index = log.connections;
        log.connections += 1;
        log.open.push(Arc::downgrade(&socket));
        let mut conn = Conn::new(index, socket, unix, Arc::clone(shared));
        let script = Arc::clone(script);
        log.threads.push(spawn(move || {
            script(conn.index(), &mut conn);
            conn.close();
        }));
        drop(log);
        shared.changed.notify_all();
    }
}

/// Passes a failed assertion of a script on to the test.
fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join()
        && !std::thread::panicking()
    {
        std::panic::resume_unwind(panic);
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Wakes who waits for a change. Taking the lock first keeps the change
    /// from falling between a waiter's look and its sleep.
    fn notify(&self) {
        drop(self.log());
        self.changed.notify_all();
    }

    /// Sleeps, or less when the upstream ends.
    fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut log = self.log();
        while !self.stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            log = self.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A listening unix socket that everybody may connect to: workers often run
/// as somebody else.
fn listen_unix(path: &Path, backlog: i32) -> Socket {
    let make = || {
        let socket = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
        socket.listen(backlog)?;
        std::io::Result::Ok(socket)
    };
    make().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
