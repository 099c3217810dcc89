use super::*;
use crate::record::Header;
use crate::zone::{Closes, Cluster};

fn too_big(exact: bool) -> Case {
    case(Cause::HeaderTooBig).with(|case| {
        let directive = Some("proxy_buffer_size");
        let header = Header { size: 9_043, exact, limit: 4_096, reserved: 0, directive };
        case.failed.header = Some(header);
    })
}

#[test]
fn buffer_too_small() {
    too_big(true).expect(
        Code::BufferTooSmall,
        Confidence::Certain,
        "The response header of 9043 bytes does not fit into proxy_buffer_size, which is 4096: 12k is enough.",
        r#"{"size":9043,"exact":true,"limit":4096,"set":"12k"}"#,
        "Set proxy_buffer_size 12k; or make the upstream send less, large Set-Cookie headers are the usual reason. Where proxy_busy_buffers_size is set, it has to be 12k or more.",
    );
    too_big(false).expect(
        Code::BufferTooSmall,
        Confidence::Likely,
        "The response header of at least 9043 bytes does not fit into proxy_buffer_size, which is 4096: 12k is the least that can do.",
        r#"{"size":9043,"exact":false,"limit":4096,"set":"12k"}"#,
        "Set proxy_buffer_size to at least 12k: the header's end was not seen; or make the upstream send less. Where proxy_busy_buffers_size is set, it has to be 12k or more.",
    );
    let cached = too_big(true).with(|case| {
        if let Some(header) = &mut case.failed.header {
            (header.size, header.reserved) = (3_900, 352);
        }
    });
    let code = Code::BufferTooSmall;
    assert_eq!(
        cached.find(code).unwrap().text.to_string(),
        "The response header of 3900 bytes does not fit into proxy_buffer_size, which is 4096, 352 of which the cache needs: 8k is enough."
    );
    assert!(too_big(true).with(|case| case.failed.header = None).is_silent(code));
    // A header of any size that nginx took.
    assert!(too_big(true).with(|case| case.cause = Cause::ClosedInHeader).is_silent(code));
}

fn ejected() -> Case {
    case(Cause::KeepaliveRace)
        .with(|case| {
            case.failed.tcp = tcp(5_003, 1);
            case.failed.peer_state = Some(PeerState {
                state: State::Unavailable,
                fails: 1,
                max_fails: 1,
                fail_timeout: Seconds::Whole(10),
                unavailable_for: Some(Seconds::Whole(10)),
                down: false,
                backup: false,
                weight: 1,
                conns: 0,
                max_conns: 0,
            });
        })
        .with_past(|past| (past.last_ok, past.failures) = (Some(800), 1))
}

fn state(case: &mut Case) -> &mut PeerState {
    case.failed.peer_state.as_mut().unwrap()
}

#[test]
fn ejected_healthy() {
    ejected().expect(
        Code::EjectedHealthy,
        Confidence::Possible,
        "nginx took 10.0.3.7:8080 out for 10 s because one reused connection was closed (max_fails=1), although its last good answer was 0.80 s ago.",
        r#"{"peer":"10.0.3.7:8080","max_fails":1,"fail_timeout":10,"last_ok":0.800}"#,
        "Set keepalive_timeout in upstream \"app\" below the upstream's own keep-alive timeout; until then set max_fails=3 for its servers, so that one close takes none of them out.",
    );
    let known = ejected().with_past(|past| {
        let cluster = Cluster { from: 4_990, to: 5_040, mean: 5_000, count: 9, latest: 9 };
        past.idle = Closes { total: 9, latest: 9, clusters: vec![cluster] };
    });
    assert_eq!(known.sure(Code::EjectedHealthy), Confidence::Likely);
}

#[test]
fn near_misses_of_ejected_healthy() {
    let code = Code::EjectedHealthy;
    assert!(ejected().with(|case| state(case).state = State::Up).is_silent(code));
    assert!(ejected().with(|case| state(case).max_fails = 3).is_silent(code));
    assert!(ejected().with(|case| case.cause = Cause::ConnectionReset).is_silent(code));
    // It failed before that, never worked, was at work, or closes in the middle of requests.
    assert!(ejected().with_past(|past| past.failures = 2).is_silent(code));
    assert!(ejected().with_past(|past| past.last_ok = None).is_silent(code));
    assert!(ejected().with(|case| case.failed.tcp = tcp(5_003, 500)).is_silent(code));
    assert!(ejected().with_past(|past| past.waiting.total = 1).is_silent(code));
}

/// The same, seen when nobody is left.
#[test]
fn ejected_healthy_before() {
    let peer = |n: u8, state, last_cause| PeerReport {
        peer: format!("10.0.3.{n}:8080"),
        state,
        unavailable_for: None,
        backup: false,
        max_fails: 1,
        counted: Seconds::Whole(0),
        last_cause,
        last_failed: None,
    };
    let race = Some(Cause::KeepaliveRace);
    let none = case(Cause::NoLiveUpstreams).with(|case| {
        case.peers = vec![
            peer(1, State::Unavailable, Some(Cause::ConnectionRefused)),
            peer(2, State::Unavailable, race),
            peer(3, State::Unavailable, race),
        ];
    });
    none.expect(
        Code::EjectedHealthy,
        Confidence::Possible,
        "nginx took 10.0.3.2:8080 and 10.0.3.3:8080 out because a reused connection of each was closed, which need not be a failure.",
        r#"{"peers":["10.0.3.2:8080","10.0.3.3:8080"],"ejected":2}"#,
        "Set keepalive_timeout in upstream \"app\" below the upstream's own: the failures just before were closes of idle connections. Until then set max_fails=3 for its servers.",
    );
    let said = |n: u8| {
        let out = none.with(|case| {
            case.peers = (1..=n).map(|n| peer(n, State::Unavailable, race)).collect();
        });
        let finding = out.find(Code::EjectedHealthy).unwrap();
        let Some(Fact::Texts(names)) = finding.evidence.get(Key::Peers) else { panic!("names") };
        let Some(Fact::Count(ejected)) = finding.evidence.get(Key::Ejected) else { panic!("n") };
        (finding.text.to_string(), names.len(), *ejected)
    };
    assert!(said(1).0.starts_with("nginx took 10.0.3.1:8080 out because a reused connection was"));
    let (text, listed, ejected) = said(40);
    assert_eq!(
        text,
        "nginx took 10.0.3.1:8080, 10.0.3.2:8080, 10.0.3.3:8080, 10.0.3.4:8080 and 36 more out because a reused connection of each was closed, which need not be a failure."
    );
    assert_eq!((listed, ejected), (16, 40));
    let up = none.with(|case| case.peers = vec![peer(2, State::Up, race)]);
    assert!(up.is_silent(Code::EjectedHealthy));
    // It took more than that one close.
    let thrice = none.with(|case| case.peers.iter_mut().for_each(|peer| peer.max_fails = 3));
    assert!(thrice.is_silent(Code::EjectedHealthy));
}

#[test]
fn not_retried() {
    let why = |reason| {
        let case = case(Cause::ClosedBeforeResponse).with(|case| {
            case.context.not_retried = Some(reason);
            case.context.conditions = vec!["timeout"];
            case.method = "POST";
        });
        let finding = case.find(Code::NotRetried).unwrap();
        assert_eq!((finding.confidence, finding.advice.is_none()), (Confidence::Certain, true));
        (finding.text.to_string(), finding.evidence.to_json())
    };
    for (reason, text, evidence) in [
        (
            NotRetried::NotConfigured,
            "proxy_next_upstream does not name error.",
            r#"{"reason":"not_configured","servers":3}"#,
        ),
        (
            NotRetried::NonIdempotent,
            "the request (POST) may have been carried out, and proxy_next_upstream does not name non_idempotent.",
            r#"{"reason":"non_idempotent","servers":3}"#,
        ),
        (
            NotRetried::Tries(2),
            "proxy_next_upstream_tries is 2.",
            r#"{"reason":"tries","servers":3,"tries":2}"#,
        ),
        (
            NotRetried::Timeout(Seconds::Millis(5_000)),
            "proxy_next_upstream_timeout (5.000 s) was over.",
            r#"{"reason":"timeout","servers":3,"timeout":5.000}"#,
        ),
        (
            NotRetried::NoServerLeft,
            "each had been tried, is down or out.",
            r#"{"reason":"no_server_left","servers":3}"#,
        ),
        (
            NotRetried::RequestNotBuffered,
            "a part of the request had been sent, and it is not buffered.",
            r#"{"reason":"request_not_buffered","servers":3}"#,
        ),
        (
            NotRetried::ResponseStarted,
            "the client had got a part of the response.",
            r#"{"reason":"response_started","servers":3}"#,
        ),
    ] {
        let text = format!("nginx tried no other server of \"app\": {text}");
        assert_eq!(why(reason), (text, evidence.to_owned()));
    }
}

/// The condition that would have to be there is that of the failure.
#[test]
fn conditions_of_failures() {
    for (cause, status, condition) in [
        (Cause::ConnectionRefused, 502, "error"),
        (Cause::ConnectionTimedOut, 504, "timeout"),
        // By the kernel, before nginx's own timer.
        (Cause::ConnectionTimedOut, 502, "error"),
        (Cause::ResponseTimedOut, 504, "timeout"),
        (Cause::HeaderTooBig, 502, "invalid_header"),
        (Cause::StreamReset, 502, "invalid_header"),
        (Cause::UpstreamResponse, 503, "http_503"),
    ] {
        let case = case(cause).with(|case| {
            case.failed.status = Some(status);
            case.context.not_retried = Some(NotRetried::NotConfigured);
            case.context.conditions = vec!["http_500"];
            case.module = "fastcgi";
        });
        let text = case.find(Code::NotRetried).unwrap().text.to_string();
        let ends = format!(": fastcgi_next_upstream does not name {condition}.");
        assert!(text.ends_with(&ends), "{text}");
        let newer = case.with(|case| case.module = "proxy_v2");
        let newer = newer.find(Code::NotRetried).unwrap();
        assert!(
            newer.text.to_string().contains(": proxy_next_upstream does not"),
            "{}",
            newer.text.to_string()
        );
        let named = case.with(|case| case.context.conditions = vec![condition]);
        assert!(named.is_silent(Code::NotRetried), "{cause:?}");
    }
}

/// Guards against the true reason being hidden by there being one server: nginx tries that again
/// where a reused connection failed, so a GET would have been answered.
#[test]
fn a_single_server_is_tried_again() {
    let race = |method, reason, conditions: &[&'static str]| {
        let case = case(Cause::KeepaliveRace).with(|case| {
            case.context.servers = Some(1);
            case.context.not_retried = Some(reason);
            case.context.conditions = conditions.to_vec();
            case.method = method;
        });
        let finding = case.find(Code::NotRetried).unwrap();
        (finding.text.to_string(), finding.evidence.to_json())
    };
    assert_eq!(
        race("POST", NotRetried::NonIdempotent, &["error", "timeout"]),
        (
            "nginx did not try again on a fresh connection: the request (POST) may have been carried out, and proxy_next_upstream does not name non_idempotent.".into(),
            r#"{"reason":"non_idempotent","servers":1}"#.into()
        )
    );
    assert_eq!(
        race("GET", NotRetried::NotConfigured, &[]).0,
        "nginx did not try again on a fresh connection: proxy_next_upstream is off."
    );
    assert_eq!(
        race("GET", NotRetried::NotConfigured, &["timeout"]).0,
        "nginx did not try again on a fresh connection: proxy_next_upstream does not name error."
    );
}

#[test]
fn near_misses_of_not_retried() {
    let failed = case(Cause::ClosedBeforeResponse)
        .with(|case| case.context.not_retried = Some(NotRetried::NonIdempotent));
    let code = Code::NotRetried;
    assert!(!failed.is_silent(code));
    assert!(failed.with(|case| case.context.not_retried = None).is_silent(code));
    for outcome in [Outcome::Masked, Outcome::Aborted] {
        assert!(failed.with(|case| case.outcome = outcome).is_silent(code));
    }
    // Of the only server, for which no try is left, another finding tells.
    for reason in [NotRetried::NoServerLeft, NotRetried::ResponseStarted] {
        let only = failed.with(|case| {
            (case.context.servers, case.context.not_retried) = (Some(1), Some(reason));
        });
        assert!(only.is_silent(code));
    }
    let made_up = failed.with(|case| case.method = "A\r\nB: c");
    assert!(made_up.find(code).unwrap().text.to_string().contains("the request (its method) may"));
}

#[test]
fn single_server() {
    let one = case(Cause::ConnectionRefused).with(|case| case.context.servers = Some(1));
    let code = Code::SingleServer;
    one.expect(
        code,
        Confidence::Certain,
        "Upstream \"app\" has one server: there is no other to try, and max_fails does not take the only one out.",
        r#"{"servers":1}"#,
        "",
    );
    assert!(one.with(|case| case.context.servers = Some(2)).is_silent(code));
    assert!(one.with(|case| case.context.servers = None).is_silent(code));
    assert!(one.with(|case| case.context.is_block = false).is_silent(code));
    for cause in [Cause::HeaderTooBig, Cause::TlsCertificateError, Cause::ProtocolMismatch] {
        assert!(one.with(|case| case.cause = cause).is_silent(code), "{cause:?}");
    }
    // Another server would have made no difference, or the client noticed nothing.
    assert!(one.with(|case| case.cause = Cause::LocalFdsExhausted).is_silent(code));
    assert!(one.with(|case| case.failed.phase = Some(Phase::Body)).is_silent(code));
    assert!(one.with(|case| case.outcome = Outcome::Masked).is_silent(code));
}
