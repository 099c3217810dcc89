mod closes;
mod modules;
mod outcomes;

use super::*;
use crate::cause::Phase;
use crate::findings::{Context, Evidence, findings};
use crate::record::{Header, PeerName, Tally, Tcp};
use crate::seconds::Seconds;
use crate::zone::{Closes, Cluster, Past};

/// What is said of a request: what is not given is as in an ordinary one.
struct Case<'a> {
    cause: Cause,
    failed: Attempt,
    past: Past,
    upstream: Option<&'a str>,
    module: &'a str,
    outcome: Outcome,
    status: u16,
    peers: &'a [PeerReport],
    context: Context,
}

fn case(cause: Cause, failed: Attempt) -> Case<'static> {
    Case {
        cause,
        failed: Attempt { cause: Some(cause), ..failed },
        past: Past::default(),
        upstream: Some("app"),
        module: "proxy",
        outcome: Outcome::Failed,
        status: 502,
        peers: &[],
        context: Context { is_block: true, ..Context::default() },
    }
}

impl Case<'_> {
    fn said(&self) -> (String, String) {
        let (upstream, module) = (self.upstream.map(Name::from), Some(self.module));
        let arena = Arena::new();
        let findings = findings(&Evidence {
            cause: self.cause,
            failed: &self.failed,
            past: Some(&self.past),
            outcome: self.outcome,
            upstream,
            module,
            method: b"GET",
            peers: self.peers,
            context: &self.context,
            arena: &arena,
        });
        let concluded = findings.iter().find_map(|finding| finding.advice);
        let facts = Facts {
            cause: self.cause,
            failed: &self.failed,
            upstream,
            module,
            outcome: self.outcome,
            status: self.status,
            peers: self.peers,
            findings: &findings,
            arena: &arena,
        };
        (summary(&facts).to_string(), advice(&facts, concluded).to_string())
    }

    fn summary(&self) -> String {
        self.said().0
    }

    fn advice(&self) -> String {
        self.said().1
    }
}

fn attempt() -> Attempt {
    Attempt { peer: Some("10.0.3.7:8080".into()), phase: Some(Phase::Header), ..Attempt::default() }
}

fn with_tcp(idle: u64, since_sent: u64) -> Attempt {
    let tcp = Tcp {
        state: "CLOSE_WAIT",
        rtt: Seconds::Micros(39),
        retransmits: 0,
        idle: Some(Seconds::Millis(idle)),
        since_sent: Some(Seconds::Millis(since_sent)),
    };
    Attempt { tcp: Some(tcp), ..attempt() }
}

fn with_errno(errno: i32) -> Attempt {
    Attempt { errno: Some(errno), ..attempt() }
}

fn with_message(message: &str) -> Attempt {
    Attempt { message: Some(message.into()), ..attempt() }
}

fn peer(state: State, last_cause: Option<Cause>) -> PeerReport {
    PeerReport {
        peer: "10.0.3.7:8080".into(),
        state,
        unavailable_for: None,
        backup: false,
        max_fails: 1,
        counted: Seconds::Whole(0),
        last_cause,
        last_failed: None,
    }
}

/// The line that all this is for.
#[test]
fn a_keepalive_race_with_a_history() {
    let cluster = Cluster { from: 4_990, to: 5_020, mean: 5_001, count: 214, latest: 16 };
    let idle = Closes { total: 216, latest: 16, clusters: vec![cluster] };
    let past = Past { ok: 90_000, last_ok: Some(20), idle, ..Past::default() };
    let race = case(Cause::KeepaliveRace, with_tcp(5_003, 1));
    let (summary, advice) = Case { past, ..race }.said();
    assert_eq!(
        summary,
        "10.0.3.7:8080 closed a reused connection 5.00 s after its last response, before sending a byte; \
         214 of 216 closes of reused connections happened at 5.0 s: its keep-alive timeout is 5 s."
    );
    assert_eq!(advice, "Set keepalive_timeout 4s in upstream \"app\", or raise the backend's.");
}

#[test]
fn connections() {
    let refused = case(Cause::ConnectionRefused, with_errno(111));
    assert_eq!(refused.summary(), "10.0.3.7:8080 refused the connection (ECONNREFUSED).");
    let late = Attempt { connect_time: Some(Seconds::Millis(60_001)), ..with_errno(110) };
    let late = case(Cause::ConnectionTimedOut, late);
    assert_eq!(
        late.summary(),
        "10.0.3.7:8080 did not answer the connection attempt within 60.001 s."
    );
    assert_eq!(
        late.advice(),
        "Try nc -vz 10.0.3.7 8080 from this host: a firewall, a wrong address, a dead host or a full accept queue. Raise proxy_connect_timeout only for a slow network."
    );
    assert!(Case { module: "grpc", ..late }.advice().contains(" grpc_connect_timeout "));
    let blackhole = case(Cause::Unreachable, with_errno(22));
    assert_eq!(
        blackhole.summary(),
        "10.0.3.7:8080 cannot be reached: the network or host is unreachable (EINVAL)."
    );
    let unix = Attempt { peer: Some("unix:/run/a.sock".into()), ..attempt() };
    assert_eq!(
        case(Cause::ConnectionRefused, unix).advice(),
        "Nobody listens on the socket: start the upstream (ss -lx lists who listens), or, if the file is no socket (ls -l), correct the path."
    );
}

/// Guards against a permission of a file's being looked for where there is no file, and against a
/// file of nginx's own being put down to memory.
#[test]
fn what_this_host_forbids() {
    let advice = |cause, peer: &str, message: &str| {
        let failed = Attempt { peer: Some(peer.into()), ..with_message(message) };
        let said = case(cause, failed).advice();
        assert!(said.len() <= LONGEST, "{} bytes: {said}", said.len());
        said
    };
    let unix = advice(Cause::PermissionDenied, "unix:/run/a.sock", "");
    assert!(unix.contains("write permission") && !unix.contains("firewall"), "{unix}");
    let tcp = advice(Cause::PermissionDenied, "10.0.3.7:8080", "");
    assert!(tcp.contains("firewall") && !tcp.contains("write permission"), "{tcp}");
    let failed = "\"/var/lib/nginx/proxy/1/00/0000000001\" failed (13: Permission denied)";
    for (message, is_file) in [
        (format!("open() {failed}"), true),
        (format!("pwritev() {failed}"), true),
        ("malloc(4096) failed (12: Cannot allocate memory)".into(), false),
        (failed.into(), false),
    ] {
        let said = advice(Cause::InternalError, "10.0.3.7:8080", &message);
        assert_eq!(said.contains("a file of its own"), is_file, "{message}: {said}");
    }
}

#[test]
fn timeouts() {
    let slow = |attempt| Attempt {
        elapsed: Some(Seconds::Millis(60_001)),
        errno: Some(110),
        bytes_sent: Some(212_992),
        bytes_received: Some(4_711),
        ..attempt
    };
    let response = |arrived| {
        let failed = Attempt { arrived, bytes_received: Some(0), ..slow(attempt()) };
        case(Cause::ResponseTimedOut, failed).summary()
    };
    assert_eq!(response(None), "10.0.3.7:8080 sent no response header within 60.001 s.");
    assert_eq!(
        case(Cause::ResponseTimedOut, attempt()).summary(),
        "10.0.3.7:8080 sent no response header in time."
    );
    assert_eq!(
        response(Some(true)),
        "10.0.3.7:8080 sent no response header within 60.001 s, though its host has received the whole request."
    );
    assert_eq!(
        response(Some(false)),
        "10.0.3.7:8080 sent no response header within 60.001 s, and its host has not acknowledged all of the request."
    );
    // A part of the header that has come is not nothing.
    let part = Attempt { bytes_received: Some(28), arrived: Some(true), ..slow(attempt()) };
    assert_eq!(
        case(Cause::ResponseTimedOut, part).summary(),
        "10.0.3.7:8080 sent no complete response header within 60.001 s, only 28 bytes, though its host has received the whole request."
    );
    let lost = Attempt { arrived: Some(false), ..slow(attempt()) };
    assert_eq!(
        case(Cause::ResponseTimedOut, lost).advice(),
        "The upstream's host does not acknowledge what is sent: see whether it is up and reachable (nc -vz 10.0.3.7 8080), and whether a device between lost the connection."
    );
    assert_eq!(
        case(Cause::SendTimedOut, slow(attempt())).summary(),
        "10.0.3.7:8080 stopped taking the request: after 212992 bytes it took no more within proxy_send_timeout, 60.001 s in all."
    );
    let body = case(Cause::BodyTimedOut, slow(with_tcp(60_000, 60_120)));
    assert_eq!(
        body.summary(),
        "10.0.3.7:8080 stopped sending in the middle of the body: after 4711 bytes of the response nothing came for 60.00 s."
    );
    let fastcgi = Case { module: "fastcgi", ..case(Cause::BodyTimedOut, slow(attempt())) };
    assert_eq!(
        fastcgi.summary(),
        "10.0.3.7:8080 stopped sending in the middle of the body: after 4711 bytes of the response nothing came within fastcgi_read_timeout."
    );
    let tunnel = Attempt { status: Some(101), ..slow(with_tcp(60_000, 60_120)) };
    let tunnel = case(Cause::BodyTimedOut, tunnel);
    assert_eq!(tunnel.summary(), "10.0.3.7:8080 sent nothing through the tunnel for 60.00 s.");
    assert_eq!(
        tunnel.advice(),
        "Have the client or the upstream send pings (WebSocket has them) more often than proxy_read_timeout, or raise proxy_read_timeout."
    );
    assert!(body.advice().starts_with("Find what the upstream is waiting for"));
}

/// Names that others chose are shown where nginx quotes them, and bounded.
#[test]
fn names_in_messages() {
    for (cause, message, says) in [
        (
            Cause::TlsNameMismatch,
            "upstream SSL certificate does not match \"api.example.com\"",
            "10.0.3.7:8080 presented a certificate that is not for \"api.example.com\".",
        ),
        (
            Cause::TlsNameMismatch,
            "something else about \"api.example.com\"",
            "10.0.3.7:8080 presented a certificate for another name.",
        ),
        (
            Cause::InvalidHeader,
            "upstream sent invalid header: \"X A\\x20...\"",
            "10.0.3.7:8080 sent an invalid header line: \"X A\\x20...\".",
        ),
        (
            Cause::InvalidHeader,
            "upstream sent truncated http2 header",
            "10.0.3.7:8080 sent a response header that is not valid.",
        ),
        (
            Cause::InvalidUpstreamUrl,
            "invalid port in upstream \"b.test:x\"",
            "The address that the location's pass directive was given through variables is not one nginx can use: invalid port in \"b.test:x\".",
        ),
        (
            Cause::StreamReset,
            "upstream rejected request with error 7",
            "10.0.3.7:8080 reset the HTTP/2 stream (RST_STREAM) with the error code REFUSED_STREAM (7).",
        ),
        // Guards against a GOAWAY being called a reset of the stream.
        (
            Cause::StreamReset,
            "upstream sent goaway with error 99",
            "10.0.3.7:8080 ended the HTTP/2 connection (GOAWAY) with the error code 99.",
        ),
        (
            Cause::Unknown,
            "something new",
            "The request to 10.0.3.7:8080 failed, and the error nginx logged is not one this module knows: something new.",
        ),
    ] {
        assert_eq!(case(cause, with_message(message)).summary(), says);
    }
    let hostile = Attempt { peer: Some("unix:/a\r\nX: y".into()), ..Attempt::default() };
    let said = case(Cause::SocketNotFound, hostile).summary();
    assert!(said.starts_with("unix:/a??X: y does not exist"), "{said}");
}

#[test]
fn groups_without_a_server_left() {
    let group = Attempt { peer: Some("app".into()), phase: Some(Phase::Select), ..attempt() };
    let none = case(Cause::NoLiveUpstreams, group);
    assert_eq!(
        none.summary(),
        "Upstream \"app\": nginx had no server of the group left to try: each is down, was taken out after failures or had been tried."
    );
    let refused = Some(Cause::ConnectionRefused);
    let all = [
        peer(State::Unavailable, refused),
        peer(State::Unavailable, Some(Cause::ResponseTimedOut)),
        peer(State::Unavailable, refused),
        peer(State::Down, None),
        peer(State::Up, None),
    ];
    let mixed = Case { peers: &all, ..none };
    assert_eq!(
        mixed.summary(),
        "Upstream \"app\": none of its 5 servers was left to try: 1 is marked down, 3 were taken out after failures (connection_refused, response_timed_out) and 1 had been tried."
    );
    assert!(mixed.advice().starts_with("Find what took the servers out"));
    let down = [peer(State::Down, None), peer(State::Down, None)];
    let down = Case { peers: &down, ..mixed };
    assert_eq!(
        down.summary(),
        "Upstream \"app\": neither of its 2 servers was left to try: both are marked down."
    );
    assert_eq!(
        down.advice(),
        "Every server of this upstream is marked \"down\" in the configuration: take that from one of them."
    );
    let three = [peer(State::Down, None), peer(State::Down, None), peer(State::Down, None)];
    assert_eq!(
        Case { peers: &three, ..case(Cause::NoLiveUpstreams, attempt()) }.summary(),
        "Upstream \"app\": none of its 3 servers was left to try: all are marked down."
    );
    let busy = [peer(State::Busy, None)];
    let full = Case { cause: Cause::MaxConnsReached, peers: &busy, ..down };
    assert_eq!(
        full.summary(),
        "Upstream \"app\": its only server could not be chosen: it is at max_conns."
    );
}

#[test]
fn names_that_could_not_be_resolved() {
    let failed = Attempt { phase: Some(Phase::Resolve), ..Attempt::default() };
    let none = Case { upstream: Some("a.test"), ..case(Cause::DnsNotFound, failed) };
    assert_eq!(
        none.summary(),
        "a.test could not be resolved: the resolver says that the upstream's name does not exist (NXDOMAIN)."
    );
}

#[test]
fn headers_that_are_too_big() {
    let header = |reserved| Attempt {
        header: Some(Header {
            size: 3_900,
            exact: true,
            limit: 4_096,
            reserved,
            directive: Some("proxy_buffer_size"),
        }),
        ..attempt()
    };
    assert_eq!(
        case(Cause::HeaderTooBig, header(0)).summary(),
        "10.0.3.7:8080 sent a response header of 3900 bytes; proxy_buffer_size is 4096."
    );
    assert_eq!(
        case(Cause::HeaderTooBig, header(352)).summary(),
        "10.0.3.7:8080 sent a response header of 3900 bytes; proxy_buffer_size is 4096, 352 of which the cache needs."
    );
    assert!(case(Cause::HeaderTooBig, attempt()).advice().starts_with("Raise the buffer size"));
}

/// Guards against advice that does not fit two lines, and against another module's directives.
#[test]
fn advice_is_short_and_names_the_right_directives() {
    let far: Option<PeerName> = Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into());
    for module in ["proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"] {
        for cause in Cause::ALL {
            let failed = Attempt { peer: far.clone(), ..attempt() };
            let said = Case { module, ..case(*cause, failed) }.advice();
            assert!(said.len() <= LONGEST, "{} bytes: {said}", said.len());
            let lost = Attempt { peer: far.clone(), arrived: Some(false), ..attempt() };
            let lost = Case { module, ..case(*cause, lost) }.advice();
            assert!(lost.len() <= LONGEST, "{} bytes: {lost}", lost.len());
            let foreign = module != "proxy" && said.contains("proxy_");
            assert!(!foreign, "{module}: {said}");
        }
    }
    let other = Case { module: "something", ..case(Cause::ResponseTimedOut, attempt()) };
    assert!(other.advice().contains("raise proxy_read_timeout"));
}
