//! What to do first.

use std::borrow::Cow;

use super::{Facts, buffer, for_module, plain};
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
pub(crate) fn advice(facts: &Facts<'_>, concluded: Option<String>) -> String {
    let advice = concluded.or_else(|| particular(facts)).map(Cow::Owned);
    plain(advice.unwrap_or_else(|| from_table(facts)))
}

/// What the table says, which knows nothing but the cause.
fn from_table<'a>(facts: &Facts<'a>) -> Cow<'a, str> {
    for_module(facts.cause.row().advice, facts.module)
}

fn particular(facts: &Facts<'_>) -> Option<String> {
    let failed = facts.failed;
    let text = match facts.cause {
        Cause::HeaderTooBig => return Some(buffer::advice(failed.header.as_ref()?)),
        Cause::KeepaliveRace => {
            worked_on(failed)?;
            // It resets what it has not read (RFC 1122, section 4.2.2.13). PHP never reads what
            // ends the request.
            if failed.errno.is_some() && facts.module != Some("fastcgi") {
                return Some(NOT_READ.to_owned());
            }
            KILLED.to_owned()
        }
        // A port that wants TLS closes at once.
        Cause::ClosedBeforeResponse => worked_on(failed).map(|_| KILLED.to_owned())?,
        Cause::ConnectionReset if matches!(failed.phase, Some(Phase::Send | Phase::Header)) => {
            match worked_on(failed) {
                _ if facts.is_unix() => KILLED.to_owned(),
                Some(_) => KILLED_OR_BETWEEN.to_owned(),
                None => return None,
            }
        }
        Cause::ConnectionRefused if facts.is_unix() => {
            "The socket file is there and nobody listens: start the upstream (ss -lx shows who does)."
                .to_owned()
        }
        Cause::ConnectionTimedOut => format!(
            "Try {} from this host: a firewall, a wrong address, a dead host or a full accept queue. Raise proxy_connect_timeout only for a slow network.",
            try_to_connect(facts)
        ),
        Cause::ResponseTimedOut if failed.arrived == Some(false) => format!(
            "The upstream's host does not acknowledge what is sent: see whether it is up and reachable ({}), and whether a device between lost the connection.",
            try_to_connect(facts)
        ),
        // Names the directive to change to, not that of the module in use.
        Cause::ProtocolMismatch if failed.mismatch.is_some() => {
            return failed.mismatch.map(|mismatch| mismatch.advice().to_owned());
        }
        Cause::ProtocolMismatch if failed.phase == Some(Phase::Tls) => tls::NO_TLS_ADVICE.to_owned(),
        Cause::TlsAlertReceived => tls::alert_advice(failed.tls.as_ref()?.alert?)?.to_owned(),
        Cause::BodyTimedOut if facts.is_tunnel() => {
            "Have the client or the upstream send pings (WebSocket has them) more often than proxy_read_timeout, or raise proxy_read_timeout."
                .to_owned()
        }
        Cause::NoLiveUpstreams if facts.all_down() => {
            "Every server of this upstream is marked \"down\" in the configuration: take that from one of them."
                .to_owned()
        }
        Cause::UpstreamResponse if facts.outcome == Outcome::Masked => format!(
            "Look at the upstream's own log for the {}; the client got another answer (an error_page, or another server's).",
            failed.status?
        ),
        Cause::UpstreamResponse if facts.outcome == Outcome::Aborted => {
            format!("Look at the upstream's own log for the {}.", failed.status?)
        }
        _ => return None,
    };
    Some(for_module(text, facts.module).into_owned())
}

/// A command that does what nginx could not do.
fn try_to_connect(facts: &Facts<'_>) -> String {
    let address =
        facts.failed.peer.as_deref().and_then(|peer| peer.parse::<std::net::SocketAddr>().ok());
    match address {
        Some(address) => format!("nc -vz {} {}", address.ip(), address.port()),
        None => "nc -vz to that address".to_owned(),
    }
}
