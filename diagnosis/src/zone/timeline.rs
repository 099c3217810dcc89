//! The last hour in steps of ten seconds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::cause::Cause;
use crate::status;

/// Length of a step, seconds.
pub const STEP: u64 = 10;

/// Steps that are kept.
pub(super) const STEPS: usize = 360;

/// What failed in one step.
#[derive(Debug)]
#[repr(C)]
pub struct Step {
    /// The step since the epoch that the counts are of.
    number: AtomicU64,
    causes: [AtomicU32; Cause::ALL.len()],
}

impl Default for Step {
    fn default() -> Step {
        Step { number: AtomicU64::new(0), causes: [const { AtomicU32::new(0) }; _] }
    }
}

/// Counts a failure at a time in seconds since the epoch. Under the lock.
pub(super) fn count(steps: &[Step], cause: Cause, now: u64) {
    let number = now / STEP;
    let Some(step) = place(steps, number) else { return };
    if step.number.load(Relaxed) != number {
        step.causes.iter().for_each(|count| count.store(0, Relaxed));
        step.number.store(number, Relaxed);
    }
    if let Some(count) = step.causes.get(cause.index()) {
        count.fetch_add(1, Relaxed);
    }
}

/// The hour that ends at a time in seconds since the epoch.
pub(super) fn read(steps: &[Step], now: u64) -> status::Timeline {
    let last = now / STEP;
    let first = last.saturating_sub(steps.len() as u64).saturating_add(1);
    let numbers = first..=last;
    let mut causes: Vec<(Cause, Vec<u32>)> = Vec::new();
    for cause in Cause::ALL {
        let counts: Vec<u32> = numbers.clone().map(|number| at(steps, number, *cause)).collect();
        if counts.iter().any(|count| *count > 0) {
            causes.push((*cause, counts));
        }
    }
    status::Timeline {
        step: STEP,
        start: i64::try_from(first.saturating_mul(STEP)).unwrap_or(0),
        steps: steps.len(),
        causes,
    }
}

fn at(steps: &[Step], number: u64, cause: Cause) -> u32 {
    let step = place(steps, number).filter(|step| step.number.load(Relaxed) == number);
    step.and_then(|step| step.causes.get(cause.index())).map_or(0, |count| count.load(Relaxed))
}

fn place(steps: &[Step], number: u64) -> Option<&Step> {
    let at = number.checked_rem(steps.len() as u64)?;
    steps.get(usize::try_from(at).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(timeline: &status::Timeline) -> u32 {
        timeline.causes.iter().flat_map(|(_, counts)| counts).sum()
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let steps: Vec<Step> = (0..STEPS).map(|_| Step::default()).collect();
        let start = 1_800_000_000;
        for second in 0..7_200 {
            count(&steps, Cause::ConnectionRefused, start + second);
            if second % 97 != 0 {
                continue;
            }
            let read = read(&steps, start + second);
            assert_eq!(read.causes[0].1.len(), STEPS);
            // Of the oldest hour's steps all are whole, and the newest goes on.
            let kept = if second < 3_600 { second + 1 } else { 3_590 + second % 10 + 1 };
            assert_eq!(u64::from(sum(&read)), kept, "{second}");
        }
        // Nothing for two hours: what is left is too old.
        assert_eq!(sum(&read(&steps, start + 7_200 + 7_200)), 0);
        // The clock was set back: no more than a gap.
        count(&steps, Cause::ConnectionRefused, start);
        assert_eq!(sum(&read(&steps, start)), 1);
        assert_eq!(sum(&read(&steps, 5)), 0);
    }
}
