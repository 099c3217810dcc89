//! What nginx's configuration has to do with it.

use bumpalo::collections::Vec as ArenaVec;

use super::ages;
use super::context::NotRetried;
use super::{Code, Confidence, Evidence, Fact, Finding, Found, Key};
use crate::cause::{Cause, Phase};
use crate::outcome::Outcome;
use crate::peer::State;
use crate::seconds::Seconds;
use crate::words::buffer;
use crate::words::numbers::Number::Span;
use crate::words::phrase::{Ours, Part, Phrase, Quoted, say};
use crate::zone::{Close, Reach, reach};

/// `buffer_too_small`.
pub(super) fn buffer_too_small<'a>(e: &Evidence<'a>) -> Found<'a> {
    let header = e.failed.header.as_ref().filter(|_| e.cause == Cause::HeaderTooBig)?;
    let directive = header.directive.unwrap_or("proxy_buffer_size");
    let set = buffer::size_to_set(header);
    let (confidence, least, enough) = if header.exact {
        (Confidence::Certain, "", " is enough.")
    } else {
        (Confidence::Likely, "at least ", " is the least that can do.")
    };
    let text = say![
        e.arena,
        "The response header of ",
        Ours(least),
        header.size,
        " bytes does not fit into ",
        Ours(directive),
        ", which is ",
        header.limit,
        buffer::cache_part(e.arena, header),
        ": ",
        set,
        Ours(enough),
    ];
    Some(
        Finding::new(e, (Code::BufferTooSmall, confidence), text)
            .count(Key::Size, header.size)
            .fact(Key::Exact, Fact::Flag(header.exact))
            .count(Key::Limit, header.limit)
            .fact(Key::Set, Fact::Text(Part::Number(set)))
            .advise(buffer::advice(e.arena, header)),
    )
}

/// `ejected_healthy`. `idle`: the close was by the upstream's keep-alive timeout, likely.
pub(super) fn ejected_healthy<'a>(e: &Evidence<'a>, idle: bool) -> Found<'a> {
    if e.cause == Cause::NoLiveUpstreams {
        return ejected_before(e);
    }
    let state = e.failed.peer_state.as_ref().filter(|_| e.cause == Cause::KeepaliveRace)?;
    let past = e.past?;
    // Only a race: what the upstream had been working on it failed to do.
    let race = !matches!(Close::of(e.failed), Some(Close::Waiting(_)));
    let out = state.state == State::Unavailable && state.max_fails == 1 && state.fails == 1;
    let crashes = ages::crashes(past, past.idle.total.max(1));
    if !race || !out || past.failures > 1 || crashes {
        return None;
    }
    let last_ok = past.last_ok?;
    let Seconds::Whole(out_for) = state.fail_timeout else { return None };
    let text = say![
        e.arena,
        "nginx took ",
        e.peer(),
        " out for ",
        out_for,
        " s because one reused connection was closed (max_fails=1), although its last good answer was ",
        Span(last_ok),
        " ago.",
    ];
    let confidence = if idle { Confidence::Likely } else { Confidence::Possible };
    Some(
        Finding::new(e, (Code::EjectedHealthy, confidence), text)
            .peer(e)
            .count(Key::MaxFails, state.max_fails)
            .fact(Key::FailTimeout, Fact::Time(state.fail_timeout))
            .time(Key::LastOk, last_ok)
            .advise(say![
                e.arena,
                "Set keepalive_timeout in ",
                e.block(),
                " below the upstream's own keep-alive timeout; until then set max_fails=3 for its servers, so that one close takes none of them out.",
            ]),
    )
}

/// Peers that are named in a text, and in the evidence.
const NAMED: usize = 4;
const LISTED: usize = 16;

/// As above, of a group in which none is left.
fn ejected_before<'a>(e: &Evidence<'a>) -> Found<'a> {
    let by_race = |peer: &&crate::record::PeerReport| {
        peer.state == State::Unavailable
            && peer.max_fails == 1
            && peer.last_cause == Some(Cause::KeepaliveRace)
    };
    let count = e.peers.iter().filter(by_race).count();
    if count == 0 {
        return None;
    }
    let ejected = e.peers.iter().filter(by_race);
    let names = ejected.map(|peer| Part::Name(peer.peer.as_str().into())).take(LISTED);
    let names: &'a [Part<'a>] = ArenaVec::from_iter_in(names, e.arena).into_bump_slice();
    let named = || names.iter().take(NAMED).copied();
    let list = match count.saturating_sub(NAMED) {
        0 => Phrase::all_of(e.arena, named()),
        more => say![e.arena, Phrase::list(e.arena, named()), " and ", more as u64, " more"],
    };
    let were = if count == 1 {
        "a reused connection was closed"
    } else {
        "a reused connection of each was closed"
    };
    let text = say![
        e.arena,
        "nginx took ",
        list,
        " out because ",
        Ours(were),
        ", which need not be a failure.",
    ];
    Some(
        Finding::new(e, (Code::EjectedHealthy, Confidence::Possible), text)
            .fact(Key::Peers, Fact::Texts(names))
            .count(Key::Ejected, count as u64)
            .advise(say![
                e.arena,
                "Set keepalive_timeout in ",
                e.block(),
                " below the upstream's own: the failures just before were closes of idle connections. Until then set max_fails=3 for its servers.",
            ]),
    )
}

/// `not_retried`.
pub(super) fn not_retried<'a>(e: &Evidence<'a>) -> Found<'a> {
    let reason = e.context.not_retried?;
    let seen = matches!(e.outcome, Outcome::Failed | Outcome::Truncated | Outcome::Passed);
    // Of a single server there is nothing to wonder about, unless nginx would have tried that
    // again: it does where a reused connection failed.
    let single = e.context.servers == Some(1);
    if !seen || (single && !reason.had_tries()) {
        return None;
    }
    let why = match reason {
        NotRetried::NotConfigured if e.context.conditions.is_empty() => {
            say![e.arena, "proxy_next_upstream is off"]
        }
        NotRetried::NotConfigured => {
            say![e.arena, "proxy_next_upstream does not name ", Ours(condition(e)?)]
        }
        NotRetried::NonIdempotent => say![
            e.arena,
            "the request (",
            method(e.method),
            ") may have been carried out, and proxy_next_upstream does not name non_idempotent",
        ],
        NotRetried::Tries(tries) => say![e.arena, "proxy_next_upstream_tries is ", tries],
        NotRetried::Timeout(time) => {
            say![e.arena, "proxy_next_upstream_timeout (", time, " s) was over"]
        }
        NotRetried::NoServerLeft => say![e.arena, "each had been tried, is down or out"],
        NotRetried::RequestNotBuffered => {
            say![e.arena, "a part of the request had been sent, and it is not buffered"]
        }
        NotRetried::ResponseStarted => say![e.arena, "the client had got a part of the response"],
    };
    let what = match e.upstream {
        _ if single => say![e.arena, "nginx did not try again on a fresh connection: "],
        Some(name) => say![e.arena, "nginx tried no other server of ", Quoted(name), ": "],
        None => say![e.arena, "nginx tried no other server: "],
    };
    let text = say![e.arena, what, why.for_module(e.arena, e.module), "."];
    let mut finding = Finding::new(e, (Code::NotRetried, Confidence::Certain), text)
        .fact(Key::Reason, Fact::Text(Part::Ours(reason.slug())));
    if let Some(servers) = e.context.servers {
        finding = finding.count(Key::Servers, servers);
    }
    Some(match reason {
        NotRetried::Tries(tries) => finding.count(Key::Tries, tries),
        NotRetried::Timeout(time) => finding.fact(Key::Timeout, Fact::Time(time)),
        _ => finding,
    })
}

/// The condition of `proxy_next_upstream` that a failure is one of (`ngx_http_upstream_next` and
/// what calls it). `None` if it names that one: then it was not the reason.
fn condition(e: &Evidence<'_>) -> Option<&'static str> {
    let name = match (e.cause, e.failed.status) {
        (Cause::UpstreamResponse, Some(502)) => "http_502",
        (Cause::UpstreamResponse, Some(503)) => "http_503",
        (Cause::UpstreamResponse, Some(504)) => "http_504",
        (Cause::UpstreamResponse, _) => return None,
        (
            Cause::HeaderTooBig
            | Cause::InvalidHeader
            | Cause::InvalidResponse
            | Cause::ProtocolMismatch
            | Cause::StreamReset,
            _,
        ) => "invalid_header",
        (_, Some(504)) => "timeout",
        _ => "error",
    };
    (!e.context.conditions.contains(&name)).then_some(name)
}

/// The method, which a client can make up.
fn method(method: &[u8]) -> &str {
    let ordinary = method.len() <= 16 && method.iter().all(u8::is_ascii_uppercase);
    std::str::from_utf8(method).ok().filter(|_| ordinary).unwrap_or("its method")
}

/// `single_server`.
pub(super) fn single_server<'a>(e: &Evidence<'a>) -> Found<'a> {
    let name = e.upstream.filter(|_| e.context.is_block && e.context.servers == Some(1))?;
    if !matches!(e.outcome, Outcome::Failed | Outcome::Passed) {
        return None;
    }
    // Where another server could have helped: the peer failed, before its response began, and not
    // because of how all servers of the group are, most likely.
    let peer_failed = reach(e.cause) != Reach::Unknown && e.failed.phase != Some(Phase::Body);
    if !peer_failed || is_of_all(e.cause) {
        return None;
    }
    let text = say![
        e.arena,
        "Upstream ",
        Quoted(name),
        " has one server: there is no other to try, and max_fails does not take the only one out.",
    ];
    Some(
        Finding::new(e, (Code::SingleServer, Confidence::Certain), text).count(Key::Servers, 1_u64),
    )
}

/// What is wrong with one server of a group that is wrong with the others too: they run the same
/// program, and are asked in the same way.
fn is_of_all(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::HeaderTooBig
            | Cause::InvalidHeader
            | Cause::InvalidResponse
            | Cause::ProtocolMismatch
            | Cause::TlsProtocolError
            | Cause::TlsAlertReceived
            | Cause::TlsCertificateError
            | Cause::TlsNameMismatch
    )
}
