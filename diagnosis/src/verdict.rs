//! From one error line, and the structures at that moment, to a cause and a phase.

use nix::errno::Errno;

use crate::cause::{Cause, Phase};
use crate::message::{self, Kind, Known};
use crate::peer::Capacity;
use crate::{protocol, tls};

/// How far nginx's structures say the attempt has come. Structures before words: `log->action`
/// says "reading response header" while a large request is still being sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A TLS handshake was begun on the connection and has not completed
    /// (`connection->ssl->handshaked`).
    pub tls_handshake: bool,
    /// `u->request_sent`.
    pub request_sent: bool,
    /// `u->request_body_sent`.
    pub request_body_sent: bool,
    /// The header was parsed: `u->state->header_time` is set.
    pub header_done: bool,
}

impl Progress {
    /// The phase the attempt is in.
    pub fn phase(self) -> Phase {
        if self.header_done {
            Phase::Body
        } else if self.tls_handshake {
            Phase::Tls
        } else if !self.request_sent {
            Phase::Connect
        } else if !self.request_body_sent {
            Phase::Send
        } else {
            Phase::Header
        }
    }
}

/// What was to be seen when nginx logged an error for an upstream request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'a> {
    /// The message, without nginx's prefix (see [`message::strip_prefix`]).
    pub message: &'a [u8],
    /// `log->action`.
    pub action: Option<&'a [u8]>,
    /// `u->peer.name`.
    pub peer: Option<&'a [u8]>,
    /// The peer is a unix socket.
    pub unix: bool,
    /// `u->resolved->ctx->state` where that is an error: 1 to 5 are DNS response codes, larger
    /// numbers an errno (`ngx_resolver_strerror`).
    pub resolver_error: Option<i64>,
    /// This host has no source address for the peer's (asked after EADDRNOTAVAIL).
    pub no_source_address: bool,
    /// TLS failed on the connection to the peer: nginx has given up telling it of the end
    /// (`connection->ssl->no_send_shutdown`), which it does before it logs the failure. The
    /// client's connection has the same log, and a client can make its own TLS fail.
    pub tls_failed: bool,
    /// The kernel says that the connection was reset. Over TLS nginx does not
    /// (`ngx_ssl_handle_recv` takes a reset with nothing in OpenSSL's queue for a close).
    pub reset: bool,
    /// How far the attempt has come.
    pub progress: Progress,
    /// `u->peer.cached`: the connection came from the keepalive cache.
    pub reused: bool,
    /// Bytes of the response that came so far.
    pub received: u64,
    /// The protocol module: `proxy`, `fastcgi`, …
    pub module: Option<&'a str>,
    /// The first of them.
    pub first_bytes: &'a [u8],
    /// What the group's peers could take, if that can be known.
    pub capacity: Option<Capacity>,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// The phase it failed in.
    pub phase: Phase,
}

/// What one error line says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The verdict; `None` where the message does not decide: it is not known, or nginx may have
    /// gone on in spite of it. Whether the attempt failed is told by how it ended.
    pub verdict: Option<Verdict>,
    /// The phase the line came in.
    pub phase: Phase,
    /// The errno in the message.
    pub errno: Option<i32>,
    /// The message failed before a connection existed, so nothing of one may be reported.
    pub before_connection: bool,
    /// What the message said, if it is known.
    pub kind: Option<Kind>,
}

impl Failure {
    /// The cause where the line does not decide and the attempt turns out to have failed.
    pub fn if_failed(&self) -> Cause {
        match self.kind {
            Some(Kind::Disk) => Cause::InternalError,
            _ => Cause::Unknown,
        }
    }
}

/// `NGX_RESOLVE_NXDOMAIN`, from nginx's `ngx_resolver.h`.
const RESOLVE_NXDOMAIN: i64 = 3;

/// Decides what an error line means.
pub fn classify(seen: &Observation<'_>) -> Failure {
    classify_known(message::recognise(seen.message, seen.peer), seen)
}

/// As [`classify`], of a message that was looked for already.
pub fn classify_known(known: Option<Known>, seen: &Observation<'_>) -> Failure {
    if let Some(state) = seen.resolver_error {
        // The message starts with the name, which a client may have chosen: only the state counts.
        let cause = match state {
            RESOLVE_NXDOMAIN => Cause::DnsNotFound,
            s if s == Errno::ETIMEDOUT as i64 => Cause::DnsTimedOut,
            _ => Cause::DnsFailure,
        };
        return Failure {
            verdict: Some(Verdict { cause, phase: Phase::Resolve }),
            phase: Phase::Resolve,
            errno: (cause == Cause::DnsTimedOut).then_some(Errno::ETIMEDOUT as i32),
            before_connection: true,
            kind: None,
        };
    }
    let Some(known) = known else {
        return Failure {
            verdict: None,
            phase: seen.progress.phase(),
            errno: None,
            before_connection: false,
            kind: None,
        };
    };
    // request_sent and the rest are those of the attempt before until a connection exists, so
    // these kinds bring their phase with them.
    let phase = match known.kind {
        Kind::NoResolver => Phase::Resolve,
        Kind::BadUrl | Kind::NoLiveUpstreams => Phase::Select,
        Kind::Connect | Kind::Socket | Kind::Bind | Kind::WorkerConnections => Phase::Connect,
        // An alert can come when the handshake is over for nginx: with TLS 1.3 the peer looks at
        // the client's certificate after that.
        Kind::Tls | Kind::Certificate | Kind::CertificateName => Phase::Tls,
        // A chunked body is looked at with the header still counted as unread.
        Kind::InvalidBody => Phase::Body,
        Kind::InvalidHeader | Kind::NotHttp | Kind::HeaderTooBig => Phase::Header,
        Kind::Closed
        | Kind::Io
        | Kind::TlsIo
        | Kind::Timeout
        | Kind::Memory
        | Kind::Disk
        | Kind::BadFrame
        | Kind::StreamReset
        | Kind::Internal => seen.progress.phase(),
    };
    Failure {
        verdict: cause(known, phase, seen).map(|cause| Verdict { cause, phase }),
        phase,
        errno: known.errno,
        before_connection: known.kind.is_before_connection(),
        kind: Some(known.kind),
    }
}

/// `None` for an error number on an open connection that is none of the upstream's doings: the
/// line may be about the client's connection, whose ordinary errors nginx logs at level info. And
/// for a file: nginx may do without.
fn cause(known: Known, phase: Phase, seen: &Observation<'_>) -> Option<Cause> {
    Some(match known.kind {
        Kind::Tls | Kind::TlsIo if !seen.tls_failed => return None,
        Kind::NoResolver => Cause::DnsNoResolver,
        Kind::BadUrl => Cause::InvalidUpstreamUrl,
        Kind::NoLiveUpstreams => match seen.capacity {
            Some(Capacity::Full) => Cause::MaxConnsReached,
            Some(Capacity::None) | None => Cause::NoLiveUpstreams,
        },
        Kind::Connect => connect_error(known.errno, seen),
        Kind::Socket => match known.errno.map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE) => Cause::LocalFdsExhausted,
            // IPv6 is switched off on this host, and the peer has an IPv6 address.
            Some(Errno::EAFNOSUPPORT) => Cause::Unreachable,
            Some(Errno::ENOMEM | Errno::ENOBUFS) => Cause::InternalError,
            _ => Cause::Unknown,
        },
        Kind::Memory => Cause::InternalError,
        Kind::Disk => return None,
        Kind::Bind => Cause::BindFailed,
        Kind::WorkerConnections => Cause::WorkerConnectionsExhausted,
        Kind::Closed if seen.reset => {
            closed(phase, seen, Cause::ConnectionReset, Cause::ConnectionReset)
        }
        Kind::Closed => closed(phase, seen, Cause::ClosedBeforeResponse, Cause::ClosedInHeader),
        Kind::Io | Kind::TlsIo => match known.errno.map(Errno::from_raw) {
            Some(Errno::ECONNRESET | Errno::EPIPE) => {
                closed(phase, seen, Cause::ConnectionReset, Cause::ConnectionReset)
            }
            Some(Errno::ETIMEDOUT) => timed_out(phase),
            Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => {
                Cause::Unreachable
            }
            _ => return None,
        },
        Kind::Timeout => timed_out(phase),
        Kind::HeaderTooBig => Cause::HeaderTooBig,
        Kind::Tls if tls::alert(seen.message).is_some() => Cause::TlsAlertReceived,
        Kind::Tls if seen.progress.tls_handshake && tls::is_no_tls(seen.message) => {
            Cause::ProtocolMismatch
        }
        Kind::Tls => Cause::TlsProtocolError,
        Kind::Certificate => Cause::TlsCertificateError,
        Kind::CertificateName => Cause::TlsNameMismatch,
        // The responses of uwsgi and SCGI begin with any header: another protocol is an invalid one.
        Kind::InvalidHeader => match protocol::mismatch(seen.first_bytes, seen.module) {
            Some(_) => Cause::ProtocolMismatch,
            None => Cause::InvalidHeader,
        },
        Kind::NotHttp | Kind::BadFrame => match protocol::mismatch(seen.first_bytes, seen.module) {
            Some(_) => Cause::ProtocolMismatch,
            None if phase == Phase::Body => Cause::InvalidBody,
            None => Cause::InvalidResponse,
        },
        Kind::StreamReset => Cause::StreamReset,
        Kind::Internal => Cause::InternalError,
        Kind::InvalidBody => Cause::InvalidBody,
    })
}

/// A close or reset after the connection stood: `nothing` and `some` are the causes on a fresh
/// connection with no byte and with some bytes of the header received.
fn closed(phase: Phase, seen: &Observation<'_>, nothing: Cause, some: Cause) -> Cause {
    match phase {
        Phase::Tls => Cause::TlsClosed,
        Phase::Body => Cause::ResponseTruncated,
        _ if seen.received > 0 => some,
        _ if seen.reused => Cause::KeepaliveRace,
        _ => nothing,
    }
}

fn timed_out(phase: Phase) -> Cause {
    match phase {
        Phase::Resolve | Phase::Select | Phase::Connect => Cause::ConnectionTimedOut,
        Phase::Tls => Cause::TlsTimedOut,
        Phase::Send => Cause::SendTimedOut,
        Phase::Header => Cause::ResponseTimedOut,
        Phase::Body => Cause::BodyTimedOut,
    }
}

/// The errors of connect(2) and unix(7), and what a pending SO_ERROR can be.
fn connect_error(errno: Option<i32>, seen: &Observation<'_>) -> Cause {
    match errno.map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Cause::ConnectionRefused,
        Some(Errno::ETIMEDOUT) => Cause::ConnectionTimedOut,
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN) => {
            Cause::Unreachable
        }
        // A route of type blackhole (ip-route(8)), or a link-local address without a zone.
        Some(Errno::EINVAL) if !seen.unix => Cause::Unreachable,
        Some(Errno::EACCES | Errno::EPERM) => Cause::PermissionDenied,
        Some(Errno::ENOENT) => Cause::SocketNotFound,
        // connect(2): EAGAIN is a full backlog for a unix socket, a lack of ports otherwise.
        Some(Errno::EAGAIN) if seen.unix => Cause::ListenQueueFull,
        // With no address to connect from there is no way to the peer, ports or not: the "::1" of
        // a host without IPv6 for one.
        Some(Errno::EADDRNOTAVAIL) if seen.no_source_address => Cause::Unreachable,
        Some(Errno::EAGAIN | Errno::EADDRNOTAVAIL) => Cause::LocalPortsExhausted,
        Some(Errno::ECONNRESET | Errno::EPIPE) => Cause::ConnectionReset,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests;
