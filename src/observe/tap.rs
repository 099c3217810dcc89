//! An error line: the only place where nginx gives the reason.

use std::borrow::Cow;
use std::sync::Mutex;

use diagnosis::header::End;
use diagnosis::message::{self, Kind, Known, Message, Recent};
use diagnosis::peer::{self, Peer};
use diagnosis::protocol;
use diagnosis::tls::{self, Tls};
use diagnosis::zone::Place;
use diagnosis::{
    Attempt, Cause, Failure, Header, Observation, PeerReport, Phase, Progress, Seconds, Tcp,
    Verdict, classify, classify_known,
};

use super::count::{count_unbegun, place_in_group};
use crate::directives::LocConf;
use crate::ffi::log::Line;
use crate::ffi::request::Request;
use crate::ffi::upstream::Upstream;
use crate::ffi::{hooks, peers, socket, time};
use crate::record::{Group, Note, spare};

/// Header bytes looked for beyond nginx's buffer: nginx's largest sensible buffers hold less.
const PEEK: usize = 64 * 1_024;

/// What nginx says of a tunnel that nothing came through for `proxy_read_timeout`.
const TUNNEL_TIMED_OUT: &[u8] = b"upstream timed out (110: Connection timed out)";

/// What nginx said before. This worker's one thread uses it.
static RECENT: Mutex<Recent> = Mutex::new(Recent::none());

/// Called for each line at level error and above that is about a live request.
pub(crate) fn line(request: Request<'_>, line: &Line<'_>) {
    let Some(conf) = request.loc_conf().filter(|conf| conf.enabled()) else { return };
    let Some(upstream) = request.upstream() else { return };
    let Some(text) = message::strip_prefix(line.text) else { return };

    // Nobody waits for a post_action.
    if request.is_post_action() {
        return;
    }
    let entries = request.states().len();
    if !upstream.is_under_way() {
        // Before it begins only its URL can be wrong, and nothing else of it is set yet. Once it
        // has ended, what fails is the client's connection or an error page, and what it points
        // to may be gone.
        if message::recognise(text, None).is_some_and(|known| known.kind == Kind::BadUrl) {
            let seen = Observation { message: text, action: line.action, ..Observation::default() };
            let proper = own_message(conf, text, line.action);
            let attempt = evidence(&seen, &classify(&seen), proper);
            note(request, conf, upstream, entries, attempt, None);
            count_unbegun(request, upstream, Cause::InvalidUpstreamUrl);
        }
        return;
    }
    let (attempt, failing_peers) = look(upstream, conf, text, line.action);
    // The attempt's own entry, or where it would stand if nginx had made one.
    note(request, conf, upstream, entries.saturating_sub(1), attempt, failing_peers);
    hooks::hook_finalize(request, upstream);
}

/// What is to be seen of the current attempt, with what nginx said of it. The peers come with it
/// where that is that none could be chosen.
fn look(
    upstream: Upstream<'_>,
    conf: &LocConf,
    text: &[u8],
    action: Option<&[u8]>,
) -> (Box<Attempt>, Option<Vec<Peer>>) {
    let (known, own_words) = match RECENT.try_lock() {
        Ok(mut recent) => recent.recognise(text, upstream.peer_name()),
        Err(_) => (message::recognise(text, upstream.peer_name()), None),
    };
    // Before there is a connection the kernel has nothing to tell of it.
    let connected = !known.is_some_and(|known| known.kind.is_before_connection());
    let tcp = upstream.fd().filter(|_| connected).and_then(socket::tcp_info);
    let failing_peers = peers_if_none_chosen(known, upstream);
    let seen = Observation {
        message: text,
        action,
        peer: upstream.peer_name(),
        unix: upstream.is_unix(),
        resolver_error: upstream.resolver_error(),
        no_source_address: has_no_source_address(known, upstream),
        capacity: failing_peers.as_deref().map(peer::capacity),
        ..if connected { of_connection(upstream, tcp.as_ref()) } else { Observation::default() }
    };
    let failure = classify_known(known, &seen);
    let proper = own_words.unwrap_or_else(|| own_message(conf, text, action));
    let mut attempt = attempt(upstream, &seen, &failure, proper, tcp);
    if known.is_none() {
        let stderr = message::stderr(message::proper(text, action));
        attempt.stderr = stderr.map(|text| kept(conf, text).into_owned());
    }
    (attempt, failing_peers)
}

/// What is to be seen of a connection and of what came on it.
fn of_connection<'a>(upstream: Upstream<'a>, tcp: Option<&Tcp>) -> Observation<'a> {
    let tls = upstream.tls_handshaked().is_some();
    Observation {
        tls_failed: upstream.tls_failed(),
        // CLOSE without a close of nginx's own; after a FIN it would be CLOSE_WAIT.
        reset: tls && tcp.is_some_and(|tcp| tcp.state == "CLOSE"),
        progress: progress(upstream),
        reused: upstream.is_reused(),
        received: upstream.state().map_or(0, |state| state.bytes_received()),
        module: upstream.module(),
        first_bytes: if header_done(upstream) { &[] } else { upstream.header_bytes() },
        ..Observation::default()
    }
}

/// The failure of an upstream request that nginx gave up without a line at level error. Once the
/// connection is a tunnel, nginx speaks of it on the client's connection, where a timeout is
/// logged at level info (`ngx_http_upstream_process_upgraded`, `ngx_connection_error`).
pub(super) fn silent_failure(upstream: Upstream<'_>, conf: &LocConf) -> Box<Attempt> {
    let text = if upstream.is_upgraded() { TUNNEL_TIMED_OUT } else { b"".as_slice() };
    let mut attempt = look(upstream, conf, text, None).0;
    // The same words for both timers.
    if upstream.is_upgraded() && upstream.write_timed_out() {
        attempt.set_verdict(Verdict { cause: Cause::SendTimedOut, phase: Phase::Send });
    }
    attempt
}

/// Keeps what a line said of an attempt.
fn note(
    request: Request<'_>,
    conf: &'static LocConf,
    upstream: Upstream<'_>,
    at: usize,
    attempt: Box<Attempt>,
    failing_peers: Option<Vec<Peer>>,
) {
    let new = note_of(request, upstream, at, attempt);
    hooks::update(request, |diagnosis| {
        // Before it begins, the entries are those of others.
        let own = if upstream.is_under_way() { request.last_states().len() } else { 0 };
        let group = diagnosis.group(upstream.id(), || Group::new(request, upstream, conf, own));
        // After its end, an upstream request's lines are about something else: the error page.
        if group.ended.is_some() {
            return;
        }
        if let Some(peers) = failing_peers {
            group.peers = peers.iter().map(report).collect();
        }
        group.note(new);
    });
}

/// The note on the attempt that goes on.
pub(super) fn note_of(
    request: Request<'_>,
    upstream: Upstream<'_>,
    at: usize,
    attempt: Box<Attempt>,
) -> Note {
    let place = noted_place(request, upstream, &attempt);
    Note { at, attempt, peer: peers::in_use(upstream), place }
}

/// Where the attempt's peer is counted. Found by where its name is, which is there now.
fn noted_place(
    request: Request<'_>,
    upstream: Upstream<'_>,
    attempt: &Attempt,
) -> Option<Place<'static>> {
    if matches!(attempt.phase, Some(Phase::Resolve | Phase::Select)) || !upstream.has_group() {
        return None;
    }
    place_in_group(request.main_conf()?, upstream, (upstream.peer_at(), upstream.peer_name()?))
}

fn progress(upstream: Upstream<'_>) -> Progress {
    Progress {
        tls_handshake: upstream.tls_handshaked() == Some(false),
        request_sent: upstream.request_sent(),
        request_body_sent: upstream.request_body_sent(),
        header_done: header_done(upstream),
    }
}

/// With the header done, the buffer is the body's, or gone.
fn header_done(upstream: Upstream<'_>) -> bool {
    upstream.state().is_some_and(|state| state.header_time().is_some())
}

/// The peers, read only where the line says that none could be chosen.
fn peers_if_none_chosen(known: Option<Known>, upstream: Upstream<'_>) -> Option<Vec<Peer>> {
    (known?.kind == Kind::NoLiveUpstreams).then(|| peers::of(upstream))?
}

fn report(peer: &Peer) -> PeerReport {
    let state = peer.report();
    PeerReport {
        peer: peer.name.clone(),
        state: state.state,
        unavailable_for: state.unavailable_for,
        backup: state.backup,
        max_fails: state.max_fails,
        counted: peer.counted(),
        last_cause: None,
        last_failed: None,
    }
}

/// Whether it is the lack of a source address, not of ports, that a connect failed for: the two
/// have one errno, EADDRNOTAVAIL.
fn has_no_source_address(known: Option<Known>, upstream: Upstream<'_>) -> bool {
    known.is_some_and(|known| {
        known.kind == Kind::Connect && known.errno == Some(diagnosis::errno::NO_ADDRESS)
    }) && upstream.has_source_address() == Some(false)
}

/// The message proper of a line.
fn own_message(conf: &LocConf, text: &[u8], action: Option<&[u8]>) -> Message {
    Message::Own(kept(conf, message::proper(text, action)).into_owned())
}

/// A text from a line, as it is kept: without query strings, unless they are to be.
fn kept<'a>(conf: &LocConf, text: &'a [u8]) -> Cow<'a, str> {
    let text = diagnosis::text(text);
    if conf.keeps_query() {
        return text;
    }
    match message::without_queries(&text) {
        Cow::Owned(without) => without.into(),
        Cow::Borrowed(_) => text,
    }
}

/// What the line itself says. `proper`: its message, as it is kept.
fn evidence(seen: &Observation<'_>, failure: &Failure, proper: Message) -> Box<Attempt> {
    // It is large, and handed on until it is noted.
    let mut attempt = spare::attempt(seen.peer, proper);
    attempt.errno = failure.errno;
    attempt.phase = Some(failure.phase);
    attempt.if_failed = Some(failure.if_failed());
    attempt.failed_at = Some(time::current_msec());
    if let Some(verdict) = failure.verdict {
        attempt.set_verdict(verdict);
    }
    attempt
}

/// The evidence that exists only now: the connection is still open.
fn attempt(
    upstream: Upstream<'_>,
    seen: &Observation<'_>,
    failure: &Failure,
    proper: Message,
    tcp: Option<Tcp>,
) -> Box<Attempt> {
    let elapsed = time::current_msec().saturating_sub(upstream.start_time());
    let mut attempt = evidence(seen, failure, proper);
    match failure.phase {
        Phase::Resolve | Phase::Select => return attempt,
        _ => attempt.elapsed = Some(Seconds::Millis(elapsed)),
    }
    attempt.address = upstream.peer_address();
    // connect_time is set as soon as nginx looks at the connection, before it knows that the
    // connect failed; a connect that fails at once leaves it unset.
    let connect_time = upstream.state().and_then(|state| state.connect_time());
    attempt.connect_time = Some(Seconds::Millis(connect_time.unwrap_or(elapsed)));
    if failure.before_connection {
        attempt.reused = Some(false);
        return attempt;
    }
    attempt.reused = Some(seen.reused);
    attempt.bytes_sent = upstream.bytes_sent();
    attempt.bytes_received = upstream.state().map(|state| state.bytes_received());
    if attempt.cause == Some(Cause::ResponseTimedOut) && tcp.is_some() {
        let left = upstream.fd().and_then(socket::unacknowledged);
        attempt.arrived = left.map(|bytes| bytes == 0);
    }
    if tcp.is_none() && upstream.sent_at_once() {
        let waited = connect_time.map(|time| elapsed.saturating_sub(time));
        attempt.waited = waited.map(Seconds::Millis);
    }
    attempt.tcp = tcp;
    attempt.server_name = upstream.tls_handshaked().and_then(|_| upstream.tells_server_name());
    attempt.framed =
        attempt.server_name.is_some() || matches!(seen.module, Some("grpc" | "proxy_v2"));
    attempt.header = header(upstream, seen, failure);
    attempt.tls = match failure.kind {
        Some(Kind::Tls) => {
            tls::alert(seen.message).map(|alert| Tls { alert: Some(alert), ..Tls::default() })
        }
        Some(Kind::Certificate) => tls::verify_error(seen.message)
            .map(|verify| Tls { verify: Some(verify), ..Tls::default() }),
        _ => None,
    };
    if let Some(Cause::InvalidHeader | Cause::InvalidResponse | Cause::ProtocolMismatch) =
        attempt.cause
    {
        attempt.first_bytes = Some(seen.first_bytes)
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| protocol::shown(bytes, seen.module));
        attempt.mismatch = protocol::mismatch(seen.first_bytes, seen.module);
    }
    attempt
}

/// What came of the response header, if anything did.
fn header(upstream: Upstream<'_>, seen: &Observation<'_>, failure: &Failure) -> Option<Header> {
    let held = seen.first_bytes;
    if held.is_empty() {
        return None;
    }
    let mut size = held.len();
    let mut exact = false;
    if failure.kind == Some(Kind::HeaderTooBig) {
        let end = End::of(seen.module, held);
        // The rest waits in the kernel, unless TLS is between. Behind frames it may be the body.
        let readable = upstream.tls_handshaked().is_none() && end != End::Frames;
        let fd = upstream.fd().filter(|_| readable);
        let peeked = fd.map(|fd| socket::peek(fd, PEEK)).unwrap_or_default();
        match end.find(held, &peeked) {
            Some(whole) => (size, exact) = (whole, true),
            None => size = size.saturating_add(peeked.len()),
        }
    }
    Some(Header {
        size: size as u64,
        exact,
        limit: upstream.header_limit()?,
        reserved: upstream.cache_header() as u64,
        directive: seen.module.and_then(protocol::buffer_directive),
    })
}
