//! At which ages connections are closed: clusters of ages, not the ages themselves.
//!
//! An upstream's timeout closes connections at one age, whatever it is; crashes come at any. So a
//! few intervals are kept that lie where the ages do. Fixed buckets would have to be fine enough
//! for each timeout there may be, and a timeout on the border of two would be split.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Clusters that are kept: one for the timeout, the others are taken over and over by what lies
/// outside of it.
const CLUSTERS: usize = 6;

/// The least age that is kept, milliseconds. A timeout below a second is rarely configured, and
/// on a busy connection every close comes at an age below: they would look like a cluster.
pub(crate) const SHORTEST: u64 = 900;

/// How wide a cluster may be, milliseconds: an eighth of the age, since some servers look for what
/// has timed out once in a while only, or this.
const WIDTH: u64 = 100;

/// How wide a cluster of ages from this one on may be.
pub(crate) fn widest(from: u64) -> u64 {
    WIDTH.max(from / 8)
}

/// Bits of a mark of one of the latest closes, of which a word holds 16: 0 is none, then come the
/// numbers of clusters from 1 on. When a timeout is changed, their order tells of it long before
/// the sums do.
const MARK: u32 = 4;

/// Closes at one time are one event, however many connections it closes: requests that came
/// together have one age when their process crashes. Milliseconds.
const AT_ONCE: u64 = 100;

/// Stands for a close that no cluster has, or none any more.
const OUTSIDE: u64 = 15;

/// Tries to write against other workers. After that the close is not counted.
const TRIES: usize = 4;

/// Ages of closes.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Ages {
    /// Interval and count in one word each (see [`Packed`]): so they belong together whatever
    /// other workers write.
    clusters: [AtomicU64; CLUSTERS],
    /// Sums of the ages of each.
    sums: [AtomicU64; CLUSTERS],
    /// Marks of the latest closes, the newest in the lowest bits.
    latest: AtomicU64,
    /// When the latest event began, shifted by three bits for the number of its marks.
    event: AtomicU64,
    /// All closes.
    total: AtomicU64,
}

/// How often closes happened at which age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    /// All of them.
    pub total: u64,
    /// Of how many the order is known: the latest, of those at one time a few.
    pub latest: u64,
    /// Where they are dense.
    pub clusters: Vec<Cluster>,
}

/// An interval of ages, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The lowest.
    pub from: u64,
    /// The highest.
    pub to: u64,
    /// The mean.
    pub mean: u64,
    /// How many there were.
    pub count: u64,
    /// How many of the latest closes.
    pub latest: u64,
}

impl Cluster {
    /// Both as one.
    pub(crate) fn joined(self, other: Cluster) -> Cluster {
        let count = self.count.saturating_add(other.count);
        let sum = |cluster: Cluster| cluster.mean.saturating_mul(cluster.count);
        Cluster {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            mean: sum(self).saturating_add(sum(other)).checked_div(count).unwrap_or(self.mean),
            count,
            latest: self.latest.saturating_add(other.latest),
        }
    }
}

impl Closes {
    /// Of the latest, how many have their bit set: the newest has the lowest.
    pub(super) fn outlived(&self, bits: u64) -> u64 {
        let known = 1_u64.checked_shl(u32::try_from(self.latest).unwrap_or(0)).unwrap_or(0);
        (bits & known.wrapping_sub(1)).count_ones().into()
    }
}

impl Ages {
    /// Counts a close at an age, both in milliseconds. Which of the marks of its event it got, from
    /// 1 on; 0 for none. An event has `most` marks, 7 at most.
    pub(super) fn count(&self, age: u64, now: u64, most: u64) -> u64 {
        self.total.fetch_add(1, Relaxed);
        let kept = (SHORTEST..=Packed::MOST).contains(&age);
        let at = kept.then(|| self.keep(age)).flatten();
        let mark = at.and_then(|at| u64::try_from(at).ok()?.checked_add(1)).unwrap_or(OUTSIDE);
        let number = self.number_in_event(now, most);
        if number > 0 {
            self.change_latest(|latest| latest << MARK | mark);
        }
        number
    }

    fn number_in_event(&self, now: u64, most: u64) -> u64 {
        let event = self.event.load(Relaxed);
        let (began, marks) = (event >> 3, event & 7);
        // Another worker that does this at the same time marks one more.
        let (began, number) = if began.abs_diff(now) > AT_ONCE || marks == 0 {
            (now, 1)
        } else if marks < most {
            (began, marks.saturating_add(1))
        } else {
            return 0;
        };
        self.event.store(began << 3 | number, Relaxed);
        number
    }

    /// Adds the age to the nearest cluster that reaches it, or begins one. The place of that.
    fn keep(&self, age: u64) -> Option<usize> {
        (0..TRIES).find_map(|_| {
            let words = self.clusters.each_ref().map(|word| word.load(Relaxed));
            let reached = words.iter().enumerate().filter_map(|(at, word)| {
                let cluster = Packed::of(*word)?;
                Some((cluster.distance(age), at, *word, cluster.with(age)?))
            });
            if let Some((_, at, word, with)) = reached.min_by_key(|(distance, ..)| *distance) {
                self.replace(at, word, with)?;
                self.sums.get(at)?.fetch_add(age, Relaxed);
                return Some(at);
            }
            let at = self.least_needed(&words)?;
            self.replace(at, *words.get(at)?, Packed::begin(age))?;
            self.sums.get(at)?.store(age, Relaxed);
            self.change_latest(|latest| forget(latest, at));
            Some(at)
        })
    }

    /// A free place, or that of the smallest cluster; of several the one not seen for longest.
    fn least_needed(&self, words: &[u64; CLUSTERS]) -> Option<usize> {
        let latest = self.latest.load(Relaxed);
        let unseen = |at: usize| {
            let seen = marks(latest).position(|mark| is_mark_of(mark, at));
            std::cmp::Reverse(seen.unwrap_or(usize::MAX))
        };
        let count = |word: u64| Packed::of(word).map_or(0, |cluster| cluster.count);
        let places = words.iter().enumerate();
        places.min_by_key(|(at, word)| (count(**word), unseen(*at))).map(|(at, _)| at)
    }

    fn replace(&self, at: usize, old: u64, new: Packed) -> Option<()> {
        let word = self.clusters.get(at)?;
        word.compare_exchange(old, new.word(), Relaxed, Relaxed).ok().map(|_| ())
    }

    fn change_latest(&self, change: impl Fn(u64) -> u64) {
        for _ in 0..TRIES {
            let old = self.latest.load(Relaxed);
            if self.latest.compare_exchange(old, change(old), Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    pub(super) fn clear(&self) {
        let counts = [&self.latest, &self.event, &self.total];
        let all = self.clusters.iter().chain(&self.sums).chain(counts);
        all.for_each(|word| word.store(0, Relaxed));
    }

    pub(super) fn read(&self) -> Closes {
        let total = self.total.load(Relaxed);
        if total == 0 {
            return Closes::default();
        }
        let latest = self.latest.load(Relaxed);
        let clusters = self.clusters.iter().zip(&self.sums).enumerate();
        let clusters = clusters.filter_map(|(at, (word, sum))| {
            let Packed { from, width, count } = Packed::of(word.load(Relaxed))?;
            let to = from.saturating_add(width);
            // The sum is written apart from the count: between them the mean can be off.
            let mean = sum.load(Relaxed).checked_div(count)?.clamp(from, to);
            let latest = marks(latest).filter(|mark| is_mark_of(*mark, at)).count() as u64;
            Some(Cluster { from, to, mean, count, latest })
        });
        Closes { total, latest: marks(latest).count() as u64, clusters: clusters.collect() }
    }
}

/// The marks there are, newest first.
fn marks(latest: u64) -> impl Iterator<Item = u64> {
    let rest = std::iter::successors(Some(latest), |latest| Some(latest >> MARK));
    rest.map(|latest| latest & OUTSIDE).take_while(|mark| *mark != 0)
}

fn is_mark_of(mark: u64, at: usize) -> bool {
    mark.checked_sub(1) == u64::try_from(at).ok()
}

/// The latest closes, those of a cluster that is given up outside of all.
fn forget(latest: u64, at: usize) -> u64 {
    let marks = marks(latest).map(|mark| if is_mark_of(mark, at) { OUTSIDE } else { mark });
    let marks: Vec<u64> = marks.collect();
    marks.iter().rev().fold(0, |latest, mark| latest << MARK | mark)
}

/// A cluster as one word: 25 bits for its lowest age, 22 for its width, 17 for its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    from: u64,
    width: u64,
    count: u64,
}

impl Packed {
    /// The highest age that can be kept: nine hours. An eighth of it fits the width.
    const MOST: u64 = (1 << 25) - 1;
    const WIDEST: u64 = (1 << 22) - 1;
    const MOST_COUNTED: u64 = (1 << 17) - 1;

    fn begin(age: u64) -> Packed {
        Packed { from: age, width: 0, count: 1 }
    }

    fn of(word: u64) -> Option<Packed> {
        let (from, width) = (word >> 39, word >> 17 & Packed::WIDEST);
        let count = word & Packed::MOST_COUNTED;
        (count > 0).then_some(Packed { from, width, count })
    }

    fn word(self) -> u64 {
        self.from << 39 | self.width << 17 | self.count
    }

    fn to(self) -> u64 {
        self.from.saturating_add(self.width)
    }

    /// With one more age, if that is near enough.
    fn with(self, age: u64) -> Option<Packed> {
        let from = self.from.min(age);
        let width = self.to().max(age).saturating_sub(from);
        let count = self.count.saturating_add(1).min(Packed::MOST_COUNTED);
        (width <= widest(from)).then_some(Packed { from, width, count })
    }

    /// How far an age is from its middle.
    fn distance(self, age: u64) -> u64 {
        self.from.midpoint(self.to()).abs_diff(age)
    }
}

#[cfg(test)]
mod tests;
