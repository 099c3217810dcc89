//! What to do where the upstream closed or reset the connection.

use super::super::Facts;
use super::super::phrase::{Ours, Phrase, Say, parts, say};
use crate::cause::Phase;
use crate::protocol;
use crate::zone::{SHORTEST, idle, worked_on};

/// The upstream closed a reused connection some time after the request was sent, and had not read
/// it: a busy event loop comes to its timers late.
const NOT_READ: &str = "The upstream had not read the request: it was too busy until its keep-alive timeout closed the \
     connection (set keepalive_timeout in the upstream block below that), or it was stopped.";

/// Too soon for a keep-alive timeout.
const NOT_IDLE: &str = "This soon it is hardly an idle timeout: look in the upstream for a limit of requests per connection \
     (keepalive_requests, max_requests) and for a restart or reload at that moment.";

/// It had been at the request for a while.
const KILLED: &str = "Look for a crash, a worker that was killed (out of memory: dmesg or journalctl -k; SIGKILL by its \
     supervisor; a segfault) or a timeout of its own in the upstream's log at that moment.";

/// As above, with a network between.
const KILLED_OR_BETWEEN: &str = "Look for a crash or a worker that was killed (out of memory: dmesg, journalctl -k; by its \
     supervisor; a segfault) in the upstream's log at that moment, or a device between that resets.";

/// At once.
const CRASHED: &str = "Look for a crash, a worker that was killed or a timeout of its own in the upstream's log at that moment";

/// While the request was being sent.
const REFUSED_BODY: &str = "See the upstream's log: one that refuses a large body (its limit of the request's size) resets the \
     connection like this, and so does the end of a worker that crashed or was killed.";

/// A reused connection, before a byte came.
pub(super) fn reused<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    if worked_on(facts.failed).is_none() {
        // Nobody sets a timeout that short.
        let soon = idle(facts.failed).is_some_and(|idle| idle < SHORTEST);
        return soon.then(|| say![facts.arena, Ours(NOT_IDLE)]);
    }
    // It resets what it has not read (RFC 1122, section 4.2.2.13). PHP never reads what ends the
    // request.
    if facts.failed.errno.is_some() && facts.module != Some("fastcgi") {
        return Some(say![facts.arena, Ours(NOT_READ)]);
    }
    Some(say![facts.arena, Ours(KILLED)])
}

/// A fresh one, before a byte came.
pub(super) fn closed<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    if worked_on(facts.failed).is_some() {
        return Some(say![facts.arena, Ours(KILLED)]);
    }
    Some(match wants_tls(facts)? {
        Wants::Tls(scheme) => say![facts.arena, Ours(CRASHED), or_tls(scheme)],
        Wants::No => say![facts.arena, Ours(CRASHED), "."],
    })
}

/// A fresh one, with a reset.
pub(super) fn reset<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let failed = facts.failed;
    let sending = match failed.phase {
        Some(Phase::Send) => true,
        Some(Phase::Header) => false,
        _ => return None,
    };
    let tls = wants_tls(facts).filter(|_| failed.bytes_received == Some(0));
    match (tls, sending) {
        (Some(Wants::Tls(scheme)), true) => Some(say![
            facts.arena,
            "See the upstream's log: one that refuses a large body, or crashes, resets the connection like this",
            or_tls(scheme)
        ]),
        (_, true) => Some(say![facts.arena, Ours(REFUSED_BODY)]),
        (_, false) if facts.is_unix() => Some(say![facts.arena, Ours(KILLED)]),
        (_, false) if worked_on(failed).is_some() => {
            Some(say![facts.arena, Ours(KILLED_OR_BETWEEN)])
        }
        (Some(Wants::Tls(scheme)), false) => Some(say![
            facts.arena,
            "Look for a crash or a killed worker in the upstream's log, or for a device between that resets connections",
            or_tls(scheme)
        ]),
        _ => None,
    }
}

/// What ends an advice where the port may want TLS.
fn or_tls(scheme: &'static str) -> impl Say + Copy {
    parts!["; if the port is for TLS, use ", Ours(scheme), " in proxy_pass."]
}

/// Whether the port may want TLS.
enum Wants {
    /// It may: with this in the pass directive.
    Tls(&'static str),
    /// It does not.
    No,
}

/// A port that wants TLS ends a connection at once on which something else comes. One that has
/// answered well does not want it. `None` where that is not known.
fn wants_tls(facts: &Facts<'_, '_>) -> Option<Wants> {
    let Some((_, tls)) = protocol::module(facts.module).schemes else { return Some(Wants::No) };
    if facts.failed.server_name.is_some() || facts.is_unix() {
        return Some(Wants::No);
    }
    Some(if facts.failed.history?.ok > 0 { Wants::No } else { Wants::Tls(tls) })
}
