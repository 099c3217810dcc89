//! What to do first.

use super::phrase::{Address, Ours, Phrase, Quoted, say};
use super::{Facts, buffer};
use crate::cause::{Cause, Phase};
use crate::outcome::Outcome;
use crate::tls;
use crate::zone::worked_on;

/// The upstream closed a reused connection some time after the request was sent, and had not read
/// it: a busy event loop comes to its timers late.
const NOT_READ: &str = "The upstream had not read the request: it was too busy until its keep-alive timeout closed the \
     connection (set keepalive_timeout in the upstream block below that), or it was stopped.";

/// It had been at the request for a while.
const KILLED: &str = "Look for a crash, a worker that was killed (out of memory: dmesg or journalctl -k; SIGKILL by its \
     supervisor; a segfault) or a timeout of its own in the upstream's log at that moment.";

/// As above, with a network between.
const KILLED_OR_BETWEEN: &str = "Look for a crash or a worker that was killed (out of memory: dmesg, journalctl -k; by its \
     supervisor; a segfault) in the upstream's log at that moment, or a device between that resets.";

/// What to do first, in two lines at most: by the strongest finding that tells, else by the cause
/// and what was seen of it.
///
/// `concluded` is that of the strongest finding.
pub(crate) fn advice<'a>(facts: &Facts<'_, 'a>, concluded: Option<Phrase<'a>>) -> Phrase<'a> {
    let advice = concluded.or_else(|| particular(facts));
    // What the table says, which knows nothing but the cause.
    advice.unwrap_or_else(|| {
        say![facts.arena, Ours(facts.cause.row().advice)].for_module(facts.arena, facts.module)
    })
}

fn particular<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let failed = facts.failed;
    let text = match facts.cause {
        Cause::HeaderTooBig => return Some(buffer::advice(facts.arena, failed.header.as_ref()?)),
        Cause::KeepaliveRace => {
            worked_on(failed)?;
            // It resets what it has not read (RFC 1122, section 4.2.2.13). PHP never reads what
            // ends the request.
            if failed.errno.is_some() && facts.module != Some("fastcgi") {
                return Some(say![facts.arena, Ours(NOT_READ)]);
            }
            say![facts.arena, Ours(KILLED)]
        }
        // A port that wants TLS closes at once.
        Cause::ClosedBeforeResponse => {
            worked_on(failed)?;
            say![facts.arena, Ours(KILLED)]
        }
        Cause::ConnectionReset if matches!(failed.phase, Some(Phase::Send | Phase::Header)) => {
            let worked_on = worked_on(failed);
            if facts.is_unix() {
                say![facts.arena, Ours(KILLED)]
            } else {
                worked_on?;
                say![facts.arena, Ours(KILLED_OR_BETWEEN)]
            }
        }
        Cause::ConnectionRefused if facts.is_unix() => say![
            facts.arena,
            "The socket file is there and nobody listens: start the upstream (ss -lx shows who does)."
        ],
        Cause::ConnectionTimedOut => say![
            facts.arena,
            "Try ",
            try_to_connect(facts),
            " from this host: a firewall, a wrong address, a dead host or a full accept queue. Raise proxy_connect_timeout only for a slow network.",
        ],
        Cause::ResponseTimedOut if failed.arrived == Some(false) => say![
            facts.arena,
            "The upstream's host does not acknowledge what is sent: see whether it is up and reachable (",
            try_to_connect(facts),
            "), and whether a device between lost the connection.",
        ],
        // Names the directive to change to, not that of the module in use.
        Cause::ProtocolMismatch if failed.mismatch.is_some() => {
            return failed.mismatch.map(|mismatch| say![facts.arena, Ours(mismatch.advice())]);
        }
        Cause::ProtocolMismatch if failed.phase == Some(Phase::Tls) => {
            say![facts.arena, Ours(tls::NO_TLS_ADVICE)]
        }
        Cause::TlsAlertReceived => {
            say![facts.arena, Ours(tls::alert_advice(failed.tls.as_ref()?.alert?)?)]
        }
        Cause::BodyTimedOut if facts.is_tunnel() => say![
            facts.arena,
            "Have the client or the upstream send pings (WebSocket has them) more often than proxy_read_timeout, or raise proxy_read_timeout."
        ],
        Cause::NoLiveUpstreams if facts.all_down() => say![
            facts.arena,
            "Every server of this upstream is marked ",
            Quoted("down"),
            " in the configuration: take that from one of them."
        ],
        Cause::UpstreamResponse if facts.outcome == Outcome::Masked => say![
            facts.arena,
            "Look at the upstream's own log for the ",
            u64::from(failed.status?),
            "; the client got another answer (an error_page, or another server's)."
        ],
        Cause::UpstreamResponse if facts.outcome == Outcome::Aborted => {
            say![
                facts.arena,
                "Look at the upstream's own log for the ",
                u64::from(failed.status?),
                "."
            ]
        }
        _ => return None,
    };
    Some(text.for_module(facts.arena, facts.module))
}

/// A command that does what nginx could not do.
fn try_to_connect<'a>(facts: &Facts<'_, 'a>) -> Phrase<'a> {
    let peer = facts.failed.peer.as_deref();
    match peer.and_then(|peer| peer.parse::<std::net::SocketAddr>().ok()) {
        Some(address) => {
            say![facts.arena, "nc -vz ", Address(address.ip()), " ", u64::from(address.port()),]
        }
        None => say![facts.arena, "nc -vz to that address"],
    }
}
