//! Who listens where a failed attempt went to, on this host.

use std::borrow::Borrow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use diagnosis::findings::{Host, Listener, Listening, Process};
use diagnosis::{Attempt, Cause, Seconds};
use host::Answers;

use crate::ffi::upstream::Upstream;
use crate::ffi::{socket, time};

/// What the kernel says of who listens where the failed attempt went to: asked where it can
/// explain the failure, and at most twice a second for an address, a port, a unix socket or a process.
pub(super) fn host(upstream: Upstream<'_>, failed: &Attempt) -> Option<Host> {
    let (peer, cause) = (failed.peer.as_deref()?, failed.cause?);
    if let (None, Some(path)) = (failed.address, peer.strip_prefix("unix:")) {
        let listener = match cause {
            Cause::ConnectionRefused
            | Cause::SocketNotFound
            | Cause::ListenQueueFull
            | Cause::ResponseTimedOut => unix(path)?,
            _ => Listening::Unknown,
        };
        return Some(Host::Unix { listener, process: process(upstream) });
    }
    match cause {
        Cause::ConnectionRefused | Cause::ConnectionTimedOut | Cause::ResponseTimedOut => {
            // nginx gives a peer back before it says that it timed out.
            tcp(failed.address.or_else(|| peer.parse().ok())?)
        }
        _ => None,
    }
}

fn tcp(address: SocketAddr) -> Option<Host> {
    // A question that is cheap, before one that goes over all that listens.
    if !is_own(address.ip())? {
        return None;
    }
    static PORTS: Asked<u16, Option<Vec<Listener>>> = Asked::new();
    let port = address.port();
    let listeners = PORTS.get(&port, || listeners(port))??;
    Some(Host::Tcp { address, own: true, listeners })
}

fn is_own(address: IpAddr) -> Option<bool> {
    // These are not asked about, and take no other's room: there can be a thousand of them.
    if host::is_own_everywhere(address) {
        return Some(true);
    }
    static ADDRESSES: Asked<IpAddr, Option<bool>> = Asked::new();
    ADDRESSES.get(&address, || host::is_own(address))?
}

fn listeners(port: u16) -> Option<Vec<Listener>> {
    let listeners = host::listeners(port)?.into_iter().map(|listener| Listener {
        address: listener.address,
        v6_only: listener.v6_only,
        one_interface: listener.interface.is_some(),
        queue: listener.queue,
        limit: listener.limit,
    });
    Some(listeners.collect())
}

fn unix(path: &str) -> Option<Listening> {
    static PATHS: Asked<String, Listening> = Asked::new();
    PATHS.get(path, || match host::unix_listener(path.as_bytes()) {
        None => no_socket(path).unwrap_or(Listening::Unknown),
        Some(None) => no_socket(path).unwrap_or(Listening::Nobody),
        Some(Some(found)) => match found.reachable {
            None => Listening::Unknown,
            Some(reachable) => {
                Listening::Somebody { reachable, queue: found.queue, limit: found.limit }
            }
        },
    })
}

fn no_socket(path: &str) -> Option<Listening> {
    host::no_socket(path.as_bytes()).map(Listening::NoSocket)
}

/// The process that listens on the unix socket, while a connection to it is open.
fn process(upstream: Upstream<'_>) -> Option<Process> {
    let pid = socket::listening_process(upstream.fd()?)?;
    // When it started is kept: how long ago that was changes. It can be before the clock began,
    // which does not run while the host sleeps.
    static STARTS: Asked<i32, Option<u64>> = Asked::new();
    let start = STARTS.get(&pid, || {
        let ago = u64::try_from(host::process_started(pid)?.as_millis()).ok()?;
        Some(time::current_msec().wrapping_sub(ago))
    })??;
    let started = Seconds::Millis(time::current_msec().wrapping_sub(start));
    Some(Process { pid: u64::try_from(pid).ok()?, started })
}

/// The kernel's answers to one question. This worker's one thread asks.
struct Asked<K, T>(Mutex<Answers<K, T>>);

impl<K, T: Clone> Asked<K, T> {
    const fn new() -> Self {
        Asked(Mutex::new(Answers::new()))
    }

    /// A fresh answer. `None` if there is none, and no room for one: a storm must not ask all the
    /// time.
    fn get<Q>(&self, about: &Q, ask: impl FnOnce() -> T) -> Option<T>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + ?Sized,
    {
        // A panic in here, which poisons it, costs the answers and nothing else.
        self.0.lock().ok()?.get(about, time::current_msec(), ask)
    }
}
