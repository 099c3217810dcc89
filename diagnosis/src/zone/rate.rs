//! `rate=`: how many lines a second go to a log, all workers together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The account of one log.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Rate {
    /// The second, and how many lines it had.
    second: AtomicU64,
    /// Lines left out since one was written.
    suppressed: AtomicU64,
}

/// Bits for the lines of a second.
const LINES: u32 = 32;

/// Whether a line may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Yes, and so many were left out since the last one.
    Yes {
        /// Lines left out.
        suppressed: u64,
    },
    /// No: the second has had its lines.
    No,
}

impl Rate {
    /// Forgets what was left out: another configuration may have given the account to another log.
    pub(super) fn begin(&self) {
        self.suppressed.store(0, Relaxed);
    }

    /// Asks for a line in a second since the epoch.
    pub(super) fn allow(&self, lines: u32, now: u64) -> Allowed {
        let taken = self.second.fetch_update(Relaxed, Relaxed, |before| {
            let (second, lines_of_it) = (before >> LINES, before & u64::from(u32::MAX));
            // A worker whose cached time is a little behind is in the same second.
            let same = second == now || second == now.saturating_add(1);
            let count = if same { lines_of_it } else { 0 };
            let second = if same { second } else { now };
            (count < u64::from(lines)).then_some(second << LINES | count.saturating_add(1))
        });
        match taken {
            Ok(_) => Allowed::Yes { suppressed: self.suppressed.swap(0, Relaxed) },
            Err(_) => {
                self.suppressed.fetch_add(1, Relaxed);
                Allowed::No
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_second() {
        let rate = Rate::default();
        let now = 1_800_000_000;
        let asked: Vec<Allowed> = (0..5).map(|_| rate.allow(2, now)).collect();
        let yes = Allowed::Yes { suppressed: 0 };
        assert_eq!(asked, [yes, yes, Allowed::No, Allowed::No, Allowed::No]);
        assert_eq!(rate.allow(2, now + 1), Allowed::Yes { suppressed: 3 });
        assert_eq!(rate.allow(2, now + 1), yes);
        assert_eq!(rate.allow(2, now + 1), Allowed::No);
        // A worker is a little behind the others.
        assert_eq!(rate.allow(2, now), Allowed::No);
        assert_eq!(rate.allow(2, now + 2), Allowed::Yes { suppressed: 2 });
        // The clock was set back.
        assert_eq!(rate.allow(2, now - 100), yes);
        while rate.allow(2, now) != Allowed::No {}
        rate.begin();
        assert_eq!(rate.allow(2, now + 1), Allowed::Yes { suppressed: 0 });
    }
}
