//! Who listens where a failed attempt went to, on this host.

use std::net::SocketAddr;
use std::sync::Mutex;

use diagnosis::findings::{Host, Listener, Listening, Process};
use diagnosis::{Attempt, Cause, Seconds};

use crate::ffi::upstream::Upstream;
use crate::ffi::{socket, time};

/// What the kernel says of who listens where the failed attempt went to: asked where it can
/// explain the failure, and at most twice a second for a port or a unix socket.
pub(super) fn host(upstream: Upstream<'_>, failed: &Attempt) -> Option<Host> {
    let peer = failed.peer.as_deref()?;
    match peer.strip_prefix("unix:") {
        Some(path) => {
            let listens = matches!(
                failed.cause?,
                Cause::ConnectionRefused
                    | Cause::SocketNotFound
                    | Cause::ListenQueueFull
                    | Cause::ResponseTimedOut
            );
            let listener = match listens {
                true => known(peer, || Some(unix(path)))??,
                false => Host::Unix { listener: Listening::Unknown, process: None },
            };
            Some(match listener {
                Host::Unix { listener, .. } => Host::Unix { listener, process: process(upstream) },
                tcp @ Host::Tcp { .. } => tcp,
            })
        }
        None => match failed.cause? {
            Cause::ConnectionRefused | Cause::ConnectionTimedOut | Cause::ResponseTimedOut => {
                let ask = || tcp(peer.parse().ok()?);
                // Of many peers an answer is put together each time.
                known(peer, ask).unwrap_or_else(ask)
            }
            _ => None,
        },
    }
}

fn tcp(address: SocketAddr) -> Option<Host> {
    // A question that is cheap, before one that goes over all that listens.
    let own = host::is_own(address.ip())?;
    if !own {
        return None;
    }
    let port = address.port();
    static PORTS: Mutex<Answers<u16, Option<Vec<Listener>>>> = Mutex::new(Answers::new());
    let ask = || listeners(port);
    let known = PORTS.lock().ok()?.get(|known| *known == port, || port, ask);
    // With more ports than there is room for nothing is said: a storm must not ask all the time.
    Some(Host::Tcp { own, listeners: known?? })
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

fn unix(path: &str) -> Host {
    let listener = match host::unix_listener(path.as_bytes()) {
        None => Listening::Unknown,
        Some(None) => Listening::Nobody,
        Some(Some(found)) => match found.reachable {
            None => Listening::Unknown,
            Some(reachable) => {
                Listening::Somebody { reachable, queue: found.queue, limit: found.limit }
            }
        },
    };
    Host::Unix { listener, process: None }
}

/// The process that listens on the unix socket, while a connection to it is open.
fn process(upstream: Upstream<'_>) -> Option<Process> {
    let pid = socket::listening_process(upstream.fd()?)?;
    let started = u64::try_from(host::process_started(pid)?.as_millis()).ok()?;
    Some(Process { pid: u64::try_from(pid).ok()?, started: Seconds::Millis(started) })
}

/// The answer for a peer. `None` if there is none, and no room for one.
fn known(peer: &str, ask: impl FnOnce() -> Option<Host>) -> Option<Option<Host>> {
    static PEERS: Mutex<Answers<Name, Option<Host>>> = Mutex::new(Answers::new());
    let end = peer.as_bytes().last_chunk().copied();
    let is = |name: &Name| name.end == end && name.text == peer;
    // A panic in here, which poisons it, costs the answers and nothing else.
    PEERS.lock().ok()?.get(is, || Name { text: peer.to_owned(), end }, ask)
}

struct Name {
    text: String,
    /// The end of it, which tells most names apart sooner.
    end: Option<[u8; 8]>,
}

/// For how long an answer is taken for the state of things, milliseconds. That for a peer is made of
/// that for its port: together they are a second old at most.
const FRESH: u64 = 500;

/// Answers that are kept.
const KEPT: usize = 64;

/// The answers to one question. This worker's one thread asks.
struct Answers<K, T>(Vec<Answer<K, T>>);

struct Answer<K, T> {
    about: K,
    at: u64,
    answer: T,
}

impl<K, T: Clone> Answers<K, T> {
    const fn new() -> Self {
        Answers(Vec::new())
    }

    /// A fresh answer, or a new one. `None` if there is no room for that.
    fn get(
        &mut self,
        is: impl Fn(&K) -> bool,
        about: impl FnOnce() -> K,
        ask: impl FnOnce() -> T,
    ) -> Option<T> {
        let now = time::current_msec();
        let is_fresh = |known: &Answer<K, T>| now.saturating_sub(known.at) < FRESH;
        if let Some(known) = self.0.iter_mut().find(|known| is(&known.about)) {
            if !is_fresh(known) {
                (known.answer, known.at) = (ask(), now);
            }
            return Some(known.answer.clone());
        }
        if self.0.len() >= KEPT {
            self.0.retain(is_fresh);
            if self.0.len() >= KEPT {
                return None;
            }
        }
        let answer = ask();
        self.0.push(Answer { about: about(), at: now, answer: answer.clone() });
        Some(answer)
    }
}
