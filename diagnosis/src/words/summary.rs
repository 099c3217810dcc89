//! What happened.

use nix::errno::Errno;

use super::buffer::cache_part;
use super::numbers::Number::{Count, Hundredths};
use super::phrase::{Ours, Part, Phrase, Quoted, Say, Word, parts, say};
use super::{Facts, quoted};
use crate::cause::{Cause, Phase};
use crate::http2::{self, Sign};
use crate::outcome::{Answer, Outcome};
use crate::peer::State;
use crate::record::Header;
use crate::seconds::Seconds;
use crate::tls;
use crate::zone::{idle, since_sent, worked_on};

/// What `$status` shows where the response had no status line (`NGX_HTTP_VERSION_9`).
const NO_STATUS_LINE: u16 = 9;

/// One sentence with the numbers in it, and what the client got if that was no error.
pub(crate) fn summary<'a>(facts: &Facts<'_, 'a>) -> Phrase<'a> {
    let failed = facts.failed;
    let sentence = particular(facts).unwrap_or_else(|| meaning(facts));
    // A timeout says so in words: its errno is nginx's own (`NGX_ETIMEDOUT`).
    let errno = failed.errname().filter(|_| failed.errno != Some(Errno::ETIMEDOUT as i32));
    let errno = errno.map(|name| parts![" (", Word(name), ")"]);
    let clause = facts.findings.iter().find_map(|finding| finding.clause);
    let clause = clause.map(|clause| parts!["; ", clause]);
    let said = say![facts.arena, sentence, errno, clause, ".", served(facts)];
    said.capitalised(facts.arena)
}

/// What the client got, if that was not the error that the sentence is of.
fn served<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    match (facts.outcome, facts.status) {
        // What failed is what the client got of it, if it is that which had no status line. That may
        // be nothing.
        (Outcome::Truncated, NO_STATUS_LINE) => {
            Some(say![facts.arena, " nginx took it for an HTTP/0.9 response."])
        }
        (Outcome::Masked, NO_STATUS_LINE) => {
            Some(say![facts.arena, " The client got an HTTP/0.9 response."])
        }
        (_, 0) => None,
        (Outcome::Masked, 200..=299) => {
            Some(say![facts.arena, " The client was served all the same."])
        }
        (Outcome::Masked, status) => {
            Some(say![facts.arena, " The client got ", u64::from(status), "."])
        }
        (Outcome::Failed, status) if facts.cause == Cause::UpstreamResponse => {
            Some(say![facts.arena, " The client got ", u64::from(status), "."])
        }
        (Outcome::Passed, status) if facts.failed.answer == Some(Answer::Replaced) => {
            if facts.failed.status == Some(status) {
                Some(say![facts.arena, " The client got an error page in its place."])
            } else {
                Some(say![facts.arena, " The client got ", u64::from(status), "."])
            }
        }
        _ => None,
    }
}

/// What the cause means, from the table.
fn meaning<'a>(facts: &Facts<'_, 'a>) -> Phrase<'a> {
    let meaning = facts.cause.row().meaning;
    let said = if let Some(rest) = meaning.strip_prefix("{peer}") {
        say![facts.arena, facts.peer(), Word(rest)]
    } else if let Some((before, after)) = meaning.split_once("{peer}") {
        say![facts.arena, Word(before), facts.peer(), Word(after)]
    } else {
        say![facts.arena, Word(meaning)]
    };
    said.for_module(facts.arena, facts.module)
}

/// What can be said with what was seen.
fn particular<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let (failed, peer) = (facts.failed, facts.peer());
    let message = failed.message.as_deref();
    Some(match facts.cause {
        Cause::HeaderTooBig => header_too_big(facts, failed.header.as_ref()?),
        Cause::KeepaliveRace => keepalive_race(facts),
        Cause::ClosedBeforeResponse => {
            let after = after_request(since_sent(failed)?);
            say![facts.arena, peer, " closed the connection without sending a byte, ", after]
        }
        Cause::ConnectionTimedOut => {
            let time = failed.connect_time?;
            say![facts.arena, peer, " did not answer the connection attempt within ", time, " s"]
        }
        Cause::SendTimedOut | Cause::ResponseTimedOut | Cause::BodyTimedOut => timed_out(facts)?,
        Cause::ClosedInHeader => {
            let size = bytes(failed.header.as_ref()?.size);
            let after = since_sent(failed).map(|time| say![facts.arena, ", ", after_request(time)]);
            say![
                facts.arena,
                peer,
                " closed the connection after ",
                size,
                " of the response header",
                after
            ]
        }
        Cause::ConnectionReset => reset(facts)?,
        Cause::ResponseTruncated => {
            let received = bytes(failed.bytes_received?);
            say![facts.arena, meaning(facts), ", after ", received, " of the response"]
        }
        Cause::InvalidHeader => {
            say![facts.arena, peer, " sent ", quoted::header(facts.arena, message?)?]
        }
        Cause::InvalidResponse if facts.module == Some("memcached") => {
            say![facts.arena, peer, quoted::answer(facts.arena, message?)?]
        }
        Cause::InvalidUpstreamUrl => {
            say![facts.arena, meaning(facts), ": ", quoted::url(facts.arena, message?)?]
        }
        Cause::TlsNameMismatch => {
            let name = quoted::certificate_name(facts.arena, message?)?;
            say![facts.arena, peer, " presented a certificate that is not for ", name]
        }
        Cause::TlsAlertReceived => {
            let alert = failed.tls.as_ref()?.alert?;
            let name = tls::alert_name(alert).map(|name| say![facts.arena, Ours(name), " "]);
            let number = u64::from(alert);
            say![
                facts.arena,
                peer,
                " ended the TLS handshake with the alert ",
                name,
                "(",
                number,
                ")"
            ]
        }
        Cause::TlsCertificateError => {
            let verify = failed.tls.as_ref()?.verify.as_deref()?;
            say![facts.arena, meaning(facts), ": ", verify]
        }
        Cause::ProtocolMismatch => match failed.mismatch {
            Some(mismatch) => {
                let (found, expected) = mismatch.names();
                say![facts.arena, peer, " speaks ", Ours(found), ", not ", Ours(expected)]
            }
            None => say![
                facts.arena,
                peer,
                " answered the TLS handshake with something other than TLS: it speaks another protocol"
            ],
        },
        Cause::UpstreamResponse => {
            say![facts.arena, peer, " answered ", u64::from(failed.status?), " itself"]
        }
        Cause::CachedError => say![
            facts.arena,
            "the ",
            u64::from(failed.status?),
            " is that of an earlier request: nginx's cache kept it"
        ],
        Cause::LocalReturn => say![
            facts.arena,
            "the ",
            u64::from(failed.status?),
            " was made by nginx's configuration or another module, not by a failing upstream"
        ],
        Cause::DnsNoResolver | Cause::DnsNotFound | Cause::DnsTimedOut | Cause::DnsFailure => {
            say![facts.arena, facts.upstream?, " could not be resolved: ", meaning(facts)]
        }
        Cause::NoLiveUpstreams | Cause::MaxConnsReached => {
            let why = none_left(facts).unwrap_or_else(|| meaning(facts));
            say![facts.arena, "upstream ", Quoted(facts.upstream?), ": ", why]
        }
        Cause::StreamReset => stream_reset(facts)?,
        Cause::Unknown => say![facts.arena, meaning(facts), ": ", message?],
        _ => return None,
    })
}

fn header_too_big<'a>(facts: &Facts<'_, 'a>, header: &Header) -> Phrase<'a> {
    let peer = facts.peer();
    let Header { size, exact, limit, directive, .. } = *header;
    let bound = if exact { "" } else { "at least " };
    say![
        facts.arena,
        peer,
        " sent a response header of ",
        Ours(bound),
        size,
        " bytes; ",
        Ours(directive.unwrap_or("nginx's buffer")),
        " is ",
        limit,
        cache_part(facts.arena, header),
    ]
}

fn keepalive_race<'a>(facts: &Facts<'_, 'a>) -> Phrase<'a> {
    let (failed, peer) = (facts.failed, facts.peer());
    let did = Ours(if failed.errno.is_some() { "reset" } else { "closed" });
    if let Some(time) = worked_on(failed) {
        let after = after_request(time);
        return say![
            facts.arena,
            peer,
            " ",
            did,
            " a reused connection ",
            after,
            ", before sending a byte"
        ];
    }
    match idle(failed) {
        Some(idle) => say![
            facts.arena,
            peer,
            " ",
            did,
            " a reused connection ",
            Hundredths(idle),
            " s after its last response, before sending a byte",
        ],
        None => say![
            facts.arena,
            peer,
            " ",
            did,
            " a reused connection before sending a byte of the response",
        ],
    }
}

/// Before the response was complete in its header.
fn reset<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let (failed, peer) = (facts.failed, facts.peer());
    let did = say![facts.arena, peer, " reset the connection"];
    if failed.phase == Some(Phase::Send) {
        let sent = bytes(failed.bytes_sent?);
        return Some(say![facts.arena, did, " when ", sent, " of the request had been sent"]);
    }
    let got = match failed.bytes_received.filter(|_| failed.phase == Some(Phase::Header))? {
        0 => say![facts.arena, "before sending a byte"],
        _ => say![
            facts.arena,
            "after ",
            bytes(failed.header.as_ref()?.size),
            " of the response header"
        ],
    };
    Some(match since_sent(failed) {
        Some(time) => say![facts.arena, did, " ", after_request(time), ", ", got],
        None => say![facts.arena, did, " ", got],
    })
}

/// With the error code of HTTP/2, and what it came with.
fn stream_reset<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let (sign, code) = http2::error(facts.failed.message.as_deref()?)?;
    let ended = Ours(match sign {
        Sign::Stream => " reset the HTTP/2 stream (RST_STREAM)",
        Sign::Connection => " ended the HTTP/2 connection (GOAWAY)",
    });
    let what = match http2::error_name(code) {
        Some(name) => say![facts.arena, Word(name), " (", code, ")"],
        None => say![facts.arena, code],
    };
    Some(say![facts.arena, facts.peer(), ended, " with the error code ", what])
}

fn bytes(n: u64) -> impl Say + Copy {
    parts![n, Ours(if n == 1 { " byte" } else { " bytes" })]
}

fn after_request(time: u64) -> impl Say + Copy {
    parts![Hundredths(time), " s after the request was sent"]
}

/// nginx's timers: `proxy_send_timeout` and `proxy_read_timeout`.
fn timed_out<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let (failed, peer) = (facts.failed, facts.peer());
    let sentence = match facts.cause {
        Cause::SendTimedOut => say![
            facts.arena,
            peer,
            " stopped taking the request: after ",
            bytes(failed.bytes_sent?),
            " it took no more within proxy_send_timeout, ",
            failed.elapsed?,
            " s in all",
        ],
        // That the request arrived is not known from its having been sent.
        Cause::ResponseTimedOut => {
            let late = failed.elapsed.map(|time| say![facts.arena, "within ", time, " s"]);
            let late = late.unwrap_or_else(|| say![facts.arena, "in time"]);
            // A kernel acknowledges, whatever the process does.
            let arrived = Ours(match failed.arrived {
                Some(true) => ", though its host has received the whole request",
                Some(false) => ", and its host has not acknowledged all of the request",
                None => "",
            });
            let came = failed.bytes_received.filter(|came| *came > 0);
            let complete = Ours(if came.is_some() { " complete" } else { "" });
            // With these, what came can be other frames than those of a header.
            let framed = matches!(facts.module, Some("grpc" | "proxy_v2" | "fastcgi"));
            let only = came.filter(|_| !framed).map(|part| parts![", only ", bytes(part)]);
            say![facts.arena, peer, " sent no", complete, " response header ", late, only, arrived]
        }
        _ => {
            let silent = failed.tcp.as_ref().and_then(|tcp| tcp.idle).map(Seconds::millis);
            let silent = match silent {
                Some(time) => say![facts.arena, "for ", Hundredths(time), " s"],
                None => say![facts.arena, "within proxy_read_timeout"],
            };
            if facts.is_tunnel() {
                say![facts.arena, peer, " sent nothing through the tunnel ", silent]
            } else {
                say![
                    facts.arena,
                    peer,
                    " stopped sending in the middle of the body: after ",
                    bytes(failed.bytes_received?),
                    " of the response nothing came ",
                    silent,
                ]
            }
        }
    };
    Some(sentence.for_module(facts.arena, facts.module))
}

/// What the peers of a group are waiting for, in which none could be chosen.
fn none_left<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let peers = facts.peers;
    let count = |state| peers.iter().filter(|peer| peer.state == state).count() as u64;
    let [down, out, busy, tried] =
        [State::Down, State::Unavailable, State::Busy, State::Up].map(count);
    let is = |n: u64| Ours(if n == 1 { " is " } else { " are " });
    let all = match peers.len() {
        0 => return None,
        1 => say![facts.arena, "its only server could not be chosen"],
        2 => say![facts.arena, "neither of its 2 servers was left to try"],
        n => say![facts.arena, "none of its ", n as u64, " servers was left to try"],
    };
    // There is a number where they differ.
    let who = |n: u64| match peers.len() {
        1 => Part::Ours("it"),
        2 if n == 2 => Part::Ours("both"),
        all if n == all as u64 => Part::Ours("all"),
        _ => Part::Number(Count(n)),
    };
    let parts = [
        (busy > 0).then(|| say![facts.arena, who(busy), is(busy), "at max_conns"]),
        (down > 0).then(|| say![facts.arena, who(down), is(down), "marked down"]),
        (out > 0).then(|| {
            let was = Ours(if out == 1 { " was " } else { " were " });
            say![facts.arena, who(out), was, "taken out after failures", causes(facts)]
        }),
        (tried > 0).then(|| say![facts.arena, who(tried), " had been tried"]),
    ];
    Some(say![facts.arena, all, ": ", Phrase::all_of(facts.arena, parts.into_iter().flatten())])
}

/// The causes that took peers out, the commonest first.
fn causes<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let mut causes: Vec<(usize, Cause)> = Vec::new();
    let out = facts.peers.iter().filter(|peer| peer.state == State::Unavailable);
    for cause in out.filter_map(|peer| peer.last_cause) {
        match causes.iter_mut().find(|(_, known)| *known == cause) {
            Some((count, _)) => *count = count.saturating_add(1),
            None => causes.push((1, cause)),
        }
    }
    if causes.is_empty() {
        return None;
    }
    causes.sort_by_key(|(count, cause)| (std::cmp::Reverse(*count), *cause));
    let names = causes.iter().map(|(_, cause)| Word(cause.slug()));
    Some(say![facts.arena, " (", Phrase::list(facts.arena, names), ")"])
}
