//! What is known beyond the attempts when an upstream request ends: the group, who listens on this
//! host, and why nginx went no further.

use std::net::SocketAddr;
use std::sync::Mutex;

use diagnosis::findings::{Context, Host, Listener, Listening, NotRetried, Process, Sibling};
use diagnosis::{Attempt, Cause, Phase, Seconds, Tally};

use crate::ffi::request::Request;
use crate::ffi::retry;
use crate::ffi::upstream::Upstream;
use crate::ffi::{peers, socket, time};
use crate::record::Note;

/// Other servers of a group that are looked at: enough to see that they are fine.
const SIBLINGS: usize = 8;

/// What is known when an upstream request ends with `failed`.
pub(super) fn context(request: Request<'_>, upstream: Upstream<'_>, last: &Note) -> Context {
    let failed = &last.attempt;
    let not_retried = not_retried(upstream, failed);
    Context {
        is_block: upstream.is_block(),
        servers: servers(upstream, failed),
        siblings: siblings(request, upstream, last),
        host: host(upstream, failed),
        not_retried,
        conditions: match not_retried {
            Some(NotRetried::NotConfigured) => {
                upstream.retry().map(|retry| retry.kinds.names()).unwrap_or_default()
            }
            _ => Vec::new(),
        },
        keepalive_timeout: keepalive_timeout(request, upstream, failed),
    }
}

/// How many servers the group has. A balancer of a third party may choose others than those that
/// nginx has in its list: then that list tells nothing.
fn servers(upstream: Upstream<'_>, failed: &Attempt) -> Option<u64> {
    failed.peer_state.as_ref()?;
    peers::number(upstream).filter(|servers| *servers > 0)
}

/// When nginx itself closes idle connections of the block: asked where the upstream closed one.
fn keepalive_timeout(
    request: Request<'_>,
    upstream: Upstream<'_>,
    failed: &Attempt,
) -> Option<Seconds> {
    if failed.cause != Some(Cause::KeepaliveRace) {
        return None;
    }
    let place = request.main_conf()?.keepalive_timeout?;
    upstream.keepalive_timeout(place).map(Seconds::Millis)
}

/// The others, where the peer has never answered: they tell whether that is its own matter.
fn siblings(request: Request<'_>, upstream: Upstream<'_>, last: &Note) -> Vec<Sibling> {
    let memory = request.main_conf().and_then(|main| main.memory);
    let now = time::current_msec();
    let may_be_stale = last.attempt.phase == Some(Phase::Connect)
        && last.place().is_some_and(|place| place.peer.may_be_stale(now));
    if !may_be_stale || peers::number(upstream).is_none_or(|servers| servers < 2) {
        return Vec::new();
    }
    let (Some(memory), Some(group)) = (memory, upstream.group_name()) else { return Vec::new() };
    let peers = peers::first(upstream, SIBLINGS.saturating_add(1));
    let others = peers.iter().filter(|peer| Some(&peer.name) != last.attempt.peer.as_ref());
    others
        .take(SIBLINGS)
        .filter_map(|peer| {
            let place = memory.find(group.as_bytes(), peer.name.as_bytes())?;
            let Tally { ok, last_ok, .. } = place.peer.tally(now);
            Some(Sibling { ok, last_ok, state: Some(peer.state()) })
        })
        .collect()
}

/// Why nginx did not try again: the conditions of `ngx_http_upstream_next`, any one of which is
/// enough. First whether there was anything left to try, as nothing else matters where that is not.
fn not_retried(upstream: Upstream<'_>, failed: &Attempt) -> Option<NotRetried> {
    let cause = failed.cause?;
    match failed.phase {
        Some(Phase::Body) => return Some(NotRetried::ResponseStarted),
        Some(Phase::Connect | Phase::Tls | Phase::Send | Phase::Header) => {}
        // What it answered itself failed in no phase.
        None if cause == Cause::UpstreamResponse => {}
        Some(Phase::Resolve | Phase::Select) | None => return None,
    }
    let kind = kind(cause, upstream.state()?.status())?;
    let retry = upstream.retry()?;
    if retry.left == 0 {
        // nginx begins with the number of servers that are not marked down, or with the limit. The
        // limit is the reason only if it is below that.
        let limited = match retry.tries {
            0 => false,
            tries => peers::has_more_up(upstream, tries)?,
        };
        Some(if limited { NotRetried::Tries(retry.tries) } else { NotRetried::NoServerLeft })
    } else if !retry.kinds.has(kind) {
        Some(NotRetried::NotConfigured)
    } else if retry.may_have_changed_something && !retry.kinds.has(retry::NON_IDEMPOTENT) {
        Some(NotRetried::NonIdempotent)
    } else if retry.request_is_gone {
        Some(NotRetried::RequestNotBuffered)
    } else if retry.timeout > 0 && retry.elapsed >= retry.timeout {
        Some(NotRetried::Timeout(Seconds::Millis(retry.timeout)))
    } else {
        None
    }
}

/// What nginx took a failure for. Of a timeout the status tells: the kernel's own comes as an
/// error, and the causes do not tell the two apart.
fn kind(cause: Cause, status: u16) -> Option<retry::Kind> {
    match cause {
        Cause::BindFailed
        | Cause::LocalFdsExhausted
        | Cause::WorkerConnectionsExhausted
        | Cause::InternalError
        | Cause::Unknown => None,
        Cause::UpstreamResponse => retry::answered(status),
        Cause::HeaderTooBig
        | Cause::InvalidHeader
        | Cause::InvalidResponse
        | Cause::ProtocolMismatch
        | Cause::StreamReset => Some(retry::INVALID_HEADER),
        _ if status == 504 => Some(retry::TIMEOUT),
        _ => Some(retry::ERROR),
    }
}

/// What the kernel says of who listens where the failed attempt went to: asked where it can
/// explain the failure, and at most once a second for a peer.
fn host(upstream: Upstream<'_>, failed: &Attempt) -> Option<Host> {
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
                true => cached(peer, || Some(unix(path)))?,
                false => Host::Unix { listener: Listening::Unknown, process: None },
            };
            Some(match listener {
                Host::Unix { listener, .. } => Host::Unix { listener, process: process(upstream) },
                tcp @ Host::Tcp { .. } => tcp,
            })
        }
        None => match failed.cause? {
            Cause::ConnectionRefused | Cause::ConnectionTimedOut | Cause::ResponseTimedOut => {
                cached(peer, || tcp(peer.parse().ok()?))
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
    let listeners = host::listeners(address.port())?;
    let listeners = listeners.into_iter().map(|listener| Listener {
        address: listener.address,
        v6_only: listener.v6_only,
        one_interface: listener.interface.is_some(),
        queue: listener.queue,
        limit: listener.limit,
    });
    Some(Host::Tcp { own, listeners: listeners.collect() })
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

/// For how long an answer is taken for the state of things, milliseconds.
const FRESH: u64 = 1_000;

/// Peers whose answers are kept.
const KEPT: usize = 64;

struct Answer {
    peer: String,
    /// The end of its name, which tells most names apart sooner.
    end: Option<[u8; 8]>,
    at: u64,
    host: Option<Host>,
}

/// An answer of the last second, or a new one.
fn cached(peer: &str, ask: impl FnOnce() -> Option<Host>) -> Option<Host> {
    static ANSWERS: Mutex<Vec<Answer>> = Mutex::new(Vec::new());
    let now = time::current_msec();
    let is_fresh = |answer: &Answer| now.saturating_sub(answer.at) < FRESH;
    // One thread uses it; a panic in here, which poisons it, costs the answers and nothing else.
    let mut answers = ANSWERS.lock().ok()?;
    let end = peer.as_bytes().last_chunk().copied();
    let known = answers.iter_mut().find(|answer| answer.end == end && answer.peer == peer);
    if let Some(known) = known {
        if !is_fresh(known) {
            (known.host, known.at) = (ask(), now);
        }
        return known.host.clone();
    }
    if answers.len() >= KEPT {
        answers.retain(is_fresh);
        if answers.len() >= KEPT {
            return None;
        }
    }
    let host = ask();
    answers.push(Answer { peer: peer.to_owned(), end, at: now, host: host.clone() });
    host
}
