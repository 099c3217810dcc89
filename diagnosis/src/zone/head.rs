//! What the memory begins with: sizes, sums, and the accounts of the logs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::Layout;
use super::rate::{Allowed, Rate};
use super::ring::Ring;
use super::table::State;
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::status::{Dropped, Totals};

/// Logs that can have a `rate=`.
pub const RATES: usize = 64;

/// What the memory begins with. Zeros are valid: an empty zone.
#[derive(Debug)]
#[repr(C)]
pub struct Head {
    /// Key of the hash: clients may choose names of hosts.
    pub(super) seed: [AtomicU64; 2],
    /// Sizes of the parts: [`Layout`].
    peers: AtomicU64,
    ring_bytes: AtomicU64,
    /// Number of the configuration in use.
    pub(super) generation: AtomicU32,
    /// Keeps what follows aligned.
    _reserved: AtomicU32,
    pub(super) peers_state: State,
    pub(super) upstreams_state: State,
    requests: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    causes: [AtomicU64; Cause::ALL.len()],
    dropped: [AtomicU64; COUNTS],
    rates: [Rate; RATES],
    /// Where the records are.
    pub ring: Ring,
}

/// What is counted besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A record that could not be kept.
    LostRecord,
    /// A log line that could not be written.
    LostLine,
    /// A log line left out by `rate=`.
    Suppressed,
    /// An attempt on a peer without a place of its own.
    Other,
}

const COUNTS: usize = 4;

impl Default for Head {
    fn default() -> Head {
        let zero = || AtomicU64::new(0);
        Head {
            seed: [zero(), zero()],
            peers: zero(),
            ring_bytes: zero(),
            generation: AtomicU32::new(0),
            _reserved: AtomicU32::new(0),
            peers_state: State::default(),
            upstreams_state: State::default(),
            requests: zero(),
            outcomes: [const { AtomicU64::new(0) }; _],
            causes: [const { AtomicU64::new(0) }; _],
            dropped: [const { AtomicU64::new(0) }; _],
            rates: std::array::from_fn(|_| Rate::default()),
            ring: Ring::default(),
        }
    }
}

impl Head {
    /// Begins an empty zone of zeros. `seed` is random.
    pub fn begin(&self, layout: &Layout, seed: [u64; 2]) {
        for (place, seed) in self.seed.iter().zip(seed) {
            place.store(seed, Relaxed);
        }
        self.peers.store(layout.peers as u64, Relaxed);
        self.ring_bytes.store(layout.ring as u64, Relaxed);
    }

    /// The sizes it was begun with.
    pub fn layout(&self) -> Layout {
        let size = |value: &AtomicU64| usize::try_from(value.load(Relaxed)).unwrap_or(0);
        Layout { peers: size(&self.peers), ring: size(&self.ring_bytes) }
    }

    /// Counts a request that was passed to an upstream.
    #[inline]
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts something else.
    pub fn count(&self, what: Count) {
        if let Some(count) = self.dropped.get(what as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a record.
    pub(super) fn count_record(&self, outcome: Outcome, cause: Cause) {
        for (counts, at) in
            [(&self.outcomes[..], outcome.index()), (&self.causes[..], cause.index())]
        {
            if let Some(count) = counts.get(at) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// The number that the next configuration gets.
    pub(super) fn next_generation(&self) -> u32 {
        following(self.generation())
    }

    /// A new configuration is in use.
    pub(super) fn begin_configuration(&self, generation: u32) {
        self.generation.store(generation, Relaxed);
        self.rates.iter().for_each(Rate::begin);
    }

    /// The number of the configuration in use.
    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// Asks for a line in the log with this account, in a second since the epoch.
    pub fn allow(&self, account: usize, lines: u32, now: u64) -> Allowed {
        let allowed = match self.rates.get(account) {
            Some(rate) => rate.allow(lines, now),
            None => Allowed::Yes { suppressed: 0 },
        };
        if allowed == Allowed::No {
            self.count(Count::Suppressed);
        }
        allowed
    }

    pub(super) fn dropped(&self) -> Dropped {
        let read = |what: Count| self.dropped.get(what as usize).map_or(0, |n| n.load(Relaxed));
        Dropped {
            records: read(Count::LostRecord),
            lines: read(Count::LostLine),
            suppressed: read(Count::Suppressed),
            peers: read(Count::Other),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |counts: &[AtomicU64]| counts.iter().map(|n| n.load(Relaxed)).collect();
        Totals {
            requests: self.requests.load(Relaxed),
            outcomes: read(&self.outcomes),
            causes: read(&self.causes),
        }
    }
}

/// The number of the configuration after one; 0 stands for none.
pub(super) fn following(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}
