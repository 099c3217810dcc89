//! What all workers share: counters, and a ring of the latest records.
//!
//! Records are kept as the JSON they were logged as: the status endpoint sends them on as they
//! are. Counters are atomics.

use std::sync::atomic::{AtomicU64, Ordering};

use diagnosis::ring::Ring;
use diagnosis::{Cause, Outcome, Totals};

/// The head of the zone; the ring's bytes follow it. Its layout is part of the zone's name
/// (`ffi::zone`).
#[repr(C)]
pub(crate) struct Shared {
    capacity: AtomicU64,
    /// Positions in the ring.
    pub(crate) ring: Ring,
    dropped: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    causes: [AtomicU64; Cause::ALL.len()],
}

impl Shared {
    /// Sets the size of the ring, once, when the zone is made.
    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.capacity.store(bytes as u64, Ordering::Relaxed);
    }

    /// Size of the ring, bytes.
    pub(crate) fn capacity(&self) -> usize {
        usize::try_from(self.capacity.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Counts a record by its verdict.
    pub(crate) fn count(&self, outcome: Outcome, cause: Cause) {
        for (counters, at) in
            [(&self.outcomes[..], outcome.index()), (&self.causes[..], cause.index())]
        {
            if let Some(counter) = counters.get(at) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a record that could not be kept or written.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that could not be kept or written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The counters.
    pub(crate) fn totals(&self) -> Totals {
        let read = |counters: &[AtomicU64]| {
            counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect()
        };
        Totals { outcomes: read(&self.outcomes), causes: read(&self.causes) }
    }
}
