//! What the history of the peer tells.

use super::{Code, Confidence, Evidence, Finding, Found, Key};
use crate::cause::Cause;
use crate::peer::State;
use crate::words::numbers::Number::{Span, Times};
use crate::words::phrase::{Ours, say};
use crate::zone::{Outage, Past, Reach, STALE, reach};

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
pub(super) fn never_connected<'a>(e: &Evidence<'a>) -> Found<'a> {
    let past = e.past?;
    let failed = matches!(reach(e.cause), Reach::Refused | Reach::NotReached);
    let never = past.ok == 0 && past.last_ok.is_none() && past.reached == 0;
    if !failed || !never || past.not_reached < 3 || past.known_for < STALE {
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
    let others = match siblings {
        1 => say![e.arena, "another server of its group answers"],
        n => say![e.arena, n, " other servers of its group answer"],
    };
    let text = say![
        e.arena,
        e.peer(),
        " has accepted none of ",
        past.not_reached,
        " connections in the ",
        Span(past.known_for),
        " for which nginx has known it, and ",
        others,
        ": its address ",
        Ours(if sure { "is" } else { "may be" }),
        " wrong or stale.",
    ];
    Some(
        Finding::new(e, (Code::NeverConnected, likely_if(sure)), text)
            .time(Key::KnownFor, past.known_for)
            .count(Key::Failures, past.not_reached)
            .count(Key::Siblings, siblings)
            .advise(say![
                e.arena,
                "Correct or remove ",
                e.short_peer(),
                " in ",
                e.place(),
                ": nothing has ever answered there.",
            ]),
    )
}

/// `went_away`. `nobody`: nobody listens there, the kernel says.
pub(super) fn went_away<'a>(e: &Evidence<'a>, nobody: bool) -> Found<'a> {
    let past = e.past?;
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
        1 => say![e.arena, "the attempt since has failed"],
        2 => say![e.arena, "both attempts since have failed"],
        n => say![e.arena, "all ", n, " attempts since have failed"],
    };
    let text = say![e.arena, e.peer(), " answered until ", Span(last_ok), " ago; ", since, "."];
    let why = match (refused, is_unix(e)) {
        (true, true) => "See whether the process runs and listens (ss -lxp), and why it ended",
        (true, false) => {
            "See on that host whether the process runs and listens (ss -ltnp), and why it ended"
        }
        (false, _) => "See whether that host still runs, and what changed in the network",
    };
    Some(
        Finding::new(e, (Code::WentAway, confidence), text)
            .time(Key::LastOk, last_ok)
            .count(Key::Ok, past.ok)
            .count(Key::Failures, past.failures)
            .time(Key::FailingFor, failing_for)
            .advise(say![
                e.arena,
                Ours(why),
                ": ",
                e.short_peer(),
                " answered until ",
                Span(last_ok),
                " ago.",
            ]),
    )
}

/// `restarted`, from outages that are over.
pub(super) fn restarted<'a>(e: &Evidence<'a>) -> Found<'a> {
    let past = e.past?;
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
    let text = say![
        e.arena,
        e.peer(),
        " accepted no connections for ",
        Span(last.length()),
        ", until ",
        Span(last.to),
        " ago, and accepts them again: it ",
        Ours(if sure { "was" } else { "may have been" }),
        " restarted.",
    ];
    let finding = Finding::new(e, (Code::Restarted, likely_if(sure)), text)
        .time(Key::Began, last.from)
        .time(Key::Ended, last.to)
        .time(Key::Took, last.length())
        .count(Key::Failures, last.failures);
    // What comes after it has another cause: a restart may have brought that, and may not.
    Some(finding.advise(in_it.then(|| {
        say![
            e.arena,
            "See in the log of ",
            e.short_peer(),
            " why it was restarted ",
            Span(last.from),
            " ago: a deployment, a crash, the limit of its memory.",
        ]
    })))
}

/// `flapping`.
pub(super) fn flapping<'a>(e: &Evidence<'a>) -> Found<'a> {
    let past = e.past?;
    if reach(e.cause) == Reach::Unknown || e.cause == Cause::UpstreamResponse {
        return None;
    }
    let recent = || past.outages.iter().filter(|outage| outage.from <= FLAPPING);
    let count = recent().count();
    let first = recent().next().filter(|_| count >= 3)?.from;
    let sure = recent().all(|outage| outage.refused && outage.length() >= BRIEF);
    let text = say![
        e.arena,
        e.peer(),
        " went down and came back ",
        // No more are kept.
        (count > 3).then_some(Ours("at least ")),
        Times(count as u64),
        " in the last ",
        Span(first),
        ".",
    ];
    Some(
        Finding::new(e, (Code::Flapping, likely_if(sure)), text)
            .count(Key::Outages, count as u64)
            .time(Key::Within, first)
            .advise(ends_by_crash(e.cause).then(|| {
                say![
                    e.arena,
                    "Look for a crash loop on ",
                    e.short_peer(),
                    ": its log, how often its supervisor restarted it (systemctl status), its memory limit and health checks.",
                ]
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
