//! Counts of values by size.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::status;

/// Upper bounds of the buckets of connect times, milliseconds.
pub(super) const CONNECT: &[u64] =
    &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];

/// Upper bounds of the buckets of header sizes, bytes: the sizes that buffers are set to.
pub(super) const HEADER: &[u64] = &[256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536];

/// Places for counts: one more than the longer list has bounds.
const BUCKETS: usize = 16;

const _: () = assert!(CONNECT.len() < BUCKETS && HEADER.len() < BUCKETS);

/// A histogram.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    #[inline]
    pub(super) fn count(&self, bounds: &[u64], value: u64) {
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Relaxed);
            self.sum.fetch_add(value, Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        self.counts.iter().chain([&self.sum]).for_each(|count| count.store(0, Relaxed));
    }

    pub(super) fn read(&self, bounds: &'static [u64]) -> status::Histogram {
        let counts = self.counts.iter().take(bounds.len().saturating_add(1));
        status::Histogram {
            bounds,
            counts: counts.map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_their_bucket() {
        let histogram = Histogram::default();
        for value in [0, 256, 257, 65_536, 65_537, 1 << 40] {
            histogram.count(HEADER, value);
        }
        let read = histogram.read(HEADER);
        assert_eq!(read.counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(read.sum, 256 + 257 + 65_536 + 65_537 + (1 << 40));
        assert!(CONNECT.is_sorted() && HEADER.is_sorted());
        histogram.clear();
        assert_eq!(histogram.read(HEADER).count(), 0);
    }
}
