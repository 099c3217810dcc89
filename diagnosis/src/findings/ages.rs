//! What the ages tell at which the upstream closed connections.

use super::{Code, Confidence, Evidence, Fact, Finding, Found, Key};
use crate::seconds::Seconds;
use crate::words::numbers::Number::{Setting, Tenths, Timeout};
use crate::words::phrase::{Ours, Part, Phrase, say};
use crate::zone::{Close, Closes, Cluster, Past, Spared, widest};

/// Closes at one age that make it likely, and possible, that they are those of a timeout.
const LIKELY: u64 = 6;
const POSSIBLE: u64 = 3;

/// The same for requests: with three, all of them can have been closed at one time, by whatever
/// ended the process.
const POSSIBLE_REQUESTS: u64 = 4;

/// Of requests whose closes are spread: how many younger ones have to have been spared that it is
/// likely, and possible, that it is the oldest that are closed; and how many closes are possibly
/// those of a timeout where nothing tells that, as no two requests are under way at a time.
const LIKELY_SPARED: u64 = 4;
const POSSIBLE_SPARED: u64 = 2;
const POSSIBLE_SPREAD: u64 = 16;

/// `idle_timeout`.
pub(super) fn idle_timeout<'a>(e: &Evidence<'a>) -> Found<'a> {
    let Close::Idle(age) = Close::of(e.failed)? else { return None };
    let past = e.past?;
    let (cluster, mut confidence) = dense(&past.idle, age, POSSIBLE)?;
    // nginx closes first: what is known is from before a change of the configuration.
    let configured = e.context.keepalive_timeout.map(Seconds::millis);
    if configured.is_some_and(|timeout| timeout <= cluster.from) {
        return None;
    }
    // Older connections were good: requests that come in regular intervals, for one, make those
    // of one age that a crash closes.
    if past.outlived.saturating_mul(2) > past.idle.latest {
        return None;
    }
    if past.outlived.saturating_mul(4) > past.idle.latest || crashes(past, cluster.count) {
        confidence = Confidence::Possible;
    }
    let (share, at) = (share(e, &past.idle, &cluster), Tenths(cluster.mean));
    let is = verb(confidence, " is ", " may be ");
    let timeout = Timeout(cluster.mean);
    let kept = configured
        .map(|time| say![e.arena, ", and nginx keeps idle connections for ", Timeout(time)]);
    let text = say![
        e.arena,
        share,
        " closes of reused connections happened ",
        at,
        " s after the last response: the keep-alive timeout of ",
        e.peer(),
        is,
        timeout,
        kept,
        ".",
    ];
    let set = Setting(cluster.from);
    let advice = say![
        e.arena,
        "Set keepalive_timeout ",
        set,
        " in ",
        e.block(),
        ", or raise the backend's."
    ];
    let mut finding =
        facts(Finding::new(e, (Code::IdleTimeout, confidence), text), age, &past.idle, &cluster);
    if let Some(timeout) = configured {
        finding = finding.time(Key::KeepaliveTimeout, timeout);
    }
    finding = finding.fact(Key::Set, Fact::Text(Part::Number(set))).advise(advice);
    finding.clause = Some(say![
        e.arena,
        share,
        " closes of reused connections happened at ",
        at,
        " s: its keep-alive timeout",
        is,
        timeout,
    ]);
    Some(finding)
}

/// `request_timeout`.
pub(super) fn request_timeout<'a>(e: &Evidence<'a>) -> Found<'a> {
    let Close::Waiting(age) = Close::of(e.failed)? else { return None };
    let past = e.past?;
    let (mut closed, mut confidence) =
        dense(&past.waiting, age, POSSIBLE_REQUESTS).or_else(|| spread(e, past, age))?;
    if confidence == Confidence::Possible
        && let Some(sure) = spread(e, past, age).filter(|(_, sure)| *sure < confidence)
    {
        (closed, confidence) = sure;
    }
    let share = share(e, &past.waiting, &closed);
    let has = verb(confidence, " has ", " may have ");
    let is_spread = closed.to.saturating_sub(closed.from) > widest(closed.from);
    let (at, when, timeout, looks) = if is_spread {
        (
            "",
            say![e.arena, Tenths(closed.from), " to ", Tenths(closed.to), " s"],
            say![e.arena, "about ", closed.from / 1_000, " s"],
            ", which it checks only once in a while",
        )
    } else {
        ("at ", say![e.arena, Tenths(closed.mean), " s"], say![e.arena, Timeout(closed.mean)], "")
    };
    let text = say![
        e.arena,
        share,
        " closes without a response happened ",
        when,
        " after the request was sent: ",
        e.peer(),
        has,
        "a timeout of ",
        timeout,
        " for requests",
        Ours(looks),
        ".",
    ];
    let whose = Ours(match e.module {
        Some("fastcgi") => "PHP-FPM's request_terminate_timeout",
        Some("uwsgi") => "uWSGI's harakiri",
        _ => "a write timeout, or one of the supervisor that kills workers",
    });
    let finding = Finding::new(e, (Code::RequestTimeout, confidence), text);
    let finding = facts(finding, age, &past.waiting, &closed).advise(say![
        e.arena,
        "Raise the upstream's own timeout of ",
        timeout,
        " (",
        whose,
        "), or find what takes a request so long.",
    ]);
    finding.clause = Some(say![
        e.arena,
        share,
        " closes without a response happened ",
        Ours(at),
        when,
        ": it",
        has,
        "a timeout of ",
        timeout,
        " for requests",
    ]);
    Some(finding)
}

/// The ages that a supervisor closes at that looks once in a while, if nearly all of the latest
/// closes are among them. That they are spread a little is no evidence, as those of crashes are, too:
/// it has to close the oldest, or to go on for long.
fn spread(e: &Evidence<'_>, past: &Past, age: u64) -> Option<(Cluster, Confidence)> {
    let closes = &past.waiting;
    // Most look once a second, PHP-FPM's three times in the timeout; uWSGI's counts whole seconds,
    // and leaves one out when it has workers to start again. With what a process takes to end.
    let second = if e.module == Some("uwsgi") { 3_000 } else { 1_000 };
    let reach = |from: u64| from.saturating_add((from / 3).max(second)).saturating_add(150);
    let around = |from: u64| {
        let near = |cluster: &&Cluster| cluster.from >= from && cluster.to <= reach(from);
        closes.clusters.iter().filter(near).copied().reduce(Cluster::joined)
    };
    let windows = closes.clusters.iter().filter_map(|first| around(first.from));
    // This close may not have been counted yet.
    let reaches = |window: &Cluster| (window.from..=reach(window.from)).contains(&age);
    let window = windows.filter(reaches).max_by_key(|window| window.latest)?;
    if window.latest.saturating_mul(16) < closes.latest.saturating_mul(15) {
        return None;
    }
    let Spared { younger, older } = past.spared;
    let oldest_first = older.saturating_mul(8) <= younger;
    let confidence = match window.latest {
        LIKELY.. if oldest_first && younger >= LIKELY_SPARED => Confidence::Likely,
        POSSIBLE_REQUESTS.. if oldest_first && younger >= POSSIBLE_SPARED => Confidence::Possible,
        POSSIBLE_SPREAD.. if older == 0 => Confidence::Possible,
        _ => return None,
    };
    Some((window, confidence))
}

/// The ages that are like this one, if most of the latest closes are.
fn dense(closes: &Closes, age: u64, possible: u64) -> Option<(Cluster, Confidence)> {
    let reaches = |cluster: &&Cluster| {
        // This close may not have been counted yet: a little beside is near enough.
        let beside = cluster.mean / 20;
        let from = cluster.from.saturating_sub(beside);
        (from..=cluster.to.saturating_add(beside)).contains(&age)
    };
    let cluster = closes.clusters.iter().filter(reaches).max_by_key(|cluster| cluster.count)?;
    if cluster.latest.saturating_mul(5) < closes.latest.saturating_mul(4) {
        return None;
    }
    let confidence = match cluster.latest {
        LIKELY.. => Confidence::Likely,
        // A few have to be nearer to each other than many.
        n if n >= possible
            && cluster.to.saturating_sub(cluster.from) <= (cluster.mean / 20).max(100) =>
        {
            Confidence::Possible
        }
        _ => return None,
    };
    Some((*cluster, confidence))
}

/// Whether the upstream closes connections in the middle of requests about as often as idle ones:
/// a process that crashes does both.
pub(super) fn crashes(past: &Past, idle: u64) -> bool {
    outside(&past.waiting).saturating_mul(2) > idle
}

/// Closes that no timeout explains.
fn outside(closes: &Closes) -> u64 {
    let by_timeout = closes.clusters.iter().filter(|cluster| cluster.count >= LIKELY);
    by_timeout.fold(closes.total, |rest, cluster| rest.saturating_sub(cluster.count))
}

/// Of all closes, or where the timeout was changed, of the latest.
fn share<'a>(e: &Evidence<'a>, closes: &Closes, cluster: &Cluster) -> Phrase<'a> {
    if cluster.count.saturating_mul(5) >= closes.total.saturating_mul(4) {
        say![e.arena, cluster.count, " of ", closes.total]
    } else {
        say![e.arena, cluster.latest, " of the latest ", closes.latest]
    }
}

fn verb(confidence: Confidence, likely: &'static str, possible: &'static str) -> Ours {
    Ours(if confidence == Confidence::Possible { possible } else { likely })
}

fn facts<'a>(
    finding: &'a mut Finding<'a>,
    age: u64,
    closes: &Closes,
    cluster: &Cluster,
) -> &'a mut Finding<'a> {
    finding
        .time(Key::Age, age)
        .time(Key::From, cluster.from)
        .time(Key::To, cluster.to)
        .count(Key::AtAge, cluster.count)
        .count(Key::Closes, closes.total)
        .count(Key::Latest, closes.latest)
        .count(Key::LatestAtAge, cluster.latest)
}
