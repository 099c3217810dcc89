//! Whether a finding is right, by the truth that it was not told.

use diagnosis::findings::{Code, Fact, Key};
use diagnosis::{Finding, Seconds};

use crate::backend::{Backend, Kind, Ms, Why};
use crate::nginx::Seen;

/// What outages are measured in, and a little more.
const SLACK: Ms = 200;

pub(crate) fn is_right(finding: &Finding<'_>, seen: &Seen, backend: &Backend) -> bool {
    let time = |key| match finding.evidence.get(key) {
        Some(Fact::Time(Seconds::Millis(ms))) => *ms,
        other => panic!("{key:?} is {other:?}"),
    };
    // An outage that is claimed, in the time of the truth.
    let outage = || {
        let ago = |key| seen.now.saturating_sub(time(key));
        (ago(Key::Began).saturating_sub(SLACK), ago(Key::Ended).saturating_add(SLACK))
    };
    match finding.code {
        Code::IdleTimeout => {
            let timeout = backend.idle_timeout(seen.failed).map(|(timeout, _)| timeout);
            seen.why == Why::IdleTimeout && near(timeout, time(Key::From), time(Key::To))
        }
        Code::RequestTimeout => {
            let (from, to) = (time(Key::From), time(Key::To));
            seen.why == Why::RequestTimeout
                && backend.request_timeout.is_some_and(|(timeout, late)| {
                    // Of one that looks once in a while it is not said when.
                    let late = if backend.kind == Kind::Supervised { late } else { 0 };
                    near(Some(timeout), from.saturating_sub(late), to)
                })
        }
        Code::WentAway => seen.why == Why::Down && backend.kind != Kind::Stale,
        Code::NeverConnected => backend.kind == Kind::Stale,
        Code::Restarted if finding.evidence.get(Key::Started).is_some() => {
            let last_ok = seen.now - time(Key::LastOk);
            backend.down.iter().any(|(_, to)| (last_ok..=seen.now).contains(to))
        }
        Code::Restarted => {
            let (from, to) = outage();
            backend.down.iter().any(|(began, ended)| *began <= to && *ended <= to && *ended >= from)
        }
        Code::Flapping => {
            let from = seen.now.saturating_sub(time(Key::Within) + SLACK);
            let downs = backend.down.iter();
            downs.filter(|(began, ended)| *ended >= from && *began <= seen.now).count() >= 3
        }
        Code::NothingListening => backend.is_down(seen.now),
        Code::EjectedHealthy => seen.why == Why::IdleTimeout,
        Code::SingleServer => true,
        other => panic!("nothing of {other:?} was shown"),
    }
}

/// Whether a timeout is in the interval in which it is said to be, or just beside.
fn near(timeout: Option<Ms>, from: Ms, to: Ms) -> bool {
    timeout.is_some_and(|timeout| (from - from / 10..=to + to / 20).contains(&timeout))
}
