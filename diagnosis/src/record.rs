//! The record of one diagnosed request, as the JSON log line and the status endpoint give it.

use std::borrow::Cow;

use serde::Serialize;

use crate::cause::{Cause, Phase};
use crate::findings::{Context, Evidence, Finding, findings};
use crate::outcome::{Origin, Outcome};
use crate::peer::State;
use crate::protocol::Mismatch;
use crate::seconds::Seconds;
use crate::status::History;
use crate::tls::Tls;
use crate::verdict::Verdict;
use crate::words;
use crate::zone::Past;

/// Version of the JSON object.
const VERSION: u8 = 1;

/// Longest text taken over from a peer, a client or a log line, in bytes.
const MAX_TEXT: usize = 512;

/// Bytes that came from outside as text: valid UTF-8, bounded. JSON escaping is the serializer's.
pub fn text(bytes: &[u8]) -> String {
    let bounded = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    match String::from_utf8_lossy(bounded) {
        Cow::Borrowed(valid) => valid.to_owned(),
        // The bound may have cut a character in two: that is ours, not the sender's.
        Cow::Owned(mut lossy) => {
            if bytes.len() > MAX_TEXT && lossy.ends_with('\u{fffd}') {
                lossy.pop();
            }
            lossy
        }
    }
}

/// What is known of the request, apart from its attempts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Request {
    /// ISO 8601 with milliseconds and the offset of the local time zone.
    pub time: String,
    /// Process id of the worker.
    pub pid: i64,
    /// Serial number of the client's connection (`$connection`).
    pub connection: u64,
    /// `$request_id`, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Client address (`$remote_addr`).
    pub client: String,
    /// `server_name` of the server block.
    pub server: String,
    /// `$host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Request method.
    pub method: String,
    /// URI as the client sent it; without the query string unless it is to be kept.
    pub uri: String,
    /// Name of the location in which the upstream failed. Not known where an error page has taken
    /// the place of an error that no upstream made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Present and true where the failure was that of a subrequest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub subrequest: bool,
    /// `$status`; 0, and left out, while the response has none yet, or never gets one: a subrequest
    /// that is ended with its client's request.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// One diagnosed request.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    v: u8,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// What the client got of it.
    pub outcome: Outcome,
    /// Who made the error.
    pub origin: Origin,
    /// Cause of the last failed attempt.
    pub cause: Cause,
    /// Phase of the last failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// RFC 9209 error type.
    pub proxy_error: &'static str,
    /// One sentence.
    pub summary: String,
    /// What to do first.
    pub advice: String,
    /// What is concluded, the strongest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Name of the upstream group, or the address where there is no group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The protocol module: `proxy`, `fastcgi`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// `$request_time`.
    pub request_time: Seconds,
    /// Every attempt in order, the good ones too.
    pub attempts: Vec<Attempt>,
    /// The peers of the group, where the cause is that none could be chosen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerReport>,
}

/// The parts of a record that are observed; the rest is derived from them.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The request.
    pub request: Request,
    /// What the client got.
    pub outcome: Outcome,
    /// Group name.
    pub upstream: Option<String>,
    /// Protocol module.
    pub module: Option<String>,
    /// Time since the request came.
    pub request_time: Seconds,
    /// Why it failed where no attempt did.
    pub own_cause: Option<Cause>,
    /// The attempts. At least one has a cause, or there is one of the request's own.
    pub attempts: Vec<Attempt>,
    /// The group's peers.
    pub peers: Vec<PeerReport>,
}

impl Record {
    /// Completes what was observed with the verdict, what is concluded and their words. `None` if
    /// nothing failed.
    pub fn new(parts: Parts, context: &Context) -> Option<Record> {
        let Parts { request, outcome, upstream, module, request_time, own_cause, .. } = parts;
        let failed = parts.attempts.iter().rev().find(|attempt| attempt.cause.is_some());
        // Without a failed attempt the words are about the request's status alone.
        let own = Attempt { status: Some(request.status), ..Attempt::default() };
        let cause = failed.map_or(own_cause, |failed| failed.cause)?;
        let failed = failed.unwrap_or(&own);
        let named = matches!(cause, Cause::NoLiveUpstreams | Cause::MaxConnsReached);
        let peers = if named { parts.peers } else { Vec::new() };
        let findings = findings(&Evidence {
            cause,
            failed,
            outcome,
            upstream: upstream.as_deref(),
            module: module.as_deref(),
            method: &request.method,
            peers: &peers,
            context,
        });
        let facts = words::Facts {
            cause,
            failed,
            upstream: upstream.as_deref(),
            module: module.as_deref(),
            outcome,
            status: request.status,
            peers: &peers,
            findings: &findings,
        };
        Some(Record {
            v: VERSION,
            outcome,
            origin: crate::outcome::origin(cause),
            cause,
            phase: failed.phase,
            proxy_error: cause.row().proxy_error,
            summary: words::summary(&facts),
            advice: words::advice(&facts),
            upstream,
            module,
            request_time,
            findings,
            peers,
            request,
            attempts: parts.attempts,
        })
    }

    /// The line of a log: the JSON, with the number of lines left out before it, and a line feed.
    pub fn line(json: &str, suppressed: u64) -> String {
        match json.strip_suffix('}') {
            Some(open) if suppressed > 0 => format!("{open},\"suppressed\":{suppressed}}}\n"),
            _ => format!("{json}\n"),
        }
    }

    /// One line of JSON, without a line feed.
    ///
    /// # Errors
    /// As `serde_json`; these types give it no reason to.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// One attempt on one peer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Attempt {
    /// Address of the peer, as in `$upstream_addr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Why it failed; none for a good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The phase it failed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// As in `$upstream_status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Error number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Its symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errname: Option<String>,
    /// nginx's own message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time spent connecting, TLS handshake included, for failed connects too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Seconds>,
    /// Time from the start of the attempt to its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed: Option<Seconds>,
    /// The connection came from the keepalive cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused: Option<bool>,
    /// Bytes sent on the connection for this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// Bytes received from the upstream for this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    /// The response header's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// The first bytes of what was no valid response, escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bytes: Option<String>,
    /// The protocol they belong to; the summary names it.
    #[serde(skip)]
    pub mismatch: Option<Mismatch>,
    /// What the cause is if the attempt failed, while its line alone does not decide that.
    #[serde(skip)]
    pub if_failed: Option<Cause>,
    /// When it failed: milliseconds of nginx's clock.
    #[serde(skip)]
    pub failed_at: Option<u64>,
    /// How long ago the request was sent, by nginx's own clock: known where all of it was sent at
    /// once, and needed where the kernel does not tell, of a unix socket.
    #[serde(skip)]
    pub waited: Option<Seconds>,
    /// TLS or HTTP/2 is spoken on the connection: what the kernel received last can be an alert or
    /// a frame of theirs, sent before the close.
    #[serde(skip)]
    pub framed: bool,
    /// The kernel knows that all of the request has arrived at the peer's, which is not to say that
    /// a process has read it; or that it has not.
    #[serde(skip)]
    pub arrived: Option<bool>,
    /// What the FastCGI application wrote to stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Why TLS failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The kernel's view of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// nginx's view of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_state: Option<PeerState>,
    /// The attempts on the peer so far, this one included once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<PeerHistory>,
    /// What more is known of the peer, for conclusions.
    #[serde(skip)]
    pub past: Option<Past>,
}

impl Attempt {
    /// Sets cause and phase.
    pub fn set_verdict(&mut self, verdict: Verdict) {
        self.cause = Some(verdict.cause);
        self.phase = Some(verdict.phase);
    }
}

/// Size of a response header.
#[derive(Clone, Debug, Serialize)]
pub struct Header {
    /// Bytes seen.
    pub size: u64,
    /// The header ends there; otherwise it is at least that long.
    pub exact: bool,
    /// Size of nginx's buffer for it.
    pub limit: u64,
    /// Bytes of the limit that the header cannot use: those of a cache file's own header.
    #[serde(skip)]
    pub reserved: u64,
    /// The directive that sets the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directive: Option<String>,
}

/// From `TCP_INFO` (tcp(7)).
#[derive(Clone, Debug, Serialize)]
pub struct Tcp {
    /// State of the connection, named as in RFC 9293.
    pub state: &'static str,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub rtt: Seconds,
    /// Segments retransmitted in all (`tcpi_total_retrans`).
    pub retransmits: u64,
    /// Time since data was last received (`tcpi_last_data_recv`): on a reused connection without
    /// a byte of this response, how long it had been idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Seconds>,
    /// Time since data was last sent (`tcpi_last_data_sent`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_sent: Option<Seconds>,
}

/// The state of a peer when the attempt was accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
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
#[derive(Clone, Debug, Serialize)]
pub struct PeerHistory {
    /// Good attempts.
    pub ok: u64,
    /// Failed ones.
    pub failed: u64,
    /// How long ago the last good one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ok: Option<Seconds>,
    /// Failed ones since that.
    pub consecutive_failures: u64,
}

impl From<History> for PeerHistory {
    fn from(history: History) -> PeerHistory {
        let History { ok, failed, last_ok, consecutive_failures, .. } = history;
        PeerHistory { ok, failed, last_ok, consecutive_failures }
    }
}

/// One peer of a group in which none could be chosen.
#[derive(Clone, Debug, Serialize)]
pub struct PeerReport {
    /// Its address.
    pub peer: String,
    /// Whether nginx may choose it.
    pub state: State,
    /// For how long still it is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable_for: Option<Seconds>,
    /// A backup server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// `max_fails`, for conclusions.
    #[serde(skip)]
    pub max_fails: u64,
    /// The failure that took it out, or where it is not out, the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cause: Option<Cause>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failed: Option<Seconds>,
}

impl PeerReport {
    /// Adds what failed there.
    pub fn set_history(&mut self, history: &History) {
        let taken_out = history.taken_out.filter(|_| self.state == State::Unavailable);
        let last = history.last_cause.zip(history.last_failed);
        let failure = taken_out.map(|out| (out.cause, out.ago)).or(last);
        (self.last_cause, self.last_failed) = failure.unzip();
    }
}

#[cfg(test)]
mod tests;
