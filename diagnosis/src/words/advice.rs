//! What to do first.

mod closes;

use super::phrase::{Address, Ours, Phrase, Quoted, Word, parts, say};
use super::quoted::{self, Refusal};
use super::{Facts, LONGEST, buffer};
use crate::cause::{Cause, Phase};
use crate::message::{self, Kind};
use crate::outcome::{Answer, Outcome};
use crate::peer::State;
use crate::protocol::{self, Mismatch};
use crate::tls;

/// That it is a socket is not known: `connect` says the same of every other file.
const REFUSED_UNIX: &str = "Nobody listens on the socket: start the upstream (ss -lx lists who listens), or, if the file is no \
     socket (ls -l), correct the path.";

const FORBIDDEN_UNIX: &str = "The worker's user needs write permission on the socket and search permission on its directories. \
     If it has both, SELinux or AppArmor forbids it (ausearch -m avc, journalctl -k).";

const FORBIDDEN: &str = "A rule on this host forbids it: look at the firewall (nft list ruleset), the routes (ip route get) and \
     SELinux (setsebool httpd_can_network_connect on).";

/// `Kind::Disk`.
const FILE: &str = "nginx could not use a file of its own, which the message names with the reason: see whether the \
     directory is there, belongs to the worker's user and has room.";

/// As the table has it, of servers that the sentence does not name.
const REFUSED_EACH: &str = "See on the host of each whether the process runs and listens on its address and port (ss -ltn).";

/// What took servers out is their answer; the error of this request is nginx's.
const ANSWERED_EACH: &str = "That is a 502, 503 or 504 of the upstream's own, which proxy_next_upstream takes for a failure: look \
     at the upstream's log.";

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
        Cause::KeepaliveRace => closes::reused(facts)?,
        Cause::ClosedBeforeResponse => closes::closed(facts)?,
        Cause::ConnectionReset => closes::reset(facts)?,
        Cause::ConnectionRefused if facts.is_unix() => say![facts.arena, Ours(REFUSED_UNIX)],
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
        Cause::PermissionDenied if facts.is_unix() => say![facts.arena, Ours(FORBIDDEN_UNIX)],
        Cause::PermissionDenied => say![facts.arena, Ours(FORBIDDEN)],
        Cause::InternalError => {
            let known = message::recognise(failed.message.as_deref()?.as_bytes(), None)?;
            (known.kind == Kind::Disk).then(|| say![facts.arena, Ours(FILE)])?
        }
        Cause::InvalidUpstreamUrl => address(facts)?,
        Cause::InvalidHeader | Cause::InvalidBody => ask(facts, facts.cause)?,
        Cause::InvalidResponse => match failed.message.as_deref().and_then(quoted::refusal) {
            Some(Refusal::Server) => say![
                facts.arena,
                "The server says why: look at its log, and at its memory (stats, stats items)."
            ],
            Some(Refusal::Client) => say![
                facts.arena,
                "The server does not take the request: log $memcached_key, which may have 250 bytes at most."
            ],
            None => ask(facts, facts.cause)?,
        },
        Cause::ProtocolMismatch => return mismatch(facts),
        Cause::TlsAlertReceived => match failed.tls.as_ref()?.alert? {
            // Names what other modules offer.
            tls::NO_APPLICATION_PROTOCOL => {
                return Some(say![facts.arena, Ours(tls::no_protocol_advice(facts.module))]);
            }
            alert => say![facts.arena, Ours(tls::alert_advice(alert, failed.server_name)?)],
        },
        Cause::TlsClosed if failed.server_name == Some(true) => {
            say![facts.arena, Ours(tls::CLOSED_WITH_NAME)]
        }
        Cause::TlsNameMismatch => say![facts.arena, Ours(tls::name_advice(failed.server_name?))],
        Cause::TlsCertificateError => {
            say![facts.arena, Ours(tls::verify_advice(failed.message.as_deref()?)?)]
        }
        Cause::BodyTimedOut if facts.is_tunnel() => say![
            facts.arena,
            "Have the client or the upstream send pings (WebSocket has them) more often than proxy_read_timeout, or raise proxy_read_timeout."
        ],
        Cause::NoLiveUpstreams if facts.all_down() => say![
            facts.arena,
            "Every server of this upstream is marked ",
            Quoted("down".into()),
            " in the configuration: take that from one of them."
        ],
        Cause::NoLiveUpstreams => return taken_out(facts),
        Cause::UpstreamResponse => {
            let then = match (facts.outcome, failed.answer) {
                (Outcome::Aborted, _) | (_, None) => "",
                (_, Some(Answer::ToSubrequest)) => {
                    "; it answered a subrequest of nginx's (auth_request, mirror, an include), not the client"
                }
                (_, Some(Answer::Replaced)) => {
                    "; the client got an error_page in its place (proxy_intercept_errors)"
                }
                (_, Some(Answer::Retried)) => {
                    "; nginx went on to another server (proxy_next_upstream)"
                }
                (_, Some(Answer::Stale)) => {
                    "; nginx had an old response in its cache (proxy_cache_use_stale)"
                }
                (_, Some(Answer::Redirected)) => "; nginx followed the X-Accel-Redirect in it",
                (_, Some(Answer::Passed)) => ": nginx passed its answer on",
            };
            let status = u64::from(failed.status?);
            say![facts.arena, "Look at the upstream's own log for the ", status, Ours(then), "."]
        }
        _ => return None,
    };
    Some(text.for_module(facts.arena, facts.module))
}

/// How the address is to look, of which a pass directive was given something else. The table has it
/// of all modules.
fn address<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let asked = protocol::module(Some(facts.module?));
    let rest = "unix:path or the name of an upstream block";
    let takes = match asked.schemes {
        None => say![facts.arena, "host:port, ", Ours(rest)],
        // It alone has a port that goes without saying.
        Some((plain, tls)) if asked.protocol == protocol::HTTP1.name => {
            say![facts.arena, Ours(plain), " or ", Ours(tls), " and host[:port], ", Ours(rest)]
        }
        Some((plain, tls)) => say![
            facts.arena,
            "host:port, ",
            Ours(rest),
            ", with ",
            Ours(plain),
            ", ",
            Ours(tls),
            " or neither before it"
        ],
    };
    Some(say![facts.arena, "Log the variables in proxy_pass: it takes ", takes, "."])
}

/// How to see for oneself what the upstream sends. The table has it of HTTP.
fn ask<'a>(facts: &Facts<'_, 'a>, cause: Cause) -> Option<Phrase<'a>> {
    let what_then = match cause {
        Cause::InvalidHeader => "mend the header it sends",
        Cause::InvalidBody => "mend the body's framing",
        Cause::InvalidResponse => "see what it sends",
        _ => return None,
    };
    let asked = protocol::module(facts.module);
    if asked.protocol == protocol::HTTP1.name {
        return None;
    }
    let with = asked.client.map(|client| parts![" (", Ours(client), ")"]);
    Some(say![facts.arena, "Ask the upstream directly", with, " and ", Ours(what_then), "."])
}

/// Another protocol than nginx speaks to this upstream.
fn mismatch<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let failed = facts.failed;
    let asked = protocol::module(facts.module);
    let Some(Mismatch { found, .. }) = failed.mismatch else {
        // OpenSSL has swallowed what came: all that is known is that TLS is not spoken.
        let (plain, _) = asked.schemes.filter(|_| failed.phase == Some(Phase::Tls))?;
        let text = say![
            facts.arena,
            "Use ",
            Ours(plain),
            " in proxy_pass if the port speaks plain ",
            Ours(asked.protocol),
            ", or give the upstream's TLS port."
        ];
        return Some(text.for_module(facts.arena, facts.module));
    };
    if found == protocol::TLS {
        let text = match asked.schemes {
            Some((_, tls)) => {
                say![
                    facts.arena,
                    "Use ",
                    Ours(tls),
                    " in proxy_pass, or the upstream's plain port."
                ]
            }
            None => say![
                facts.arena,
                "Use the upstream's plain port: nginx speaks ",
                Ours(asked.protocol),
                " without TLS only."
            ],
        };
        return Some(text.for_module(facts.arena, facts.module));
    }
    // These name the directive to change to, not that of the module in use.
    Some(match found.pass {
        Some("proxy_pass") if facts.module == Some("proxy_v2") => say![
            facts.arena,
            "Set proxy_http_version 1.1: the upstream does not speak HTTP/2 on this port."
        ],
        Some("proxy_pass") if facts.module == Some("grpc") && failed.server_name.is_some() => say![
            facts.arena,
            "Turn HTTP/2 on for that port (h2 in ALPN), or use proxy_pass https://: the upstream answered in HTTP/1, over TLS."
        ],
        // A port for TLS can answer in the clear: nginx's does, and does not say why.
        Some("proxy_pass") if facts.module == Some("grpc") => say![
            facts.arena,
            "Use proxy_pass, or grpcs:// in grpc_pass if it is a port for TLS: the upstream answered in HTTP/1."
        ],
        Some("grpc_pass") if asked.protocol == protocol::HTTP1.name => say![
            facts.arena,
            "Use grpc_pass for a gRPC service, or make the upstream speak HTTP/1.1 on this port."
        ],
        Some(pass) => {
            let (name, _) = Mismatch { found, asked }.names();
            say![facts.arena, "Use ", Ours(pass), ": the upstream speaks ", Ours(name), "."]
        }
        None => say![
            facts.arena,
            "Correct the address or port: no ",
            Ours(asked.server),
            " answers there."
        ],
    })
}

/// What took the servers out, where it was one and the same, and what to do about that.
fn taken_out<'a>(facts: &Facts<'_, 'a>) -> Option<Phrase<'a>> {
    let mut out = facts.peers.iter().filter(|peer| peer.state == State::Unavailable);
    let first = out.next()?;
    let cause = first.last_cause?;
    if out.clone().any(|peer| peer.last_cause.is_none()) {
        return None;
    }
    if out.clone().any(|peer| peer.last_cause != Some(cause)) {
        return Some(say![
            facts.arena,
            "Find what took the servers out: the failures just before this one. Servers return after their fail_timeout."
        ]);
    }
    let number = out.count().saturating_add(1);
    let all = number == facts.peers.len();
    let were = match (number, all) {
        (1, true) => say![facts.arena, "The server was"],
        (1, false) => say![facts.arena, "One server was"],
        (_, true) => say![facts.arena, "The servers were"],
        (_, false) => say![facts.arena, number as u64, " servers were"],
    };
    let unix = facts.peers.iter().all(|peer| peer.peer.starts_with("unix:"));
    let row = match cause {
        Cause::ConnectionRefused if unix => REFUSED_UNIX,
        Cause::ConnectionRefused => REFUSED_EACH,
        Cause::UpstreamResponse => ANSWERED_EACH,
        _ => cause.row().advice,
    };
    // What is around them, and what directives of another module are longer.
    let length = row.len().saturating_add(cause.slug().len()).saturating_add(40);
    if length <= LONGEST {
        let advice = ask(facts, cause).unwrap_or_else(|| say![facts.arena, Ours(row)]);
        let slug = Word(cause.slug());
        let whole = say![facts.arena, were, " taken out by ", slug, ". ", advice];
        return Some(whole.for_module(facts.arena, facts.module));
    }
    // What to do about it has no room, and stands in their records.
    Some(say![
        facts.arena,
        were,
        " taken out by ",
        Word(cause.slug()),
        ": look at the records of that just before this one. Servers return after their fail_timeout."
    ])
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
