//! Where in the zone a peer is counted.
//!
//! Every request of a peer asks, so the answers are remembered by the addresses that nginx has the
//! names at. An address may come to hold another name, and a place another peer: what is
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
    /// Address of the name.
    name: usize,
    place: Option<Place<'static>>,
    /// Until when, for a place that stands for others: there may be room again.
    until: u64,
}

/// How long such a place is remembered, milliseconds.
const WHILE: u64 = 1_000;

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

    #[inline]
    fn at(&self, group: usize, name: usize) -> Option<&Cell<Remembered>> {
        let mask = self.0.len().checked_sub(1)?;
        let spread = (group ^ name).wrapping_mul(SPREAD) >> (usize::BITS / 2);
        self.0.get(spread & mask)
    }
}

/// The place of a peer of a group, which is given one if it has none. `None` if that is not
/// possible.
#[inline(always)]
pub(crate) fn of_group(main: &MainConf, group: usize, peer: &[u8]) -> Option<Place<'static>> {
    let name = peer.as_ptr() as usize;
    let slot = main.places.at(group, name)?;
    let known = slot.get();
    match known.place {
        Some(place) if known.group == group && known.name == name && place.holds(peer) => {
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
    slot.set(Remembered { group, name: peer.as_ptr() as usize, place: Some(place), until });
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
