//! Whether requests are closed by their age: what a supervisor does that looks once in a while for
//! what has taken too long.
//!
//! The ages it closes at are spread over the time between two looks, as those of crashes may be.
//! But it closes the oldest: a request that lives on while one of its age or younger is closed
//! tells of something else. So closes that are near in time are a sweep, and of each that was under
//! way in the sweep before it, it is counted whether it was younger than all that were closed then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a sweep may take: processes that are told to end at once do not end at once.
/// Supervisors look at most twice a second. Milliseconds.
const LASTS: u64 = 500;

/// Ages that are further apart than this are not those of requests that came together.
const APART: u64 = 100;

/// How late supervisors are, and their processes end. Milliseconds.
const LATE: u64 = 250;

/// With more counted than this, what was before counts half: supervisors are reconfigured.
const COUNTED: u64 = 64;

/// The sweeps of a peer. Times are milliseconds, ages those at the beginning of the sweep.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Sweeps {
    /// The latest one (see [`Packed`]).
    latest: AtomicU64,
    /// The one before.
    before: AtomicU64,
    /// What was counted: the younger in the upper half, the older in the lower.
    spared: AtomicU64,
}

/// Requests that lived on when others were closed, and were closed themselves in the next sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// Younger than all that were closed, where these, or those closed with it, had different ages.
    pub younger: u64,
    /// Older than one that was.
    pub older: u64,
}

impl Sweeps {
    /// Counts a close at an age.
    pub(super) fn count(&self, age: u64, at: u64) {
        // Another worker that does this at the same time may have its close not counted, or counted
        // with a sweep that is not its own.
        let latest = Packed::of(self.latest.load(Relaxed));
        let (before, latest) = match latest {
            // It was noted late: what was before it is not known any more.
            Some(latest) if at < latest.began => return,
            Some(latest) if at.saturating_sub(latest.began) < LASTS => {
                let age = age.saturating_sub(at.saturating_sub(latest.began));
                let apart = latest.apart || latest.youngest.abs_diff(age) > APART;
                let youngest = latest.youngest.min(age);
                (Packed::of(self.before.load(Relaxed)), Packed { youngest, apart, ..latest })
            }
            before => {
                self.before.store(before.map_or(0, Packed::word), Relaxed);
                (before, Packed { began: at, youngest: age, apart: false })
            }
        };
        self.latest.store(latest.word(), Relaxed);
        let Some(before) = before else { return };
        // Of one that had just begun then, it tells nothing that it lived on.
        let since = at.saturating_sub(before.began);
        let Some(then) = age.checked_sub(since) else { return };
        if !is_a_look(since, before.youngest) {
            return;
        }
        if then > before.youngest.saturating_add(APART) {
            self.add(Spared { younger: 0, older: 1 });
        } else if then < before.youngest && (before.apart || latest.apart) {
            self.add(Spared { younger: 1, older: 0 });
        }
    }

    fn add(&self, more: Spared) {
        let Spared { mut younger, mut older } = self.read();
        if younger.saturating_add(older) >= COUNTED {
            (younger, older) = (younger / 2, older / 2);
        }
        let younger = younger.saturating_add(more.younger);
        self.spared.store(younger << 32 | older.saturating_add(more.older), Relaxed);
    }

    pub(super) fn read(&self) -> Spared {
        let spared = self.spared.load(Relaxed);
        Spared { younger: spared >> 32, older: spared & u64::from(u32::MAX) }
    }

    pub(super) fn clear(&self) {
        let words = [&self.latest, &self.before, &self.spared];
        words.iter().for_each(|word| word.store(0, Relaxed));
    }
}

/// Whether a supervisor would look again so long after a sweep: most do once a second, uWSGI's
/// leaves one out when it has workers to start again, and PHP-FPM's looks three times in the
/// timeout, which is the youngest age or less, as far as a fourth of that.
fn is_a_look(since: u64, youngest: u64) -> bool {
    let near = |seconds: u64| since.abs_diff(seconds.saturating_mul(1_000)) <= LATE;
    let third = youngest / 4..=(youngest / 3).saturating_add(LATE / 2);
    near(1) || near(2) || third.contains(&since)
}

/// A sweep as one word: 39 bits for its begin, which are 17 years, 24 for the youngest age in it,
/// which are four hours, and whether there were different ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    began: u64,
    youngest: u64,
    apart: bool,
}

impl Packed {
    const LATEST: u64 = (1 << 39) - 1;
    const OLDEST: u64 = (1 << 24) - 1;

    fn of(word: u64) -> Option<Packed> {
        let (began, youngest) = (word >> 25, word >> 1 & Packed::OLDEST);
        (word != 0).then_some(Packed { began, youngest, apart: word & 1 != 0 })
    }

    fn word(self) -> u64 {
        let (began, youngest) = (self.began & Packed::LATEST, self.youngest.min(Packed::OLDEST));
        began << 25 | youngest << 1 | u64::from(self.apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests sent and closed at these times.
    fn spared(closed: &[(u64, u64)]) -> (u64, u64) {
        let sweeps = Sweeps::default();
        for (sent, at) in closed {
            sweeps.count(at.abs_diff(*sent), *at);
        }
        let Spared { younger, older } = sweeps.read();
        (younger, older)
    }

    #[test]
    fn words_hold_a_sweep() {
        for began in [1, Packed::LATEST] {
            for (youngest, apart) in [(0, false), (Packed::OLDEST, true)] {
                let packed = Packed { began, youngest, apart };
                assert_eq!(Packed::of(packed.word()), Some(packed));
            }
        }
        assert_eq!(Packed::of(0), None);
    }

    /// A supervisor with a timeout of 2 s that looks every second, whose workers take a little to
    /// end. It does not matter which of them is seen first.
    #[test]
    fn a_supervisor_closes_the_oldest() {
        let first = [(10_120, 12_401), (10_000, 12_410), (10_360, 12_420), (10_240, 12_560)];
        let second = [(10_480, 13_402), (10_600, 13_404), (10_840, 13_405), (10_720, 13_406)];
        assert_eq!(spared(&[first, second].concat()), (4, 0));
        // One, and then all the others.
        let closed = [(10_000, 12_050), (10_120, 13_051), (10_240, 13_051), (10_360, 13_052)];
        assert_eq!(spared(&closed), (2, 0));
    }

    /// Guards against crashes being taken for that.
    #[test]
    fn crashes_close_any() {
        // Whole processes: nothing lives on.
        let all = [(10_000, 12_500), (11_000, 12_500), (13_000, 15_000), (14_000, 15_001)];
        assert_eq!(spared(&all), (0, 0));
        // Each on its own: those that lived on were older.
        let each = [(11_000, 12_500), (10_000, 13_500), (12_000, 14_500), (11_200, 15_500)];
        assert_eq!(spared(&each), (0, 2));
        // One after the other, in the order in which they came: nothing tells.
        let turns = [(10_000, 12_500), (11_000, 13_500), (12_000, 14_500), (13_000, 15_500)];
        assert_eq!(spared(&turns), (0, 0));
        // What is noted late tells nothing.
        assert_eq!(spared(&[(10_000, 12_500), (9_000, 12_000)]), (0, 0));
    }

    #[test]
    fn what_was_before_is_forgotten() {
        let sweeps = Sweeps::default();
        (0..200).for_each(|_| sweeps.add(Spared { younger: 0, older: 1 }));
        assert!(sweeps.read().older <= COUNTED);
        (0..400).for_each(|_| sweeps.add(Spared { younger: 1, older: 0 }));
        assert!(sweeps.read().older <= 1 && sweeps.read().younger >= COUNTED / 2);
        sweeps.clear();
        assert_eq!(sweeps.read(), Spared::default());
    }
}
