//! The record of one diagnosed request, as the JSON log line and the status endpoint give it.

mod peer_name;
mod write;

pub use peer_name::PeerName;
pub(crate) use write::said;
pub use write::with_suppressed;

use std::borrow::Cow;
use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::cause::{Cause, Phase};
use crate::errno;
use crate::findings::{Context, Evidence, Findings, findings};
use crate::message::Message;
use crate::outcome::{Answer, Origin, Outcome};
use crate::peer::State;
use crate::protocol::Mismatch;
use crate::seconds::Seconds;
use crate::status::History;
use crate::tls::Tls;
use crate::verdict::Verdict;
use crate::words::phrase::{Arena, Phrase};
use crate::words::{self, Name};
use crate::zone::Past;

/// Longest text taken over from a peer, a client or a log line, in bytes.
const MAX_TEXT: usize = 512;

/// Bytes that came from outside as text: valid UTF-8, bounded. What it is written into escapes it.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let bounded = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    // Most texts are valid, and this tells sooner.
    if let Ok(valid) = std::str::from_utf8(bounded) {
        return Cow::Borrowed(valid);
    }
    let mut text = String::from_utf8_lossy(bounded);
    if let Cow::Owned(lossy) = &mut text
        // The bound may have cut a character in two: that is ours, not the sender's.
        && bytes.len() > MAX_TEXT
        && lossy.ends_with('\u{fffd}')
    {
        lossy.pop();
    }
    text
}

/// A point in time as text: `2026-11-21T01:45:45.123+00:00`.
pub type Stamp = [u8; 29];

/// What is known of the request, apart from its attempts. Bytes are as they came.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// ISO 8601 with milliseconds and the offset of the local time zone.
    pub time: Stamp,
    /// Process id of the worker.
    pub pid: i64,
    /// Serial number of the client's connection (`$connection`).
    pub connection: u64,
    /// `$request_id`, 32 hexadecimal digits.
    pub request_id: Option<&'a [u8]>,
    /// Client address (`$remote_addr`).
    pub client: &'a [u8],
    /// `server_name` of the server block.
    pub server: &'a [u8],
    /// `$host`.
    pub host: Option<&'a [u8]>,
    /// Request method.
    pub method: &'a [u8],
    /// URI as the client sent it; without the query string unless it is to be kept.
    pub uri: Cow<'a, [u8]>,
    /// Name of the location in which the upstream failed. Not known where an error page has taken
    /// the place of an error that no upstream made.
    pub location: Option<&'a [u8]>,
    /// Present and true where the failure was that of a subrequest.
    pub subrequest: bool,
    /// `$status`; 0, and left out, while the response has none yet, or never gets one: a subrequest
    /// that is ended with its client's request.
    pub status: u16,
}

/// One diagnosed request: what was observed, and what is derived from that.
#[derive(Clone, Debug)]
pub struct Record<'r, 'p> {
    /// What was observed.
    pub parts: &'r Parts<'p>,
    /// The name of its upstream.
    pub upstream: Option<Name<'r>>,
    /// Who made the error.
    pub origin: Origin,
    /// Cause of the last failed attempt.
    pub cause: Cause,
    /// Phase of the last failed attempt.
    pub phase: Option<Phase>,
    /// RFC 9209 error type.
    pub proxy_error: &'static str,
    /// One sentence.
    pub summary: Phrase<'r>,
    /// What to do first.
    pub advice: Phrase<'r>,
    /// What is concluded, the strongest first.
    pub findings: Findings<'r>,
    /// The peers of the group, where the cause is that none could be chosen.
    pub peers: &'r [PeerReport],
}

/// What is observed of a failed request.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The request.
    pub request: Request<'a>,
    /// What the client got of it.
    pub outcome: Outcome,
    /// Name of the upstream group, or the address where there is no group.
    pub upstream: Option<Cow<'a, str>>,
    /// The protocol module: `proxy`, `fastcgi`, …
    pub module: Option<&'a str>,
    /// `$request_time`.
    pub request_time: Seconds,
    /// Why it failed where no attempt did, with the request's status in it.
    pub own: Option<Box<Attempt>>,
    /// Every attempt in order, the good ones too. At least one has a cause, or there is one of the
    /// request's own.
    pub attempts: Attempts<'a>,
    /// What more is known of the peer of the last that failed.
    pub past: Option<Past>,
    /// The group's peers.
    pub peers: &'a [PeerReport],
    /// What is known beyond that.
    pub context: &'a Context,
}

impl<'r, 'p> Record<'r, 'p> {
    /// What was observed, with the verdict, what is concluded and their words. `None` if nothing
    /// failed.
    pub fn new(parts: &'r Parts<'p>, arena: &'r Arena) -> Option<Record<'r, 'p>> {
        let mut attempts = parts.attempts.iter().rev().map(Shown::attempt);
        let failed = attempts.find(|attempt| attempt.cause.is_some());
        let failed = failed.or(parts.own.as_deref())?;
        let cause = failed.cause?;
        let named = matches!(cause, Cause::NoLiveUpstreams | Cause::MaxConnsReached);
        let peers = if named { parts.peers } else { &[] };
        let (upstream, module) = (parts.upstream.as_deref().map(Name::from), parts.module);
        let findings = findings(&Evidence {
            cause,
            failed,
            outcome: parts.outcome,
            upstream,
            module,
            method: parts.request.method,
            peers,
            past: parts.past.as_ref(),
            context: parts.context,
            arena,
        });
        let concluded = findings.iter().find_map(|finding| finding.advice);
        let facts = words::Facts {
            cause,
            failed,
            upstream,
            module,
            outcome: parts.outcome,
            status: parts.request.status,
            peers,
            findings: &findings,
            arena,
        };
        Some(Record {
            upstream,
            origin: crate::outcome::origin(cause),
            cause,
            phase: failed.phase,
            proxy_error: cause.row().proxy_error,
            summary: words::summary(&facts),
            advice: words::advice(&facts, concluded),
            findings,
            peers,
            parts,
        })
    }
}

impl Parts<'_> {
    /// What an error is that no attempt failed with.
    pub fn own(cause: Cause, status: u16) -> Box<Attempt> {
        Box::new(Attempt { cause: Some(cause), status: Some(status), ..Attempt::default() })
    }
}

/// One attempt on one peer.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// Address of the peer, as in `$upstream_addr`.
    pub peer: Option<PeerName>,
    /// The address itself: not of a unix socket, nor where nginx had given the peer back.
    pub address: Option<SocketAddr>,
    /// Why it failed; none for a good one, and for one that was not diagnosed.
    pub cause: Option<Cause>,
    /// It failed, or was answered with an error of the upstream's own, and was not diagnosed: without
    /// this it would look like a good one. That need not be for the setting of its location, which
    /// is not known any more after a redirect.
    pub undiagnosed: bool,
    /// The phase it failed in.
    pub phase: Option<Phase>,
    /// As in `$upstream_status`.
    pub status: Option<u16>,
    /// Error number.
    pub errno: Option<i32>,
    /// nginx's own message.
    pub message: Option<Message>,
    /// Time spent connecting, TLS handshake included, for failed connects too.
    pub connect_time: Option<Seconds>,
    /// Time from the start of the attempt to its failure.
    pub elapsed: Option<Seconds>,
    /// The connection came from the keepalive cache.
    pub reused: Option<bool>,
    /// Bytes sent on the connection for this request.
    pub bytes_sent: Option<u64>,
    /// Bytes received from the upstream for this request.
    pub bytes_received: Option<u64>,
    /// The response header's size.
    pub header: Option<Header>,
    /// The first bytes of what was no valid response, escaped.
    pub first_bytes: Option<String>,
    /// The protocol they belong to; the summary names it.
    pub mismatch: Option<Mismatch>,
    /// What the cause is if the attempt failed, while its line alone does not decide that.
    pub if_failed: Option<Cause>,
    /// When it failed: milliseconds of nginx's clock.
    pub failed_at: Option<u64>,
    /// How long ago the request was sent, by nginx's own clock: known where all of it was sent at
    /// once, and needed where the kernel does not tell, of a unix socket.
    pub waited: Option<Seconds>,
    /// TLS or HTTP/2 is spoken on the connection: what the kernel received last can be an alert or
    /// a frame of theirs, sent before the close.
    pub framed: bool,
    /// Where TLS is spoken on the connection: whether nginx is to tell the upstream the name of the
    /// server (`proxy_ssl_server_name`).
    pub server_name: Option<bool>,
    /// The kernel knows that all of the request has arrived at the peer's, which is not to say that
    /// a process has read it; or that it has not.
    pub arrived: Option<bool>,
    /// What became of an error that the upstream answered with itself.
    pub answer: Option<Answer>,
    /// What the FastCGI application wrote to stderr.
    pub stderr: Option<String>,
    /// Why TLS failed.
    pub tls: Option<Tls>,
    /// The kernel's view of the connection.
    pub tcp: Option<Tcp>,
    /// nginx's view of the peer.
    pub peer_state: Option<PeerState>,
    /// The attempts on the peer so far, this one included once it has ended.
    pub history: Option<Tally>,
}

/// The attempts of a request: most have one or two.
pub type Attempts<'a> = SmallVec<[Shown<'a>; 2]>;

/// An attempt as it is shown: from where it was noted, or made for it. An attempt is large, and
/// most are noted.
#[derive(Clone, Debug)]
pub enum Shown<'a> {
    /// As it was noted.
    Noted(&'a Attempt),
    /// Made of what nginx keeps.
    Made(Box<Attempt>),
}

impl Shown<'_> {
    /// The attempt.
    #[inline]
    pub fn attempt(&self) -> &Attempt {
        match self {
            Shown::Noted(attempt) => attempt,
            Shown::Made(attempt) => attempt,
        }
    }

    /// The attempt, to be changed in what is shown.
    pub fn to_mut(&mut self) -> &mut Attempt {
        if let Shown::Noted(attempt) = self {
            *self = Shown::Made(Box::new(attempt.clone()));
        }
        match self {
            Shown::Made(attempt) => attempt,
            Shown::Noted(_) => unreachable!("it was made just now"),
        }
    }
}

impl Attempt {
    /// The symbol of its error number.
    pub fn errname(&self) -> Option<&'static str> {
        self.errno.and_then(errno::name)
    }

    /// Sets cause and phase.
    pub fn set_verdict(&mut self, verdict: Verdict) {
        self.cause = Some(verdict.cause);
        self.phase = Some(verdict.phase);
    }
}

/// Size of a response header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Bytes seen.
    pub size: u64,
    /// The header ends there; otherwise it is at least that long.
    pub exact: bool,
    /// Size of nginx's buffer for it.
    pub limit: u64,
    /// Bytes of the limit that the header cannot use: those of a cache file's own header.
    pub reserved: u64,
    /// The directive that sets the limit.
    pub directive: Option<&'static str>,
}

/// From `TCP_INFO` (tcp(7)).
#[derive(Clone, Debug)]
pub struct Tcp {
    /// State of the connection, named as in RFC 9293.
    pub state: &'static str,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub rtt: Seconds,
    /// Segments retransmitted in all (`tcpi_total_retrans`).
    pub retransmits: u64,
    /// Time since data was last received (`tcpi_last_data_recv`): on a reused connection without
    /// a byte of this response, how long it had been idle.
    pub idle: Option<Seconds>,
    /// Time since data was last sent (`tcpi_last_data_sent`).
    pub since_sent: Option<Seconds>,
}

/// The state of a peer when the attempt was accounted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Whether nginx may choose it.
    pub state: State,
    /// Failures counted within `fail_timeout`.
    pub fails: u64,
    /// `max_fails`.
    pub max_fails: u64,
    /// `fail_timeout`.
    pub fail_timeout: Seconds,
    /// For how long still it is out.
    pub unavailable_for: Option<Seconds>,
    /// Marked `down`.
    pub down: bool,
    /// A backup server.
    pub backup: bool,
    /// `weight`.
    pub weight: u64,
    /// Connections in use.
    pub conns: u64,
    /// `max_conns`, 0 for no limit.
    pub max_conns: u64,
}

/// What the zone knows of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Good attempts.
    pub ok: u64,
    /// Failed ones.
    pub failed: u64,
    /// How long ago the last good one was.
    pub last_ok: Option<Seconds>,
    /// Failed ones since that.
    pub consecutive_failures: u64,
}

/// One peer of a group in which none could be chosen.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Its address.
    pub peer: String,
    /// Whether nginx may choose it.
    pub state: State,
    /// For how long still it is out.
    pub unavailable_for: Option<Seconds>,
    /// A backup server.
    pub backup: bool,
    /// `max_fails`, for conclusions.
    pub max_fails: u64,
    /// How long ago nginx counted a failure of it last, as well.
    pub counted: Seconds,
    /// The failure that took it out, or where it is not out, the last one.
    pub last_cause: Option<Cause>,
    /// How long ago that was.
    pub last_failed: Option<Seconds>,
}

impl PeerReport {
    /// Adds what failed there, if that has to do with its being out.
    pub fn set_history(&mut self, history: &History) {
        if self.state == State::Unavailable && !history.explains(self.counted) {
            return;
        }
        let taken_out = history.taken_out.filter(|_| self.state == State::Unavailable);
        let last = history.last_cause.zip(history.last_failed);
        let failure = taken_out.map(|out| (out.cause, out.ago)).or(last);
        (self.last_cause, self.last_failed) = failure.unzip();
    }
}

#[cfg(test)]
mod tests;
