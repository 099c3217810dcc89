//! Where in the zone a peer is counted.
//!
//! Every request of a peer asks, so the answers are remembered: by the address of the name, where
//! nginx has that for as long as its configuration, else by the end of the name, where names differ
//! most. A place may come to be another peer's, and others may have the same end of a name: what is
//! remembered is compared each time.

use std::cell::Cell;

use diagnosis::zone::{Memory, Place};

use crate::directives::MainConf;
use crate::ffi::time;

/// What is remembered, for the life of a configuration.
#[derive(Default)]
pub(crate) struct Places(Vec<Cell<Remembered>>);

#[derive(Clone, Copy, Default)]
struct Remembered {
    /// Address of the group.
    group: usize,
    /// Address of the name, if that is fixed.
    name: usize,
    place: Option<Place<'static>>,
    /// Until when, for a place that stands for others: there may be room again.
    until: u64,
}

/// How long such a place is remembered, milliseconds.
const WHILE: u64 = 1_000;

const WORD: usize = size_of::<usize>();

/// The bits of a product that depend on all of its factors are the upper ones.
const SPREAD: usize = 0x9e37_79b9_7f4a_7c15_u64 as usize;

/// Most places that are remembered: peers beyond are looked up by name.
const MOST: usize = 16_384;

impl Places {
    /// For so many peers.
    pub(crate) fn new(peers: usize) -> Places {
        let size = peers.saturating_mul(4).clamp(64, MOST).next_power_of_two();
        Places((0..size).map(|_| Cell::default()).collect())
    }

    #[inline(always)]
    fn by_address(&self, group: usize, name: usize) -> Option<&Cell<Remembered>> {
        let mask = self.0.len().checked_sub(1)?;
        let spread = (group ^ name).wrapping_mul(SPREAD) >> (usize::BITS / 2);
        self.0.get(spread & mask)
    }

    fn at(&self, group: usize, name: &[u8]) -> Option<&Cell<Remembered>> {
        let mask = self.0.len().checked_sub(1)?;
        let word =
            |bytes: Option<&[u8; WORD]>| bytes.map_or(0, |bytes| usize::from_ne_bytes(*bytes));
        // With what is before the last word: in a large group all may have one port.
        let before = name.last_chunk::<{ 2 * WORD }>().and_then(|end| end.first_chunk());
        let ends = word(name.last_chunk()) ^ word(before.or(name.first_chunk())).rotate_left(23);
        let spread = (group ^ ends).wrapping_mul(SPREAD) >> (usize::BITS / 2);
        self.0.get(spread & mask)
    }
}

/// The place of a peer of a group, if that is remembered by the address of its name, which is one
/// of the configuration's, and the peer has a place of its own.
#[inline(always)]
pub(crate) fn remembered(main: &MainConf, group: usize, peer: &[u8]) -> Option<Place<'static>> {
    let name = peer.as_ptr() as usize;
    let known = main.places.by_address(group, name)?.get();
    let place = known.place.filter(|_| known.group == group && known.name == name)?;
    // Compared all the same: there are balancers that write another name there.
    place.is_own(peer).then_some(place)
}

/// Remembers the place of a peer by the address of its name, which is one of the configuration's.
#[cold]
pub(crate) fn remember_address(main: &MainConf, group: usize, peer: &[u8], place: Place<'static>) {
    let name = peer.as_ptr() as usize;
    if let Some(slot) = main.places.by_address(group, name) {
        slot.set(Remembered { group, name, place: Some(place), until: 0 });
    }
}

/// The place of a peer of a group, which is given one if it has none. `None` if that is not
/// possible.
pub(crate) fn of_group(main: &MainConf, group: usize, peer: &[u8]) -> Option<Place<'static>> {
    let slot = main.places.at(group, peer)?;
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
    slot: &Cell<Remembered>,
) -> Option<Place<'static>> {
    let place = look_up(main, main.groups.name(group)?.as_bytes(), peer)?;
    let until = time::current_msec().saturating_add(WHILE);
    slot.set(Remembered { group, name: usize::MAX, place: Some(place), until });
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
