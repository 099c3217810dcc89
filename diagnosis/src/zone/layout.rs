//! How the memory is divided.
//!
//! Behind the head: the peers, the upstreams, the index of each, the timeline, and in the rest the
//! ring of records.

use super::head::Head;
use super::slots::{PeerSlot, UpstreamSlot};
use super::timeline::{STEPS, Step};

/// Bytes set aside for a record. Most take less; one with many attempts takes more, and older ones
/// give way to it.
const RECORD: usize = 1_400;

/// Peers for each record, where the configuration leaves it open.
const PEERS_PER_RECORD: usize = 2;

/// To be raised where what is kept comes to mean something else at the same size: the order of the
/// causes, what is packed into a word.
const MEANING: usize = 1;

/// The least that a zone is made for.
const LEAST: usize = 16;

/// Slots beyond those of configured and resolved peers: for attempts without a peer, and for
/// `other`.
pub(super) const MORE_PEERS: usize = 64;

/// Slots beyond those of named upstreams: for `other`, and for what belongs to none.
pub(super) const MORE_UPSTREAMS: usize = 2;

/// Sizes of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Peers that have a place, and upstreams too: each has at least one peer.
    pub peers: usize,
    /// Bytes for records.
    pub ring: usize,
}

/// The memory does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Bytes that would.
    pub least: usize,
}

impl Layout {
    /// Divides the bytes of a zone; `peers` and `events` are what the configuration asks for.
    ///
    /// # Errors
    /// [`TooSmall`] if they do not suffice.
    pub fn fit(
        bytes: usize,
        peers: Option<usize>,
        events: Option<usize>,
    ) -> Result<Layout, TooSmall> {
        let layout = |peers, events: usize| Layout { peers, ring: events.saturating_mul(RECORD) };
        let least = layout(peers.unwrap_or(LEAST), events.unwrap_or(LEAST));
        if least.bytes() > bytes {
            return Err(TooSmall { least: least.bytes() });
        }
        let fits = |peers: usize| {
            let events = events.unwrap_or(peers / PEERS_PER_RECORD);
            layout(peers, events).bytes() <= bytes
        };
        let peers = peers.unwrap_or_else(|| most(LEAST, bytes, fits));
        let fixed = layout(peers, 0).bytes();
        Ok(Layout { peers, ring: bytes.saturating_sub(fixed) })
    }

    /// Bytes of everything.
    pub fn bytes(&self) -> usize {
        let parts = [
            size_of::<Head>(),
            self.peer_slots().saturating_mul(size_of::<PeerSlot>()),
            self.upstream_slots().saturating_mul(size_of::<UpstreamSlot>()),
            index(self.peer_slots()).saturating_mul(size_of::<u32>()),
            index(self.upstream_slots()).saturating_mul(size_of::<u32>()),
            STEPS.saturating_mul(size_of::<Step>()),
            self.ring,
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    /// The sizes of all parts and of what they are made of, as text: memory made with another one
    /// cannot be read.
    pub fn fingerprint(&self) -> String {
        let sizes = [
            MEANING,
            size_of::<Head>(),
            size_of::<PeerSlot>(),
            size_of::<UpstreamSlot>(),
            size_of::<Step>(),
            self.peers,
            self.ring,
        ];
        sizes.map(|size| size.to_string()).join("_")
    }

    /// Number of slots for peers.
    pub fn peer_slots(&self) -> usize {
        self.peers.saturating_add(MORE_PEERS)
    }

    /// Number of slots for upstreams.
    pub fn upstream_slots(&self) -> usize {
        self.peers.saturating_add(MORE_UPSTREAMS)
    }

    /// Places in the index of the peers.
    pub fn peer_index(&self) -> usize {
        index(self.peer_slots())
    }

    /// Places in the index of the upstreams.
    pub fn upstream_index(&self) -> usize {
        index(self.upstream_slots())
    }

    /// Steps of the timeline.
    pub fn steps(&self) -> usize {
        STEPS
    }
}

/// An index half full at most keeps searches short.
fn index(slots: usize) -> usize {
    slots.saturating_mul(2).checked_next_power_of_two().unwrap_or(usize::MAX)
}

/// The largest number from `least` on that `fits`, which all smaller ones do too.
fn most(least: usize, above: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fit, mut not) = (least, above);
    while fit.saturating_add(1) < not {
        let middle = fit.midpoint(not);
        if fits(middle) {
            fit = middle;
        } else {
            not = middle;
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of 2m is left by nginx's slab allocator.
    const TWO_MEGABYTES: usize = 506 * 4_096;

    #[test]
    fn two_megabytes_hold_what_the_documentation_says() {
        let layout = Layout::fit(TWO_MEGABYTES, None, None).unwrap();
        assert!(layout.peers >= 1_000, "{layout:?}");
        assert!(layout.ring >= 500 * RECORD, "{layout:?}");
        assert_eq!(layout.bytes(), TWO_MEGABYTES);
        assert!(Layout::fit(TWO_MEGABYTES, Some(1_000), Some(500)).is_ok());
    }

    #[test]
    fn parts_are_as_wished_or_refused() {
        for (peers, events) in
            [(Some(10), None), (None, Some(10)), (Some(3_000), Some(100)), (None, None)]
        {
            let layout = Layout::fit(8 << 20, peers, events).unwrap();
            assert!(peers.is_none_or(|peers| layout.peers == peers));
            assert!(events.is_none_or(|events| layout.ring >= events * RECORD));
            assert!(layout.bytes() <= 8 << 20);
            // All but a remainder is used.
            assert!(layout.bytes() + 4_096 > 8 << 20, "{layout:?}");
        }
        let TooSmall { least } = Layout::fit(TWO_MEGABYTES, Some(5_000), Some(5_000)).unwrap_err();
        assert!(Layout::fit(least, Some(5_000), Some(5_000)).is_ok());
        assert!(Layout::fit(least - 1, Some(5_000), Some(5_000)).is_err());
        assert!(Layout::fit(0, None, None).is_err());
        assert!(Layout::fit(usize::MAX / 2, Some(usize::MAX), Some(usize::MAX)).is_err());
    }

    /// Guards against parts that begin at an address atomics of 64 bits cannot have.
    #[test]
    fn parts_are_aligned() {
        for bytes in
            [size_of::<Head>(), size_of::<PeerSlot>(), size_of::<UpstreamSlot>(), size_of::<Step>()]
        {
            assert_eq!(bytes % align_of::<u64>(), 0);
        }
        assert!(index(1).is_multiple_of(2));
    }
}
