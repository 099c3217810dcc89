use smallvec::smallvec;

use super::*;
use crate::json::object;
use crate::status::TakenOut;

#[test]
fn text_is_valid_and_bounded() {
    assert_eq!(text(b"plain"), "plain");
    assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(text(&[b'x'; 2_000]).len(), MAX_TEXT);
    // 'é' across the bound.
    let mut long = vec![b'x'; MAX_TEXT - 1];
    long.extend_from_slice("é and more".as_bytes());
    assert_eq!(text(&long), "x".repeat(MAX_TEXT - 1));
}

/// Guards against findings that do not reach those who read records, and an empty list in each.
#[test]
fn findings_follow_the_advice() {
    let json = |header| {
        let attempt = Attempt {
            cause: Some(Cause::HeaderTooBig),
            phase: Some(Phase::Header),
            header,
            ..Attempt::default()
        };
        let parts = Parts {
            request: Request::default(),
            outcome: Outcome::Failed,
            upstream: Some("app".into()),
            module: Some("proxy"),
            request_time: Seconds::Millis(4),
            own: None,
            attempts: smallvec![Shown::Made(attempt.into())],
            past: None,
            peers: &[],
            context: &Context::default(),
        };
        let arena = Arena::new();
        Record::new(&parts, &arena).unwrap().to_json()
    };
    let directive = Some("proxy_buffer_size");
    let header = Header { size: 9_043, exact: true, limit: 4_096, reserved: 0, directive };
    let with = json(Some(header));
    let findings =
        r#"or more.","findings":[{"code":"buffer_too_small","confidence":"certain","text":"#;
    assert!(with.contains(findings), "{with}");
    let evidence =
        r#""evidence":{"size":9043,"exact":true,"limit":4096,"set":"12k"}}],"upstream":"app""#;
    assert!(with.contains(evidence), "{with}");
    assert!(!json(None).contains("findings"));
}

/// Guards against a peer with one parameter being taken for one without.
#[test]
fn peers_with_and_without_parameters() {
    let plain = PeerState {
        state: State::Up,
        fails: 0,
        max_fails: 1,
        fail_timeout: Seconds::Whole(10),
        unavailable_for: None,
        down: false,
        backup: false,
        weight: 1,
        conns: 0,
        max_conns: 0,
    };
    let json = |state: &PeerState| {
        let attempt = Attempt { peer_state: Some(state.clone()), ..Attempt::default() };
        let mut out = Vec::new();
        object(&mut out, |o| attempt.members(o));
        String::from_utf8(out).unwrap()
    };
    let says = |down, backup, weight, conns, max_conns| {
        format!(
            r#"{{"peer_state":{{"state":"up","fails":0,"max_fails":1,"fail_timeout":10,"down":{down},"backup":{backup},"weight":{weight},"conns":{conns},"max_conns":{max_conns}}}}}"#
        )
    };
    assert_eq!(json(&plain), says(false, false, 1, 0, 0));
    let with = plain.clone();
    assert_eq!(json(&PeerState { down: true, ..with.clone() }), says(true, false, 1, 0, 0));
    assert_eq!(json(&PeerState { backup: true, ..with.clone() }), says(false, true, 1, 0, 0));
    assert_eq!(json(&PeerState { weight: 2, ..with.clone() }), says(false, false, 2, 0, 0));
    assert_eq!(json(&PeerState { conns: 1, ..with.clone() }), says(false, false, 1, 1, 0));
    assert_eq!(json(&PeerState { max_conns: 1, ..with }), says(false, false, 1, 0, 1));
}

/// Guards against a peer that is out for what nginx alone counts, being said to be out for a failure
/// that was over long before.
#[test]
fn what_took_a_peer_out() {
    let report = |state, counted, last_failed, taken_out| {
        let mut report = PeerReport {
            peer: "10.0.3.7:8080".into(),
            state,
            unavailable_for: None,
            backup: false,
            max_fails: 1,
            counted: Seconds::Whole(counted),
            last_cause: None,
            last_failed: None,
        };
        let out = |ago| TakenOut { cause: Cause::ConnectionRefused, ago: Seconds::Whole(ago) };
        report.set_history(&History {
            last_failed: Some(Seconds::Whole(last_failed)),
            last_cause: Some(Cause::ClosedInHeader),
            taken_out: Some(out(taken_out)),
            ..History::default()
        });
        report.last_cause
    };
    assert_eq!(report(State::Unavailable, 3, 3, 8), Some(Cause::ConnectionRefused));
    // Noted when its request ended, and counted in whole seconds.
    assert_eq!(report(State::Unavailable, 30, 3, 8), Some(Cause::ConnectionRefused));
    assert_eq!(report(State::Unavailable, 2, 3, 8), Some(Cause::ConnectionRefused));
    assert_eq!(report(State::Unavailable, 1, 3, 8), None);
    assert_eq!(report(State::Up, 1, 3, 8), Some(Cause::ClosedInHeader));
}
