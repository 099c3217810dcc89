//! What happened.

use nix::errno::Errno;

use super::buffer::cache_part;
use super::numbers::hundredths;
use super::{Facts, for_module, plain, quoted};
use crate::cause::{Cause, Phase};
use crate::outcome::Outcome;
use crate::peer::State;
use crate::protocol::Mismatch;
use crate::record::{Attempt, Header, PeerReport};
use crate::seconds::Seconds;
use crate::tls;
use crate::zone::{idle, since_sent, worked_on};

/// What `$status` shows where the response had no status line (`NGX_HTTP_VERSION_9`).
const NO_STATUS_LINE: u16 = 9;

/// Room for what most sentences get behind what happened: a clause.
const USUAL: usize = 64;

/// One sentence with the numbers in it, and what the client got if that was no error.
pub(crate) fn summary(facts: &Facts<'_>) -> String {
    let failed = facts.failed;
    let mut sentence = particular(facts).unwrap_or_else(|| meaning(facts));
    sentence.reserve(USUAL);
    // A timeout says so in words: its errno is nginx's own (`NGX_ETIMEDOUT`).
    if let Some(name) = failed.errname()
        && failed.errno != Some(Errno::ETIMEDOUT as i32)
    {
        [" (", name, ")"].iter().for_each(|part| sentence.push_str(part));
    }
    if let Some(clause) = facts.findings.iter().find_map(|finding| finding.clause.as_deref()) {
        sentence.push_str("; ");
        sentence.push_str(clause);
    }
    sentence.push('.');
    if facts.status == NO_STATUS_LINE {
        sentence.push_str(" The client got it as a response of HTTP/0.9.");
    }
    if facts.outcome == Outcome::Masked {
        match facts.status {
            0 => {}
            200..=299 => sentence.push_str(" The client was served all the same."),
            status => sentence.push_str(&format!(" The client got {status}.")),
        }
    }
    capitalised(plain(sentence))
}

/// What the cause means, from the table.
fn meaning(facts: &Facts<'_>) -> String {
    let meaning = for_module(facts.cause.row().meaning, facts.module);
    let parts = meaning.split_once('{');
    match parts.and_then(|(before, after)| Some((before, after.strip_prefix("peer}")?))) {
        Some((before, after)) => [before, facts.peer(), after].concat(),
        None => meaning.into_owned(),
    }
}

/// What can be said with what was seen.
fn particular(facts: &Facts<'_>) -> Option<String> {
    let (failed, peer) = (facts.failed, facts.peer());
    let message = failed.message.as_deref();
    Some(match facts.cause {
        Cause::HeaderTooBig => header_too_big(peer, failed.header.as_ref()?),
        Cause::KeepaliveRace => keepalive_race(peer, failed),
        Cause::ClosedBeforeResponse => {
            let after = after_request(since_sent(failed)?);
            format!("{peer} closed the connection without sending a byte, {after}")
        }
        Cause::ConnectionTimedOut => {
            format!(
                "{peer} did not answer the connection attempt within {} s",
                failed.connect_time?
            )
        }
        Cause::SendTimedOut | Cause::ResponseTimedOut | Cause::BodyTimedOut => timed_out(facts)?,
        Cause::ClosedInHeader => {
            let size = failed.header.as_ref()?.size;
            let after = since_sent(failed).map(|time| format!(", {}", after_request(time)));
            let after = after.unwrap_or_default();
            format!("{peer} closed the connection after {size} bytes of the response header{after}")
        }
        Cause::ConnectionReset => reset(peer, failed)?,
        Cause::ResponseTruncated => {
            format!("{}, after {} bytes of the response", meaning(facts), failed.bytes_received?)
        }
        Cause::InvalidHeader => format!("{peer} sent {}", quoted::header(message?)?),
        Cause::InvalidUpstreamUrl => format!("{}: {}", meaning(facts), quoted::url(message?)?),
        Cause::TlsNameMismatch => {
            let name = quoted::certificate_name(message?)?;
            format!("{peer} presented a certificate that is not for {name}")
        }
        Cause::TlsAlertReceived => {
            let alert = failed.tls.as_ref()?.alert?;
            let name = tls::alert_name(alert).map(|name| format!("{name} ")).unwrap_or_default();
            format!("{peer} ended the TLS handshake with the alert {name}({alert})")
        }
        Cause::TlsCertificateError => {
            format!("{}: {}", meaning(facts), failed.tls.as_ref()?.verify.as_ref()?)
        }
        Cause::ProtocolMismatch => match failed.mismatch {
            Some(Mismatch { found, expected }) => {
                format!("{peer} speaks {}, not {expected}", found.name)
            }
            None => format!(
                "{peer} answered the TLS handshake with what is no TLS: it speaks another protocol"
            ),
        },
        Cause::UpstreamResponse => format!("{peer} answered {} itself", failed.status?),
        Cause::CachedError => {
            format!("the {} is that of an earlier request: nginx's cache kept it", failed.status?)
        }
        Cause::LocalReturn => format!(
            "the {} was made by nginx's configuration or another module, not by a failing upstream",
            failed.status?
        ),
        Cause::DnsNoResolver | Cause::DnsNotFound | Cause::DnsTimedOut | Cause::DnsFailure => {
            format!("{} could not be resolved: {}", facts.upstream?, meaning(facts))
        }
        Cause::NoLiveUpstreams | Cause::MaxConnsReached => {
            let why = none_left(facts.peers).unwrap_or_else(|| meaning(facts));
            format!("upstream \"{}\": {why}", facts.upstream?)
        }
        Cause::Unknown => format!("{}: {}", meaning(facts), message?),
        _ => return None,
    })
}

fn header_too_big(peer: &str, header: &Header) -> String {
    let Header { size, exact, limit, directive, .. } = header;
    let bound = if *exact { "" } else { "at least " };
    let buffer = directive.unwrap_or("nginx's buffer");
    let cache = cache_part(header);
    format!("{peer} sent a response header of {bound}{size} bytes; {buffer} is {limit}{cache}")
}

fn keepalive_race(peer: &str, failed: &Attempt) -> String {
    let did = if failed.errno.is_some() { "reset" } else { "closed" };
    if let Some(time) = worked_on(failed) {
        let after = after_request(time);
        return format!("{peer} {did} a reused connection {after}, before sending a byte");
    }
    match idle(failed) {
        Some(idle) => format!(
            "{peer} {did} a reused connection {} s after its last response, before sending a byte",
            hundredths(idle)
        ),
        None => format!("{peer} {did} a reused connection before sending a byte of the response"),
    }
}

/// Before the response was complete in its header.
fn reset(peer: &str, failed: &Attempt) -> Option<String> {
    let did = format!("{peer} reset the connection");
    if failed.phase == Some(Phase::Send) {
        return Some(format!(
            "{did} when {} bytes of the request had been sent",
            failed.bytes_sent?
        ));
    }
    let got = match failed.bytes_received.filter(|_| failed.phase == Some(Phase::Header))? {
        0 => "before sending a byte".to_owned(),
        _ => format!("after {} bytes of the response header", failed.header.as_ref()?.size),
    };
    Some(match since_sent(failed) {
        Some(time) => format!("{did} {}, {got}", after_request(time)),
        None => format!("{did} {got}"),
    })
}

fn after_request(time: u64) -> String {
    format!("{} s after the request was sent", hundredths(time))
}

/// nginx's timers: `proxy_send_timeout` and `proxy_read_timeout`.
fn timed_out(facts: &Facts<'_>) -> Option<String> {
    let (failed, peer) = (facts.failed, facts.peer());
    let sentence = match facts.cause {
        Cause::SendTimedOut => format!(
            "{peer} stopped taking the request: after {} bytes it took no more within proxy_send_timeout, {} s in all",
            failed.bytes_sent?, failed.elapsed?
        ),
        // That the request arrived is not known from its having been sent.
        Cause::ResponseTimedOut => {
            let late = failed.elapsed.map(|time| format!("within {time} s"));
            let late = late.unwrap_or_else(|| "in time".to_owned());
            // A kernel acknowledges, whatever the process does.
            let arrived = match failed.arrived {
                Some(true) => ", though its host has received the whole request",
                Some(false) => ", and its host has not acknowledged all of the request",
                None => "",
            };
            format!("{peer} sent no response header {late}{arrived}")
        }
        _ => {
            let silent = failed.tcp.as_ref().and_then(|tcp| tcp.idle).map(Seconds::millis);
            let silent = match silent {
                Some(time) => format!("for {} s", hundredths(time)),
                None => "within proxy_read_timeout".to_owned(),
            };
            if facts.is_tunnel() {
                format!("{peer} sent nothing through the tunnel {silent}")
            } else {
                format!(
                    "{peer} stopped sending in the middle of the body: after {} bytes of the response nothing came {silent}",
                    failed.bytes_received?
                )
            }
        }
    };
    Some(for_module(sentence, facts.module).into_owned())
}

/// What the peers of a group are waiting for, in which none could be chosen.
fn none_left(peers: &[PeerReport]) -> Option<String> {
    let count = |state| peers.iter().filter(|peer| peer.state == state).count();
    let [down, out, busy, tried] =
        [State::Down, State::Unavailable, State::Busy, State::Up].map(count);
    let is = |n: usize| if n == 1 { "is" } else { "are" };
    let mut parts = Vec::new();
    if busy > 0 {
        parts.push(format!("{busy} {} at max_conns", is(busy)));
    }
    if down > 0 {
        parts.push(format!("{down} {} marked down", is(down)));
    }
    if out > 0 {
        let was = if out == 1 { "was" } else { "were" };
        parts.push(format!("{out} {was} taken out after failures{}", causes(peers)));
    }
    if tried > 0 {
        parts.push(format!("{tried} had been tried"));
    }
    let all = match peers.len() {
        0 => return None,
        1 => "its only server was not left to try".to_owned(),
        n => format!("none of its {n} servers was left to try"),
    };
    Some(format!("{all}: {}", parts.join(", ")))
}

/// The causes that took peers out, the commonest first.
fn causes(peers: &[PeerReport]) -> String {
    let mut causes: Vec<(usize, Cause)> = Vec::new();
    let out = peers.iter().filter(|peer| peer.state == State::Unavailable);
    for cause in out.filter_map(|peer| peer.last_cause) {
        match causes.iter_mut().find(|(_, known)| *known == cause) {
            Some((count, _)) => *count = count.saturating_add(1),
            None => causes.push((1, cause)),
        }
    }
    if causes.is_empty() {
        return String::new();
    }
    causes.sort_by_key(|(count, cause)| (std::cmp::Reverse(*count), *cause));
    let names: Vec<&str> = causes.iter().map(|(_, cause)| cause.slug()).collect();
    format!(" ({})", names.join(", "))
}

/// Capitalises a sentence that begins with a word of ours; a peer's name and "nginx" stay.
fn capitalised(mut sentence: String) -> String {
    let ours = ["the ", "no ", "upstream "].iter().any(|word| sentence.starts_with(word));
    if let Some(first) = sentence.get_mut(..1)
        && ours
    {
        first.make_ascii_uppercase();
    }
    sentence
}
