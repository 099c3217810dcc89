//! What the history of the peer tells.

use super::{Code, Confidence, Evidence, Finding, Key};
use crate::cause::Cause;
use crate::peer::State;
use crate::words::numbers::{span, times};
use crate::zone::{Outage, Past, Reach, reach};

/// What counts as now: the time in which a sibling has answered, and in which a restart can still
/// explain a failure. Milliseconds.
const RECENT: u64 = 60_000;

/// The time in which flapping is looked for. Milliseconds.
const FLAPPING: u64 = 600_000;

/// An outage shorter than this may be none, and one of a single failure: several processes behind
/// one address, one of which is down, refuse and accept in turns. Milliseconds.
const BRIEF: u64 = 1_000;

/// Whether an outage cannot be such a turn.
fn is_sure(outage: &Outage) -> bool {
    outage.refused && outage.length() >= BRIEF && outage.failures > 1
}

/// `never_connected`.
pub(super) fn never_connected(e: &Evidence<'_>) -> Option<Finding> {
    let past = e.past()?;
    let failed = matches!(reach(e.cause), Reach::Refused | Reach::NotReached);
    let never = past.ok == 0 && past.last_ok.is_none() && past.reached == 0;
    if !failed || !never || past.not_reached < 3 || past.known_for < 10_000 {
        return None;
    }
    let answers = |sibling: &&super::Sibling| {
        let recently = sibling.last_ok.is_some_and(|time| time.millis() <= RECENT);
        recently && matches!(sibling.state, None | Some(State::Up | State::Busy))
    };
    let siblings = e.context.siblings.iter().filter(answers).count() as u64;
    if siblings == 0 {
        return None;
    }
    let sure = past.not_reached >= 5 && past.known_for >= 300_000;
    let text = format!(
        "{} has accepted none of {} connections in the {} since nginx knows it, and {} of its group answer{}: its address {} wrong or stale.",
        e.peer(),
        past.not_reached,
        span(past.known_for),
        if siblings == 1 {
            "another server".to_owned()
        } else {
            format!("{siblings} other servers")
        },
        if siblings == 1 { "s" } else { "" },
        if sure { "is" } else { "may be" },
    );
    Some(
        Finding::new(Code::NeverConnected, likely_if(sure), text)
            .time(Key::KnownFor, past.known_for)
            .count(Key::Failures, past.not_reached)
            .count(Key::Siblings, siblings)
            .advise(format!(
                "Correct or remove {} in {}: nothing has answered there since nginx knows it.",
                e.short_peer(),
                e.place()
            )),
    )
}

/// `went_away`. `nobody`: nobody listens there, the kernel says.
pub(super) fn went_away(e: &Evidence<'_>, nobody: bool) -> Option<Finding> {
    let past = e.past()?;
    let refused = match reach(e.cause) {
        Reach::Refused => true,
        Reach::NotReached => false,
        Reach::Reached | Reach::Unknown => return None,
    };
    let (last_ok, failing_for) = (past.last_ok?, past.failing_for?);
    if past.failures == 0 || failing_for > last_ok {
        return None;
    }
    let confidence = if nobody || (refused && is_unix(e)) {
        Confidence::Certain
    } else if refused {
        likely_if(past.failures >= 2 && !takes_turns(past))
    } else {
        if past.failures < 3 {
            return None;
        }
        likely_if(past.failures >= 5 && failing_for >= 30_000)
    };
    let since = match past.failures {
        1 => "the attempt since has failed".to_owned(),
        n => format!("all {n} attempts since have failed"),
    };
    let text = format!("{} answered until {} ago; {since}.", e.peer(), span(last_ok));
    let why = match (refused, is_unix(e)) {
        (true, true) => "See whether the process runs and listens (ss -lxp), and why it ended",
        (true, false) => {
            "See on that host whether the process runs and listens (ss -ltnp), and why it ended"
        }
        (false, _) => "See whether that host still runs, and what changed in the network",
    };
    Some(
        Finding::new(Code::WentAway, confidence, text)
            .time(Key::LastOk, last_ok)
            .count(Key::Ok, past.ok)
            .count(Key::Failures, past.failures)
            .time(Key::FailingFor, failing_for)
            .advise(format!("{why}: {} answered until {} ago.", e.short_peer(), span(last_ok))),
    )
}

/// `restarted`, from outages that are over.
pub(super) fn restarted(e: &Evidence<'_>) -> Option<Finding> {
    let past = e.past()?;
    let last = past.outages.last().filter(|_| past.outage.is_none())?;
    let in_it = matches!(reach(e.cause), Reach::Refused | Reach::NotReached);
    let explained = match reach(e.cause) {
        Reach::Refused | Reach::NotReached => FLAPPING,
        Reach::Reached => RECENT,
        Reach::Unknown => return None,
    };
    if last.to > explained {
        return None;
    }
    let sure = is_sure(last) && !takes_turns(past);
    let text = format!(
        "{} accepted no connections for {}, until {} ago, and accepts them again: it was restarted.",
        e.peer(),
        span(last.length()),
        span(last.to)
    );
    let text =
        if sure { text } else { text.replace("it was restarted", "it may have been restarted") };
    let finding = Finding::new(Code::Restarted, likely_if(sure), text)
        .time(Key::Began, last.from)
        .time(Key::Ended, last.to)
        .time(Key::Took, last.length())
        .count(Key::Failures, last.failures);
    // What comes after it has another cause: a restart may have brought that, and may not.
    Some(finding.advise(in_it.then(|| {
        format!(
            "See in the log of {} why it was restarted {} ago: a deployment, a crash, the limit of its memory.",
            e.short_peer(),
            span(last.from)
        )
    })))
}

/// `flapping`.
pub(super) fn flapping(e: &Evidence<'_>) -> Option<Finding> {
    let past = e.past()?;
    if reach(e.cause) == Reach::Unknown || e.cause == Cause::UpstreamResponse {
        return None;
    }
    let recent = || past.outages.iter().filter(|outage| outage.from <= FLAPPING);
    let count = recent().count();
    let first = recent().next().filter(|_| count >= 3)?.from;
    let sure = recent().all(|outage| outage.refused && outage.length() >= BRIEF);
    let text = format!(
        "{} went down and came back {} in the last {}.",
        e.peer(),
        // No more are kept.
        if count > 3 { "at least 4 times".to_owned() } else { times(3) },
        span(first)
    );
    Some(
        Finding::new(Code::Flapping, likely_if(sure), text)
            .count(Key::Outages, count as u64)
            .time(Key::Within, first)
            .advise(ends_by_crash(e.cause).then(|| {
                format!(
                    "Look for a crash loop on {}: its log, how often its supervisor restarted it (systemctl status), its memory limit and health checks.",
                    e.short_peer()
                )
            })),
    )
}

/// Whether the end of a process can be what is behind it: it does not answer, or no more.
fn ends_by_crash(cause: Cause) -> bool {
    reach(cause) != Reach::Reached
        || matches!(
            cause,
            Cause::TlsClosed
                | Cause::KeepaliveRace
                | Cause::ClosedBeforeResponse
                | Cause::ClosedInHeader
                | Cause::ConnectionReset
                | Cause::ResponseTruncated
        )
}

/// Whether the peer has accepted connections right after it refused some, more than once.
fn takes_turns(past: &Past) -> bool {
    past.outages.iter().filter(|outage| outage.refused && !is_sure(outage)).count() > 1
}

fn likely_if(sure: bool) -> Confidence {
    if sure { Confidence::Likely } else { Confidence::Possible }
}

fn is_unix(e: &Evidence<'_>) -> bool {
    e.failed.peer.as_deref().is_some_and(|peer| peer.starts_with("unix:"))
}
