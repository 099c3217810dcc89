//! What is known beyond the attempts when an upstream request ends: the group, who listens on this
//! host, and why nginx went no further.

use diagnosis::findings::{Context, NotRetried, Sibling};
use diagnosis::{Attempt, Cause, Phase, Seconds, Tally};

use super::listening;
use crate::ffi::request::Request;
use crate::ffi::retry;
use crate::ffi::upstream::Upstream;
use crate::ffi::{peers, time};
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
        host: listening::host(upstream, failed),
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
        && peers::number(upstream).is_some_and(|servers| servers > 1)
        && last.place().is_some_and(|place| place.peer.may_be_stale(now));
    if !may_be_stale {
        return Vec::new();
    }
    let (Some(memory), Some(group)) = (memory, upstream.group_name()) else { return Vec::new() };
    let peers = peers::first(upstream, SIBLINGS.saturating_add(1));
    let others =
        peers.iter().filter(|peer| Some(peer.name.as_str()) != last.attempt.peer.as_deref());
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
