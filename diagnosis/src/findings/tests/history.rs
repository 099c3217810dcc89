use super::*;
use crate::zone::Outage;

const MINUTE: u64 = 60_000;

fn refused() -> Case {
    case(Cause::ConnectionRefused)
}

fn unix(case: &mut Case) {
    case.failed.peer = Some("unix:/run/app.sock".into());
}

fn outage(from: u64, to: u64) -> Outage {
    Outage { from, to, failures: 2, refused: true }
}

fn stale() -> Case {
    let sibling = |last_ok| Sibling { ok: 9, last_ok: Some(last_ok), state: Some(State::Up) };
    refused()
        .with(|case| {
            case.context.siblings =
                vec![sibling(Seconds::Millis(20)), sibling(Seconds::Millis(70_000))];
        })
        .with_past(|past| {
            (past.known_for, past.not_reached, past.failures) = (600_000, 34, 34);
        })
}

#[test]
fn never_connected() {
    stale().expect(
        Code::NeverConnected,
        Confidence::Likely,
        "10.0.3.7:8080 has accepted none of 34 connections in the 10 min for which nginx has known it, and another server of its group answers: its address is wrong or stale.",
        r#"{"known_for":600.000,"failures":34,"siblings":1}"#,
        "Correct or remove 10.0.3.7:8080 in upstream \"app\": nothing has ever answered there.",
    );
    let new = stale().with_past(|past| past.known_for = 299_999);
    assert_eq!(new.sure(Code::NeverConnected), Confidence::Possible);
    let text = new.find(Code::NeverConnected).unwrap().text.to_string();
    assert!(text.ends_with(": its address may be wrong or stale."), "{text}");
    let few = stale().with_past(|past| past.not_reached = 4);
    assert_eq!(few.sure(Code::NeverConnected), Confidence::Possible);
    let both = stale().with(|case| case.context.siblings[1] = case.context.siblings[0]);
    let text = both.find(Code::NeverConnected).unwrap().text.to_string();
    assert!(text.contains(", and 2 other servers of its group answer: "), "{text}");
}

#[test]
fn near_misses_of_never_connected() {
    let code = Code::NeverConnected;
    assert!(stale().with_past(|past| past.ok = 1).is_silent(code));
    // It was connected to, though it never answered well.
    assert!(stale().with_past(|past| past.reached = 1).is_silent(code));
    assert!(stale().with_past(|past| past.not_reached = 2).is_silent(code));
    assert!(stale().with_past(|past| past.known_for = 9_999).is_silent(code));
    // Nobody else answers either: the network, or all of them.
    assert!(stale().with(|case| case.context.siblings.clear()).is_silent(code));
    let not_lately = stale().with(|case| case.context.siblings[0].last_ok = None);
    assert!(not_lately.is_silent(code));
    let out = stale().with(|case| case.context.siblings[0].state = Some(State::Unavailable));
    assert!(out.is_silent(code));
    // It failed on this side.
    assert!(stale().with(|case| case.cause = Cause::LocalPortsExhausted).is_silent(code));
}

fn gone() -> Case {
    refused().with_past(|past| {
        (past.ok, past.last_ok) = (1_204, Some(42_349));
        (past.failures, past.failing_for) = (12, Some(41_900));
        past.outage = Some(outage(41_900, 0));
    })
}

#[test]
fn went_away() {
    gone().expect(
        Code::WentAway,
        Confidence::Likely,
        "10.0.3.7:8080 answered until 42.3 s ago; all 12 attempts since have failed.",
        r#"{"last_ok":42.349,"ok":1204,"failures":12,"failing_for":41.900}"#,
        "See on that host whether the process runs and listens (ss -ltnp), and why it ended: 10.0.3.7:8080 answered until 42.3 s ago.",
    );
    let second = gone().with_past(|past| past.failures = 2);
    let second = second.find(Code::WentAway).unwrap().text.to_string();
    assert!(second.ends_with("; both attempts since have failed."), "{second}");
    let first = gone().with_past(|past| past.failures = 1);
    assert_eq!(first.sure(Code::WentAway), Confidence::Possible);
    assert!(
        first
            .find(Code::WentAway)
            .unwrap()
            .text
            .to_string()
            .ends_with("; the attempt since has failed.")
    );
    let socket = first.with(unix);
    assert_eq!(socket.sure(Code::WentAway), Confidence::Certain);
    let gone_file = socket.with(|case| case.cause = Cause::SocketNotFound);
    assert_eq!(gone_file.sure(Code::WentAway), Confidence::Certain);
    assert_eq!(
        gone_file.find(Code::WentAway).unwrap().advice.unwrap().to_string(),
        "See whether the process runs and listens (ss -lxp), and why it ended: unix:/run/app.sock answered until 42.3 s ago."
    );
}

/// No answer is less than a refusal.
#[test]
fn went_away_without_an_answer() {
    let silent = gone().with(|case| case.cause = Cause::ConnectionTimedOut);
    assert_eq!(silent.sure(Code::WentAway), Confidence::Likely);
    assert_eq!(
        silent.find(Code::WentAway).unwrap().advice.unwrap().to_string(),
        "See whether that host still runs, and what changed in the network: 10.0.3.7:8080 answered until 42.3 s ago."
    );
    let short = silent.with_past(|past| past.failing_for = Some(29_999));
    assert_eq!(short.sure(Code::WentAway), Confidence::Possible);
    let few = silent.with_past(|past| past.failures = 4);
    assert_eq!(few.sure(Code::WentAway), Confidence::Possible);
    assert!(silent.with_past(|past| past.failures = 2).is_silent(Code::WentAway));
}

#[test]
fn near_misses_of_went_away() {
    let code = Code::WentAway;
    assert!(gone().with_past(|past| past.last_ok = None).is_silent(code));
    assert!(gone().with_past(|past| past.failures = 0).is_silent(code));
    // It answered after the failure that is told here.
    assert!(gone().with_past(|past| past.last_ok = Some(300)).is_silent(code));
    for cause in [Cause::ResponseTimedOut, Cause::ListenQueueFull, Cause::LocalFdsExhausted] {
        assert!(gone().with(|case| case.cause = cause).is_silent(code), "{cause:?}");
    }
    // It takes turns with others.
    let turns = gone().with_past(|past| {
        past.outages = vec![outage(90_000, 89_500), outage(80_000, 79_600)];
    });
    assert_eq!(turns.sure(code), Confidence::Possible);
}

fn back() -> Case {
    case(Cause::ConnectionReset).with_past(|past| past.outages = vec![outage(15_100, 3_100)])
}

#[test]
fn restarted() {
    back().expect(
        Code::Restarted,
        Confidence::Likely,
        "10.0.3.7:8080 accepted no connections for 12.0 s, until 3.1 s ago, and accepts them again: it was restarted.",
        r#"{"began":15.100,"ended":3.100,"took":12.000,"failures":2}"#,
        "",
    );
    let unsure = back().with_past(|past| past.outages[0].refused = false);
    let unsure = unsure.find(Code::Restarted).unwrap();
    assert_eq!(unsure.confidence, Confidence::Possible);
    assert!(
        unsure.text.to_string().ends_with("again: it may have been restarted."),
        "{}",
        unsure.text.to_string()
    );
    let brief = back().with_past(|past| past.outages = vec![outage(4_000, 3_100)]);
    assert_eq!(brief.sure(Code::Restarted), Confidence::Possible);
    let once = back().with_past(|past| past.outages[0].failures = 1);
    assert_eq!(once.sure(Code::Restarted), Confidence::Possible);
    // The attempt was refused, and the peer came back before the request had ended.
    let in_it = refused().with_past(|past| past.outages = vec![outage(5 * MINUTE, 4 * MINUTE)]);
    assert_eq!(in_it.sure(Code::Restarted), Confidence::Likely);
    assert_eq!(
        in_it.find(Code::Restarted).unwrap().advice.unwrap().to_string(),
        "See in the log of 10.0.3.7:8080 why it was restarted 5 min ago: a deployment, a crash, the limit of its memory."
    );
}

#[test]
fn near_misses_of_restarted() {
    let code = Code::Restarted;
    assert!(back().with_past(|past| past.outages.clear()).is_silent(code));
    // It is down once more.
    assert!(back().with_past(|past| past.outage = Some(outage(1_000, 0))).is_silent(code));
    // Too long ago to explain this.
    let old = back().with_past(|past| past.outages = vec![outage(90_000, 60_001)]);
    assert!(old.is_silent(code));
    let in_old = refused().with_past(|past| past.outages = vec![outage(15 * MINUTE, 11 * MINUTE)]);
    assert!(in_old.is_silent(code));
    assert!(back().with(|case| case.cause = Cause::LocalReturn).is_silent(code));
}

fn flaps() -> Case {
    refused().with_past(|past| {
        past.outages =
            [420_000, 300_000, 50_000].map(|at| outage(at, at.saturating_sub(4_000))).to_vec();
        past.outage = Some(outage(1_000, 0));
    })
}

#[test]
fn flapping() {
    flaps().expect(
        Code::Flapping,
        Confidence::Likely,
        "10.0.3.7:8080 went down and came back 3 times in the last 7 min.",
        r#"{"outages":3,"within":420.000}"#,
        "Look for a crash loop on 10.0.3.7:8080: its log, how often its supervisor restarted it (systemctl status), its memory limit and health checks.",
    );
    let more = flaps().with_past(|past| past.outages.insert(0, outage(500_000, 490_000)));
    assert_eq!(
        more.find(Code::Flapping).unwrap().text.to_string(),
        "10.0.3.7:8080 went down and came back at least 4 times in the last 8 min."
    );
    let unsure = flaps().with_past(|past| past.outages[1].refused = false);
    assert_eq!(unsure.sure(Code::Flapping), Confidence::Possible);
    let brief = flaps().with_past(|past| past.outages[2].to = 49_500);
    assert_eq!(brief.sure(Code::Flapping), Confidence::Possible);
    // A header that is too big has nothing to do with it: told, and no advice.
    // Nor has a certificate.
    for cause in [Cause::HeaderTooBig, Cause::TlsCertificateError] {
        let other = flaps().with(|case| case.cause = cause);
        assert!(other.find(Code::Flapping).unwrap().advice.is_none());
    }
    let crash = flaps().with(|case| case.cause = Cause::ConnectionReset);
    assert!(crash.find(Code::Flapping).unwrap().advice.is_some());
}

#[test]
fn near_misses_of_flapping() {
    let code = Code::Flapping;
    assert!(flaps().with_past(|past| past.outages.truncate(2)).is_silent(code));
    // The third began before the ten minutes.
    assert!(flaps().with_past(|past| past.outages[0].from = 600_001).is_silent(code));
    assert!(flaps().with(|case| case.cause = Cause::NoLiveUpstreams).is_silent(code));
}
