use serde_json::{Value, json};

use super::{
    Histogram, History, Module, PeerStatus, Snapshot, TakenOut, Timeline, Totals, Upstream, Usage,
    Worker, distinct,
};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::peer::State;
use crate::seconds::Seconds;

fn document(snapshot: &Snapshot) -> Value {
    let json = snapshot.to_json().unwrap();
    assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&json).unwrap()
}

fn counts(of: &[(Cause, u64)]) -> Vec<u64> {
    let mut counts = vec![0; Cause::ALL.len()];
    for (cause, count) in of {
        counts[cause.index()] = *count;
    }
    counts
}

fn upstream(name: &str, peers: Vec<PeerStatus>) -> Upstream {
    Upstream { name: name.into(), peers, ..Upstream::default() }
}

fn peer(name: &str, history: History) -> PeerStatus {
    PeerStatus { peer: Some(name.into()), history, ..PeerStatus::default() }
}

/// Guards against a worker that dies while it writes a record, and with that takes the document
/// from all the others.
#[test]
fn a_torn_record_does_not_break_the_document() {
    let recent = [r#"{"a":1}"#, r#"{"a":2"#, "", "\0\0", r#"{"a":3}{"a":4}"#, r#"{ "a": 5 }"#];
    let snapshot = Snapshot { recent: recent.map(str::to_owned).to_vec(), ..Snapshot::default() };
    assert_eq!(document(&snapshot)["recent"], json!([{"a": 1}, {"a": 5}]));
}

/// Guards against a key that is renamed or goes missing: the dashboards of others read them.
#[test]
fn everything_has_its_place() {
    let history = History {
        ok: 20,
        failed: 3,
        aborted: 1,
        causes: counts(&[(Cause::ConnectionRefused, 2), (Cause::Unknown, 1)]),
        last_ok: Some(Seconds::Millis(12_400)),
        last_failed: Some(Seconds::Millis(5)),
        last_cause: Some(Cause::ConnectionRefused),
        consecutive_failures: 2,
        taken_out: Some(TakenOut { cause: Cause::ConnectionRefused, ago: Seconds::Whole(3) }),
    };
    let out = PeerStatus {
        state: Some(State::Unavailable),
        unavailable_for: Some(Seconds::Whole(7)),
        backup: true,
        ..peer("127.0.0.1:1", history)
    };
    let snapshot = Snapshot {
        time: "2026-11-21T01:45:45.123+00:00".into(),
        module: Module { version: "0.1.0", nginx: "1.28.3".into() },
        worker: Worker {
            pid: 17,
            connections: Usage { used: 3, limit: 512 },
            files: Some(Usage { used: 9, limit: 1_024 }),
            accepted: Some(100),
            handled: Some(98),
        },
        totals: Totals {
            requests: 1_000,
            outcomes: vec![1, 2, 0, 0, 0],
            causes: counts(&[(Cause::ConnectionRefused, 3)]),
        },
        upstreams: vec![Upstream {
            outcomes: vec![0, 4],
            connect: Histogram { bounds: &[1, 250], counts: vec![2, 3, 4], sum: 1_500 },
            header: Histogram { bounds: &[256], counts: vec![5], sum: 1_000 },
            ..upstream("backend", vec![out, PeerStatus::default()])
        }],
        timeline: Timeline {
            step: 10,
            start: 1_795_225_540,
            steps: 3,
            causes: vec![(Cause::ConnectionRefused, vec![0, 2, 1])],
        },
        ..Snapshot::default()
    };
    let document = document(&snapshot);
    assert_eq!(document["v"], 1);
    assert_eq!(document["time"], "2026-11-21T01:45:45.123+00:00");
    let module = json!({"name": "ngx_http_upstream_diag_module", "version": "0.1.0"});
    assert_eq!(document["module"], module);
    assert_eq!(document["nginx"], json!({"version": "1.28.3"}));
    assert_eq!(
        document["worker"],
        json!({"pid": 17, "connections": {"used": 3, "limit": 512},
            "files": {"used": 9, "limit": 1024}, "accepted": 100, "handled": 98, "not_handled": 2})
    );
    let usage = json!({"used": 0, "limit": 0});
    let zone = json!({"bytes": 0, "used": 0, "peers": usage, "upstreams": usage, "records": 0});
    assert_eq!(document["zone"], zone);
    let dropped = json!({"records": 0, "lines": 0, "suppressed": 0, "peers": 0});
    assert_eq!(document["dropped"], dropped);
    assert_eq!(
        document["upstreams"],
        json!({"backend": {
            "failed": 0, "masked": 4, "truncated": 0, "passed": 0, "aborted": 0,
            "connect_seconds": {"bounds": [0.001, 0.25], "counts": [2, 3, 4], "count": 9, "sum": 1.5},
            "header_bytes": {"bounds": [256], "counts": [5, 0], "count": 5, "sum": 1000},
            "peers": [
                {"peer": "127.0.0.1:1", "state": "unavailable", "unavailable_for": 7,
                    "backup": true, "requests": 24, "ok": 20, "failed": 3, "aborted": 1,
                    "causes": {"connection_refused": 2, "unknown": 1},
                    "last_ok": 12.4, "last_failed": 0.005, "last_cause": "connection_refused",
                    "consecutive_failures": 2,
                    "taken_out": {"cause": "connection_refused", "ago": 3}},
                {"requests": 0, "ok": 0, "failed": 0, "aborted": 0, "causes": {},
                    "consecutive_failures": 0},
            ],
        }})
    );
    assert_eq!(
        document["timeline"],
        json!({"step": 10, "start": 1_795_225_540, "steps": 3,
            "causes": {"connection_refused": [0, 2, 1]}})
    );
    let totals = &document["totals"];
    assert_eq!((&totals["requests"], &totals["failed"]), (&json!(1_000), &json!(1)));
    assert_eq!(totals["causes"]["connection_refused"], 3);
    // Also those that did not happen.
    assert_eq!(totals["causes"].as_object().unwrap().len(), Cause::ALL.len());
    assert!(Outcome::ALL.iter().all(|outcome| totals[outcome.slug()].is_u64()));
}

/// Guards against a value that is guessed: what is not known is not there, not even as null.
#[test]
fn what_is_not_known_is_left_out() {
    let snapshot = Snapshot {
        upstreams: vec![upstream("", vec![PeerStatus::default()])],
        worker: Worker { accepted: Some(5), ..Worker::default() },
        ..Snapshot::default()
    };
    let document = document(&snapshot);
    assert!(!document.to_string().contains("null"), "{document}");
    assert_eq!(document["worker"].as_object().unwrap().len(), 3, "{document}");
    assert!(document["upstreams"][""]["connect_seconds"].is_null(), "there is none");
}

/// Guards against two upstreams of one name: of two keys with one name every reader drops one.
#[test]
fn one_name_is_one_key() {
    let history = |causes, failed, last_failed, last_cause| History {
        ok: 1,
        failed,
        causes,
        last_ok: Some(Seconds::Millis(u64::from(failed == 1))),
        last_failed,
        last_cause,
        consecutive_failures: failed,
        ..History::default()
    };
    let old = history(
        counts(&[(Cause::Unknown, 1)]),
        1,
        Some(Seconds::Millis(900)),
        Some(Cause::Unknown),
    );
    let new = history(
        counts(&[(Cause::TlsClosed, 2)]),
        2,
        Some(Seconds::Millis(100)),
        Some(Cause::TlsClosed),
    );
    let out = PeerStatus {
        state: Some(State::Unavailable),
        unavailable_for: Some(Seconds::Whole(5)),
        ..peer("p", old)
    };
    let up = PeerStatus { state: Some(State::Up), backup: true, ..peer("p", new) };
    let histogram = |sum| Histogram { bounds: &[1], counts: vec![sum], sum };
    let first = Upstream {
        outcomes: vec![1, 2],
        connect: histogram(1),
        ..upstream("a", vec![out.clone(), PeerStatus::default()])
    };
    let second = Upstream {
        outcomes: vec![1, 1, 1],
        connect: histogram(2),
        header: histogram(3),
        ..upstream("a", vec![up.clone(), peer("", History { ok: 5, ..History::default() })])
    };
    let third = upstream("b", vec![up, out]);
    let document =
        document(&Snapshot { upstreams: vec![first, third, second], ..Snapshot::default() });
    let (a, b) = (&document["upstreams"]["a"], &document["upstreams"]["b"]);
    assert_eq!((&a["failed"], &a["masked"], &a["truncated"]), (&json!(2), &json!(3), &json!(1)));
    assert_eq!(a["connect_seconds"]["counts"], json!([3, 0]));
    assert_eq!(a["header_bytes"]["sum"], 3);
    let merged = json!({"peer": "p", "state": "up", "requests": 5, "ok": 2, "failed": 3, "aborted": 0,
        "causes": {"tls_closed": 2, "unknown": 1}, "last_ok": 0.0, "last_failed": 0.1,
        "last_cause": "tls_closed", "consecutive_failures": 2});
    // Whichever of the two stands first.
    assert_eq!((&a["peers"][0], &b["peers"][0]), (&merged, &merged));
    assert_eq!((&a["peers"][1]["ok"], &a["peers"][1]["peer"]), (&json!(5), &Value::Null));
    assert_eq!(
        (a["peers"].as_array().unwrap().len(), b["peers"].as_array().unwrap().len()),
        (2, 1)
    );
}

/// Guards against a sum that overflows because a crash left nonsense in shared memory.
#[test]
fn nonsense_in_memory_is_survived() {
    let history = History {
        ok: u64::MAX,
        failed: u64::MAX,
        aborted: 1,
        causes: vec![u64::MAX; 1_000],
        consecutive_failures: u64::MAX,
        ..History::default()
    };
    let histogram = Histogram { bounds: &[1, 2], counts: vec![u64::MAX; 9], sum: u64::MAX };
    let all = Upstream {
        outcomes: vec![u64::MAX; 99],
        connect: histogram.clone(),
        header: histogram,
        ..upstream("a", vec![peer("p", history)])
    };
    let snapshot = Snapshot {
        worker: Worker { accepted: Some(1), handled: Some(2), ..Worker::default() },
        upstreams: vec![all.clone(), all],
        ..Snapshot::default()
    };
    let document = document(&snapshot);
    assert_eq!(document["worker"]["not_handled"], 0);
    assert_eq!(document["upstreams"]["a"]["peers"][0]["requests"], u64::MAX);
    assert_eq!(
        document["upstreams"]["a"]["connect_seconds"]["counts"].as_array().unwrap().len(),
        3
    );
}

/// Guards against an order that changes from one request to the next.
#[test]
fn the_order_is_kept() {
    let names = ["b", "a", "c", "a"];
    let upstreams = names.map(|name| upstream(name, vec![]));
    let found = distinct(&upstreams, str::to_owned);
    let found: Vec<&str> = found.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(found, ["b", "a", "c"]);
}
