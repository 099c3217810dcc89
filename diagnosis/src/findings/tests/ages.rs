use super::*;
use crate::zone::{Closes, Cluster, Spared};

fn closes(count: u64, total: u64) -> Closes {
    let latest = total.min(16);
    let cluster = Cluster { from: 4_990, to: 5_040, mean: 5_003, count, latest: count.min(latest) };
    let noise = Cluster { from: 1_000, to: 1_000, mean: 1_000, count: 1, latest: 0 };
    Closes { total, latest, clusters: vec![noise, cluster] }
}

fn race() -> Case {
    case(Cause::KeepaliveRace)
        .with(|case| case.failed.tcp = tcp(5_003, 1))
        .with_past(|past| past.idle = closes(214, 216))
}

fn closed() -> Case {
    case(Cause::ClosedBeforeResponse)
        .with(|case| case.failed.tcp = tcp(9, 5_002))
        .with_past(|past| past.waiting = closes(9, 9))
}

#[test]
fn idle_timeout() {
    race().with(|case| case.context.keepalive_timeout = Some(Seconds::Whole(60))).expect(
        Code::IdleTimeout,
        Confidence::Likely,
        "214 of 216 closes of reused connections happened 5.0 s after the last response: the keep-alive timeout of 10.0.3.7:8080 is 5 s, and nginx keeps idle connections for 60 s.",
        r#"{"age":5.002,"from":4.990,"to":5.040,"at_age":214,"closes":216,"latest":16,"latest_at_age":16,"keepalive_timeout":60.000,"set":"4s"}"#,
        "Set keepalive_timeout 4s in upstream \"app\", or raise the backend's.",
    );
    let few = race().with_past(|past| past.idle = closes(3, 3));
    few.expect(
        Code::IdleTimeout,
        Confidence::Possible,
        "3 of 3 closes of reused connections happened 5.0 s after the last response: the keep-alive timeout of 10.0.3.7:8080 may be 5 s.",
        r#"{"age":5.002,"from":4.990,"to":5.040,"at_age":3,"closes":3,"latest":3,"latest_at_age":3,"set":"4s"}"#,
        "Set keepalive_timeout 4s in upstream \"app\", or raise the backend's.",
    );
    let alone = race().with(|case| case.context.is_block = false);
    assert_eq!(
        alone.find(Code::IdleTimeout).unwrap().advice.unwrap().to_string(),
        "Set keepalive_timeout 4s in the upstream block, or raise the backend's."
    );
}

/// A timeout that was changed is known by the latest closes.
#[test]
fn a_changed_idle_timeout() {
    let changed = race().with_past(|past| {
        past.idle = closes(14, 230);
        past.idle.clusters[1].latest = 14;
    });
    let finding = changed.find(Code::IdleTimeout).unwrap();
    assert_eq!(finding.confidence, Confidence::Likely);
    assert!(
        finding.text.to_string().starts_with("14 of the latest 16 closes of reused"),
        "{}",
        finding.text.to_string()
    );
}

#[test]
fn near_misses_of_an_idle_timeout() {
    let code = Code::IdleTimeout;
    // This one was closed at another age: that was something else.
    assert!(race().with(|case| case.failed.tcp = tcp(3_001, 1)).is_silent(code));
    // Two can be chance.
    assert!(race().with_past(|past| past.idle = closes(2, 2)).is_silent(code));
    // Ages all over the place.
    let scattered = race().with_past(|past| {
        past.idle = closes(12, 16);
        past.idle.clusters[1].latest = 12;
    });
    assert!(scattered.is_silent(code));
    // nginx closes idle connections earlier than that.
    let configured = |time| race().with(|case| case.context.keepalive_timeout = Some(time));
    assert!(configured(Seconds::Whole(4)).is_silent(code));
    assert!(!configured(Seconds::Millis(4_991)).is_silent(code));
    // The close came too late to be a race.
    assert!(race().with(|case| case.failed.tcp = tcp(5_103, 100)).is_silent(code));
    // Fresh connections know no idleness; without TCP nothing is known.
    assert!(race().with(|case| case.failed.cause = Some(Cause::ConnectionReset)).is_silent(code));
    assert!(race().with(|case| case.failed.tcp = None).is_silent(code));
    assert!(race().with(|case| case.failed.framed = true).is_silent(code));
    assert!(race().with(|case| case.past = None).is_silent(code));
    // Connections that were older were good.
    let outlived = |n| race().with_past(|past| past.outlived = n);
    assert!(outlived(9).is_silent(code));
    assert_eq!(outlived(5).sure(code), Confidence::Possible);
    assert_eq!(outlived(4).sure(code), Confidence::Likely);
    // It crashes as often: then it may be that.
    let crashes = race().with_past(|past| past.waiting.total = 108);
    assert_eq!(crashes.sure(code), Confidence::Possible);
    assert_eq!(race().with_past(|past| past.waiting.total = 107).sure(code), Confidence::Likely);
}

#[test]
fn request_timeout() {
    closed().expect(
        Code::RequestTimeout,
        Confidence::Likely,
        "9 of 9 closes without a response happened 5.0 s after the request was sent: 10.0.3.7:8080 has a timeout of 5 s for requests.",
        r#"{"age":5.002,"from":4.990,"to":5.040,"at_age":9,"closes":9,"latest":9,"latest_at_age":9}"#,
        "Raise the upstream's own timeout of 5 s (a write timeout, or one of the supervisor that kills workers), or find what takes a request so long.",
    );
    // The same on a reused connection.
    let reused = closed().with(|case| {
        case.cause = Cause::KeepaliveRace;
        case.failed.cause = Some(Cause::KeepaliveRace);
    });
    assert_eq!(reused.sure(Code::RequestTimeout), Confidence::Likely);
    let few = closed().with_past(|past| past.waiting = closes(4, 5));
    let few = few.find(Code::RequestTimeout).unwrap();
    assert_eq!(few.confidence, Confidence::Possible);
    assert!(
        few.text.to_string().ends_with("10.0.3.7:8080 may have a timeout of 5 s for requests.")
    );
}

#[test]
fn near_misses_of_a_request_timeout() {
    let code = Code::RequestTimeout;
    assert!(closed().with(|case| case.failed.tcp = tcp(9, 2_000)).is_silent(code));
    assert!(closed().with_past(|past| past.waiting = closes(3, 3)).is_silent(code));
    assert!(closed().with_past(|past| past.waiting = closes(7, 9)).is_silent(code));
    // nginx's own timeout closes nothing.
    assert!(
        closed().with(|case| case.failed.cause = Some(Cause::ResponseTimedOut)).is_silent(code)
    );
    // A body that is cut was being sent: its age tells of its size.
    let cut = closed().with(|case| case.failed.cause = Some(Cause::ResponseTruncated));
    assert!(cut.is_silent(code));
    // Idle ages are no ages of requests.
    let idle = closed().with_past(|past| {
        past.idle = closes(214, 216);
        past.waiting = Closes::default();
    });
    assert!(idle.is_silent(code));
}

/// PHP-FPM on a unix socket: there is no kernel to tell the age, nginx's clock does.
#[test]
fn request_timeout_on_a_unix_socket() {
    let unix = closed().with(|case| {
        case.failed.peer = Some("unix:/run/php.sock".into());
        case.failed.tcp = None;
        case.failed.waited = Some(Seconds::Millis(5_001));
    });
    assert_eq!(unix.sure(Code::RequestTimeout), Confidence::Likely);
    unix.check_advice();
    assert!(unix.with(|case| case.failed.waited = None).is_silent(Code::RequestTimeout));
}

/// Closed by a supervisor with a timeout of 2 s that looks once a second.
fn supervised() -> Case {
    let cluster = |from, to, count| Cluster { from, to, mean: from, count, latest: count };
    let clusters =
        vec![cluster(2_020, 2_260, 3), cluster(2_410, 2_410, 1), cluster(2_700, 2_900, 2)];
    case(Cause::ClosedBeforeResponse).with(|case| case.failed.tcp = tcp(9, 2_410)).with_past(
        |past| {
            past.waiting = Closes { total: 8, latest: 6, clusters };
            past.spared = Spared { younger: 4, older: 0 };
        },
    )
}

#[test]
fn a_supervisor_that_looks_once_in_a_while() {
    supervised().expect(
        Code::RequestTimeout,
        Confidence::Likely,
        "6 of the latest 6 closes without a response happened 2.0 to 2.9 s after the request was sent: 10.0.3.7:8080 has a timeout of about 2 s for requests, which it checks only once in a while.",
        r#"{"age":2.410,"from":2.020,"to":2.900,"at_age":6,"closes":8,"latest":6,"latest_at_age":6}"#,
        "Raise the upstream's own timeout of about 2 s (a write timeout, or one of the supervisor that kills workers), or find what takes a request so long.",
    );
    for (module, whose) in
        [("fastcgi", "(PHP-FPM's request_terminate_timeout)"), ("uwsgi", "(uWSGI's harakiri)")]
    {
        let case = supervised().with(|case| case.module = module);
        let advice = case.find(Code::RequestTimeout).unwrap().advice.unwrap().to_string();
        assert!(advice.contains(whose), "{advice}");
        case.check_advice();
    }
    // PHP-FPM looks three times in the timeout.
    let slow = supervised().with(|case| case.failed.tcp = tcp(9, 38_000)).with_past(|past| {
        let cluster = |from, to| Cluster { from, to, mean: from, count: 8, latest: 8 };
        past.waiting.clusters = vec![cluster(30_100, 33_000), cluster(35_000, 39_900)];
        (past.waiting.total, past.waiting.latest) = (16, 16);
    });
    assert!(
        slow.find(Code::RequestTimeout)
            .unwrap()
            .text
            .to_string()
            .contains("a timeout of about 30 s")
    );
    // With one request at a time nothing shows that the oldest are closed.
    let alone = slow.with_past(|past| past.spared = Spared::default());
    assert_eq!(alone.sure(Code::RequestTimeout), Confidence::Possible);
}

/// Ages that uWSGI's master closed at with a harakiri of 2 s: it counts whole seconds, and its looks
/// come up to two seconds apart. Of another server they would be those of crashes.
#[test]
fn a_supervisor_that_counts_whole_seconds() {
    let spread = |module| {
        supervised().with(|case| case.module = module).with_past(|past| {
            past.waiting.clusters[0].from = 2_063;
            (past.waiting.clusters[2].from, past.waiting.clusters[2].to) = (4_450, 4_874);
        })
    };
    let case = spread("uwsgi");
    let found = case.find(Code::RequestTimeout).unwrap();
    assert_eq!(found.confidence, Confidence::Likely);
    assert!(found.text.to_string().contains("2.1 to 4.9 s after"), "{}", found.text.to_string());
    assert!(
        found.text.to_string().contains("a timeout of about 2 s"),
        "{}",
        found.text.to_string()
    );
    assert!(spread("proxy").is_silent(Code::RequestTimeout));
}

#[test]
fn near_misses_of_a_supervisor() {
    let code = Code::RequestTimeout;
    let spared =
        |younger, older| supervised().with_past(|past| past.spared = Spared { younger, older });
    assert_eq!(spared(32, 4).sure(code), Confidence::Likely);
    assert_eq!(spared(3, 0).sure(code), Confidence::Possible);
    // Older ones lived on, or it is not known who did.
    for (younger, older) in [(4, 1), (31, 4), (1, 0), (0, 0)] {
        assert!(spared(younger, older).is_silent(code), "{younger} {older}");
    }
    // Too few; other ages too; ages that are too far apart.
    let few = supervised().with_past(|past| {
        past.waiting.clusters.truncate(1);
        (past.waiting.total, past.waiting.latest) = (3, 3);
    });
    assert!(few.is_silent(code));
    assert!(supervised().with_past(|past| past.waiting.latest = 7).is_silent(code));
    assert!(supervised().with_past(|past| past.waiting.clusters[2].to = 3_400).is_silent(code));
    // This one was closed at another age.
    assert!(supervised().with(|case| case.failed.tcp = tcp(9, 3_500)).is_silent(code));
}
