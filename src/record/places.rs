//! Where in the zone a peer is counted.
//!
//! Every request of a peer asks, so the answers are remembered: by where the name is, if nginx has
//! that for as long as its configuration, else by the end of the name, where names differ most. A
//! place may come to be another peer's, and others may have the same end of a name: what is
//! remembered is compared each time.

use std::cell::Cell;

use diagnosis::zone::{Memory, Place};

use crate::directives::MainConf;
use crate::ffi::peers::SPACING;
use crate::ffi::time;

/// What is remembered, for the life of a configuration.
#[derive(Default)]
pub(crate) struct Places {
    by_address: Vec<Cell<Option<ByAddress>>>,
    by_name: Vec<Cell<ByName>>,
    /// The bits of a number that are not needed to tell the places in that apart.
    shift: u32,
}

/// A peer's own place. Found by its number, which for a power of two takes no multiplication.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct ByAddress {
    /// Address of the group.
    group: usize,
    /// Where nginx has its name.
    at: usize,
    place: Place<'static>,
}

#[derive(Clone, Copy, Default)]
struct ByName {
    /// Address of the group.
    group: usize,
    place: Option<Place<'static>>,
    /// Until when, for a place that stands for others: there may be room again.
    until: u64,
}

/// How long such a place is remembered, milliseconds.
const WHILE: u64 = 1_000;

const WORD: usize = size_of::<usize>();

/// The bits of a product that depend on all of its factors are the upper ones.
pub(crate) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Most places that are remembered: peers beyond are looked up by name.
const MOST: usize = 16_384;

impl Places {
    /// For so many peers.
    pub(crate) fn new(peers: usize) -> Places {
        let size = |factor: usize| peers.saturating_mul(factor).clamp(64, MOST).next_power_of_two();
        // Names fall into their places by chance.
        let (addresses, names) = (size(2), size(8));
        Places {
            by_address: (0..addresses).map(|_| Cell::default()).collect(),
            by_name: (0..names).map(|_| Cell::default()).collect(),
            shift: usize::BITS.saturating_sub(names.trailing_zeros()),
        }
    }

    /// nginx makes the servers of a group in one piece, and its backup servers in another: those of
    /// one are as far apart as an odd number of steps, and so each has a slot of its own.
    #[inline(always)]
    fn at_address(&self, at: usize) -> Option<&Cell<Option<ByAddress>>> {
        const STEP: u32 = SPACING.trailing_zeros();
        let mask = self.by_address.len().checked_sub(1)?;
        self.by_address.get((at >> STEP) & mask)
    }

    #[inline(always)]
    fn at_name(&self, group: usize, name: &[u8]) -> Option<&Cell<ByName>> {
        let word =
            |bytes: Option<&[u8; WORD]>| bytes.map_or(0, |bytes| usize::from_ne_bytes(*bytes));
        // With what is before the last word: in a large group all may have one port.
        let before = name.last_chunk::<{ 2 * WORD }>().and_then(|end| end.first_chunk());
        let last = group ^ word(name.last_chunk());
        // One after the other: digits that differ in both must not make up for each other.
        let spread = |word: usize| word.wrapping_mul(SPREAD as usize);
        let spread = spread(spread(last) ^ word(before.or(name.first_chunk())));
        self.by_name.get(spread.wrapping_shr(self.shift))
    }
}

/// The place of a peer of a group, if that is remembered, and the peer has a place of its own.
/// `peer`: where nginx has the name, and the name.
#[inline(always)]
pub(crate) fn remembered(
    main: &'static MainConf,
    group: usize,
    (at, peer): (usize, &[u8]),
) -> Option<Place<'static>> {
    // Compared all the same: there are balancers that write another name there.
    match main.places.at_address(at)?.get() {
        Some(known) if known.group == group && known.at == at => {
            known.place.is_own(peer).then_some(known.place)
        }
        _ => remembered_name(main, group, peer),
    }
}

/// As [`remembered`], by the name alone.
#[inline(always)]
fn remembered_name(main: &'static MainConf, group: usize, peer: &[u8]) -> Option<Place<'static>> {
    let known = main.places.at_name(group, peer)?.get();
    let place = known.place.filter(|place| known.group == group && !place.is_other())?;
    place.is_own(peer).then_some(place)
}

/// Remembers the place of a peer by where its name is, which is in the configuration.
#[cold]
pub(crate) fn remember_address(main: &MainConf, group: usize, at: usize, place: Place<'static>) {
    if let Some(slot) = main.places.at_address(at) {
        slot.set(Some(ByAddress { group, at, place }));
    }
}

/// The place of a peer of a group, which is given one if it has none. `None` if that is not
/// possible.
pub(crate) fn of_group(main: &MainConf, group: usize, peer: &[u8]) -> Option<Place<'static>> {
    let slot = main.places.at_name(group, peer)?;
    let known = slot.get();
    match known.place {
        Some(place) if known.group == group && place.holds(peer) => {
            if place.is_other() && time::current_msec() >= known.until {
                return remember(main, group, peer, slot);
            }
            Some(place)
        }
        _ => remember(main, group, peer, slot),
    }
}

#[cold]
fn remember(
    main: &MainConf,
    group: usize,
    peer: &[u8],
    slot: &Cell<ByName>,
) -> Option<Place<'static>> {
    let place = look_up(main, main.groups.name(group)?.as_bytes(), peer)?;
    let until = time::current_msec().saturating_add(WHILE);
    slot.set(ByName { group, place: Some(place), until });
    Some(place)
}

/// The place of a peer by name.
#[cold]
pub(crate) fn look_up(main: &MainConf, upstream: &[u8], peer: &[u8]) -> Option<Place<'static>> {
    let memory = main.memory?;
    let place = memory.find(upstream, peer).or_else(|| {
        let add = |memory: Memory<'static>, _: &mut [u8]| {
            memory.add(upstream, peer, time::current_msec())
        };
        main.locked(add)?
    })?;
    // The workers of a configuration before this one only end their requests.
    if main.generation == memory.head().generation() {
        memory.revive(place);
    }
    Some(place)
}
