//! When a peer accepted no connections.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Outages that are kept once they are over.
const KEPT: usize = 4;

/// Outages. Times are milliseconds of nginx's clock, as in the peer's slot.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Outages {
    /// The one that goes on, or 0 (see [`Packed`]).
    current: AtomicU64,
    /// The latest failure in it.
    last: AtomicU64,
    /// Those that are over, in the order of their ends, which begins at `next`.
    over: [AtomicU64; KEPT],
    next: AtomicU32,
    /// Keeps what follows aligned.
    _reserved: AtomicU32,
}

/// A time in which every connection failed, milliseconds ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the first failed.
    pub from: u64,
    /// When one was made again; of an outage that goes on, when the last failed.
    pub to: u64,
    /// How many failed, as far as 255.
    pub failures: u64,
    /// All were refused: nobody listened. Otherwise some got no answer, which can also be the
    /// network.
    pub refused: bool,
}

impl Outage {
    /// How long it took, milliseconds.
    pub fn length(&self) -> u64 {
        self.from.saturating_sub(self.to)
    }
}

impl Outages {
    /// Notes a connection that could not be made.
    pub(super) fn failed(&self, refused: bool, at: u64) {
        // Another worker that ends or begins the outage at the same time has the better news.
        let old = self.current.load(Relaxed);
        let new = match Packed::of(old) {
            None => Packed { from: at / UNIT, length: 0, failures: 1, refused },
            Some(current) => Packed {
                failures: current.failures.saturating_add(1).min(Packed::MOST),
                refused: current.refused && refused,
                ..current
            },
        };
        let _ = self.current.compare_exchange(old, new.word(), Relaxed, Relaxed);
        self.last.fetch_max(at, Relaxed);
    }

    /// Whether one goes on.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.current.load(Relaxed) != 0
    }

    /// Notes that a connection was made, on which a good attempt began at a time.
    pub(super) fn accepted(&self, began: u64) {
        let old = self.current.load(Relaxed);
        let Some(current) = Packed::of(old) else { return };
        // What was begun before the last failure says nothing of the time after it.
        if began <= self.last.load(Relaxed) {
            return;
        }
        if self.current.compare_exchange(old, 0, Relaxed, Relaxed).is_err() {
            return;
        }
        let length = (began / UNIT).saturating_sub(current.from).min(Packed::LONGEST);
        let at = self.next.fetch_add(1, Relaxed) as usize % KEPT;
        if let Some(place) = self.over.get(at) {
            place.store(Packed { length, ..current }.word(), Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        let words = self.over.iter().chain([&self.current, &self.last]);
        words.for_each(|word| word.store(0, Relaxed));
        self.next.store(0, Relaxed);
    }

    /// The one that goes on.
    pub(super) fn current(&self, now: u64) -> Option<Outage> {
        let current = Packed::of(self.current.load(Relaxed))?;
        let from = now.saturating_sub(current.from.saturating_mul(UNIT));
        // The time of the last failure is exact, that of the first is not.
        let to = now.saturating_sub(self.last.load(Relaxed)).min(from);
        Some(Outage { from, to, failures: current.failures, refused: current.refused })
    }

    /// Those that are over, the oldest first.
    pub(super) fn over(&self, now: u64) -> Vec<Outage> {
        let next = self.next.load(Relaxed) as usize;
        if next == 0 {
            return Vec::new();
        }
        let places = (0..KEPT).filter_map(|step| self.over.get(next.wrapping_add(step) % KEPT));
        let mut over: Vec<Outage> = places
            .filter_map(|place| Packed::of(place.load(Relaxed)))
            .map(|outage| {
                let ago = |time: u64| now.saturating_sub(time.saturating_mul(UNIT));
                let to = ago(outage.from.saturating_add(outage.length));
                let Packed { from, failures, refused, .. } = outage;
                Outage { from: ago(from), to, failures, refused }
            })
            .collect();
        // Two workers that end one each can take their places in the other order.
        over.sort_by_key(|outage| std::cmp::Reverse(outage.to));
        over
    }
}

/// What times of outages are kept in, milliseconds.
const UNIT: u64 = 100;

/// An outage as one word, so that its ends belong together whatever other workers write: the
/// lowest bit is set, then whether all was refused, 8 bits for the failures, 22 for the length, 32
/// for the start. In [`UNIT`]s that is 13 years from the start of the host, and four days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    from: u64,
    length: u64,
    failures: u64,
    refused: bool,
}

impl Packed {
    const LONGEST: u64 = (1 << 22) - 1;
    const MOST: u64 = (1 << 8) - 1;

    fn of(word: u64) -> Option<Packed> {
        let (length, failures) = (word >> 10 & Packed::LONGEST, word >> 2 & Packed::MOST);
        let refused = word & 2 != 0;
        (word & 1 != 0).then_some(Packed { from: word >> 32, length, failures, refused })
    }

    fn word(self) -> u64 {
        let from = self.from & u64::from(u32::MAX);
        let flags = u64::from(self.refused) << 1 | 1;
        from << 32 | self.length << 10 | self.failures << 2 | flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(from: u64, to: u64, failures: u64, refused: bool) -> Outage {
        Outage { from, to, failures, refused }
    }

    #[test]
    fn words_hold_an_outage() {
        for from in [0, 1, u64::from(u32::MAX)] {
            for length in [0, Packed::LONGEST] {
                for (failures, refused) in [(1, false), (Packed::MOST, true)] {
                    let packed = Packed { from, length, failures, refused };
                    assert_eq!(Packed::of(packed.word()), Some(packed));
                }
            }
        }
        assert_eq!(Packed::of(0), None);
    }

    #[test]
    fn outages_begin_and_end() {
        let outages = Outages::default();
        assert!(!outages.is_open());
        outages.accepted(1);
        outages.failed(true, 10_000);
        outages.failed(true, 14_250);
        assert!(outages.is_open());
        assert_eq!(outages.current(15_000), Some(outage(5_000, 750, 2, true)));
        outages.accepted(20_000);
        assert_eq!(outages.current(21_000), None);
        assert_eq!(outages.over(30_000), [outage(20_000, 10_000, 2, true)]);
        outages.failed(true, 30_000);
        outages.failed(false, 31_000);
        outages.accepted(32_000);
        let over = outages.over(40_000);
        assert_eq!(over, [outage(30_000, 20_000, 2, true), outage(10_000, 8_000, 2, false)]);
        assert_eq!(over[1].length(), 2_000);
        outages.clear();
        assert_eq!((outages.over(50_000), outages.current(50_000)), (vec![], None));
    }

    /// Guards against an outage that is taken for over because of a request that was under way
    /// when it began: a server that is told to stop ends those first.
    #[test]
    fn what_was_under_way_ends_no_outage() {
        let outages = Outages::default();
        outages.failed(true, 10_000);
        outages.accepted(9_000);
        outages.accepted(10_000);
        assert!(outages.is_open());
        outages.accepted(12_600);
        assert!(!outages.is_open());
    }

    #[test]
    fn the_latest_are_kept() {
        let outages = Outages::default();
        for n in 1..=6 {
            outages.failed(true, n * 10_000);
            outages.accepted(n * 10_000 + 1_000);
        }
        let over = outages.over(100_000);
        let starts: Vec<u64> = over.iter().map(|outage| 100_000 - outage.from).collect();
        assert_eq!(starts, [30_000, 40_000, 50_000, 60_000]);
    }

    /// Guards against outages that never were: workers that write at once may lose one.
    #[test]
    fn workers_write_at_once() {
        let outages = Outages::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let outages = &outages;
                scope.spawn(move || {
                    for n in 1..5_000_u64 {
                        outages.failed(true, n * 200);
                        outages.accepted(n * 200 + 100);
                    }
                });
            }
        });
        let now = 2_000_000;
        for Outage { from, to, refused, .. } in outages.over(now) {
            assert!(refused && to <= from && from <= now && from >= now - 1_000_000);
        }
    }
}
