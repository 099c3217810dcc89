//! The parts together: counting, adding, reading.

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use super::head::Head;
use super::name::fitting;
use super::slots::{Attempted, PeerSlot, UpstreamSlot};
use super::table::{Key, Slot, Table};
use super::timeline::{self, Step};
use super::{Count, OTHER};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::status::{Dropped, PeerStatus, Timeline, Totals, Upstream, Usage};

/// How long a peer that no configuration names keeps its place unused, milliseconds.
const KEPT: u64 = 3_600_000;

/// How often a place to be taken over is looked for, milliseconds.
const SEARCH: u64 = 1_000;

/// Where a peer is counted.
#[derive(Clone, Copy, Debug)]
pub struct Place<'m> {
    /// Its upstream.
    pub upstream: &'m UpstreamSlot,
    /// The peer, or the one that stands for it.
    pub peer: &'m PeerSlot,
    key: u64,
    /// The peer has no place of its own.
    other: bool,
}

impl Place<'_> {
    /// Whether the place is still that of the peer with this name.
    #[inline]
    pub fn holds(&self, peer: &[u8]) -> bool {
        self.peer.label().holds(self.key, if self.other { OTHER.as_bytes() } else { peer })
    }

    /// Counts an attempt.
    #[inline]
    pub fn count(&self, head: &Head, attempted: Attempted, now: u64) {
        self.peer.count(attempted, now);
        if self.other {
            head.count(Count::Other);
        }
    }
}

/// The memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'m> {
    head: &'m Head,
    peers: Table<'m, PeerSlot>,
    upstreams: Table<'m, UpstreamSlot>,
    steps: &'m [Step],
}

/// All that is counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The sums.
    pub totals: Totals,
    /// What was lost.
    pub dropped: Dropped,
    /// Places for peers.
    pub peers: Usage,
    /// Places for upstreams.
    pub upstreams: Usage,
    /// The upstreams, those that have been configured first.
    pub all: Vec<Upstream>,
    /// The last hour.
    pub timeline: Timeline,
}

/// The parts behind the head, as [`Layout`](super::Layout) gives their sizes.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'m> {
    /// The peers.
    pub peers: &'m [PeerSlot],
    /// The upstreams.
    pub upstreams: &'m [UpstreamSlot],
    /// The index of the peers.
    pub peer_index: &'m [AtomicU32],
    /// The index of the upstreams.
    pub upstream_index: &'m [AtomicU32],
    /// The timeline.
    pub steps: &'m [Step],
}

impl<'m> Memory<'m> {
    /// The memory that these parts make.
    pub fn new(head: &'m Head, parts: Parts<'m>) -> Memory<'m> {
        Memory {
            head,
            peers: Table {
                slots: parts.peers,
                index: parts.peer_index,
                unfinished: &head.unfinished_peers,
            },
            upstreams: Table {
                slots: parts.upstreams,
                index: parts.upstream_index,
                unfinished: &head.unfinished_upstreams,
            },
            steps: parts.steps,
        }
    }

    /// What it begins with.
    pub fn head(&self) -> &'m Head {
        self.head
    }

    /// The place of a peer. An attempt without a peer has an empty name.
    pub fn find(&self, upstream: &[u8], peer: &[u8]) -> Option<Place<'m>> {
        let upstream = self.find_upstream(upstream)?;
        let name = fitting(peer, || self.hash(upstream, peer));
        self.place(upstream, self.peers.find(self.key(upstream, &name))?)
    }

    /// As [`Memory::find`], giving the peer a place if it has none. Without a free one it is that
    /// of `other`. Under the lock.
    pub fn add(&self, upstream: &[u8], peer: &[u8], now: u64) -> Option<Place<'m>> {
        if let Some(place) = self.find(upstream, peer) {
            return Some(place);
        }
        self.add_upstream(upstream, now)
            .and_then(|at| self.add_peer(at, peer, now).or_else(|| self.add_other(at, now)))
            .or_else(|| self.add_other(self.add_upstream(OTHER.as_bytes(), now)?, now))
    }

    /// Makes the places that are there in any case. Under the lock.
    pub fn begin(&self, now: u64) {
        self.add(OTHER.as_bytes(), OTHER.as_bytes(), now);
    }

    /// A new configuration begins: what it does not name is not shown any more. Under the lock.
    pub fn begin_configuration(&self) {
        self.head.begin_configuration();
    }

    /// Gives a peer of the configuration a place. False if there is none. Under the lock.
    pub fn configure(&self, upstream: &[u8], peer: &[u8], now: u64) -> bool {
        let generation = self.head.generation.load(Relaxed);
        let Some(at) = self.add_upstream(upstream, now) else { return false };
        if let Some(slot) = self.upstreams.slot(at) {
            slot.label().set_configured(generation);
        }
        let Some(place) = self.add_peer(at, peer, now) else { return false };
        place.peer.label().set_configured(generation);
        true
    }

    /// Counts a record. `now` is milliseconds on nginx's clock, `time` seconds since the epoch.
    /// Under the lock.
    pub fn count_record(
        &self,
        upstream: Option<&str>,
        (outcome, cause): (Outcome, Cause),
        now: u64,
        time: u64,
    ) {
        self.head.count_record(outcome, cause);
        let name = upstream.unwrap_or_default().as_bytes();
        let at = self.add_upstream(name, now).or_else(|| self.add_upstream(OTHER.as_bytes(), now));
        if let Some(slot) = at.and_then(|at| self.upstreams.slot(at)) {
            slot.count_outcome(outcome);
        }
        timeline::count(self.steps, cause, time);
    }

    /// Reads everything. `now` and `time` as above.
    pub fn read(&self, now: u64, time: u64) -> Read {
        let mut all: Vec<(usize, Upstream)> = self
            .upstreams
            .used()
            .filter(|(_, slot)| self.is_shown(*slot))
            .map(|(at, slot)| (at, slot.read()))
            .collect();
        for (_, slot) in self.peers.used().filter(|(_, slot)| self.is_shown(*slot)) {
            let history = slot.history(now);
            if slot.label().is_substitute() && history.requests() == 0 {
                continue;
            }
            let owner = all.binary_search_by_key(&slot.label().owner(), |(at, _)| *at);
            if let Some((_, upstream)) = owner.ok().and_then(|at| all.get_mut(at)) {
                let name = Some(slot.label().name()).filter(|name| !name.is_empty());
                upstream.peers.push(PeerStatus { peer: name, history, ..PeerStatus::default() });
            }
        }
        let places =
            |used: usize| Usage { used: used as u64, limit: self.head.layout().peers as u64 };
        Read {
            totals: self.head.totals(),
            dropped: self.head.dropped(),
            peers: places(ordinary(&self.peers)),
            upstreams: places(ordinary(&self.upstreams)),
            all: all.into_iter().map(|(_, upstream)| upstream).filter(|u| !is_empty(u)).collect(),
            timeline: timeline::read(self.steps, time),
        }
    }

    /// Whether the configuration in use names it, or none ever did.
    fn is_shown<S: Slot>(&self, slot: &S) -> bool {
        let configured = slot.label().configured();
        configured == 0 || configured == self.head.generation.load(Relaxed)
    }

    fn place(&self, upstream: usize, peer: usize) -> Option<Place<'m>> {
        let (upstream, peer) = (self.upstreams.slot(upstream)?, self.peers.slot(peer)?);
        Some(Place { upstream, peer, key: peer.label().key(), other: false })
    }

    fn find_upstream(&self, name: &[u8]) -> Option<usize> {
        let name = fitting(name, || self.hash(0, name));
        self.upstreams.find(self.key(0, &name))
    }

    fn add_upstream(&self, name: &[u8], now: u64) -> Option<usize> {
        let name = fitting(name, || self.hash(0, name));
        let key = self.key(0, &name);
        self.upstreams.find(key).or_else(|| {
            let room = self.make_room(&self.upstreams, &name, now, |at, slot| {
                let owned = || self.peers.used().any(|(_, peer)| peer.label().owner() == at);
                slot.label().since().saturating_add(KEPT) < now && !owned()
            });
            room.then(|| self.upstreams.add(key, now)).flatten()
        })
    }

    fn add_peer(&self, upstream: usize, name: &[u8], now: u64) -> Option<Place<'m>> {
        let name = fitting(name, || self.hash(upstream, name));
        let key = self.key(upstream, &name);
        let peer = self.peers.find(key).or_else(|| {
            let room = self.make_room(&self.peers, &name, now, |_, slot| {
                slot.last_used().saturating_add(KEPT) < now
            });
            room.then(|| self.peers.add(key, now)).flatten()
        })?;
        self.place(upstream, peer)
    }

    fn add_other(&self, upstream: usize, now: u64) -> Option<Place<'m>> {
        let place = self.add_peer(upstream, OTHER.as_bytes(), now)?;
        Some(Place { other: true, ..place })
    }

    /// Whether a table has a slot for a name, after giving up one that is not needed any more.
    /// The slots beyond the limit are for names that stand for others.
    fn make_room<S: Slot>(
        &self,
        table: &Table<'m, S>,
        name: &[u8],
        now: u64,
        is_old: impl Fn(usize, &S) -> bool,
    ) -> bool {
        if is_substitute(name) || ordinary(table) < self.head.layout().peers {
            return true;
        }
        // A client that makes up names would have this search made with every request.
        let searched = self.head.searched.load(Relaxed);
        if searched != 0 && now.saturating_sub(searched) < SEARCH {
            return false;
        }
        let generation = self.head.generation.load(Relaxed);
        let removed = |slot: &S| {
            let configured = slot.label().configured();
            configured != 0 && configured != generation
        };
        let old = |(at, slot): &(usize, &S)| slot.label().configured() == 0 && is_old(*at, slot);
        let named = || table.used().filter(|(_, slot)| !slot.label().is_substitute());
        let found = named().find(|(_, slot)| removed(slot)).or_else(|| named().find(old));
        match found {
            Some((at, _)) => table.remove(at),
            None => self.head.searched.store(now, Relaxed),
        }
        found.is_some()
    }

    fn key<'a>(&self, owner: usize, name: &'a [u8]) -> Key<'a> {
        Key { hash: self.hash(owner, name), owner, name }
    }

    fn hash(&self, owner: usize, name: &[u8]) -> u64 {
        let [first, second] = &self.head.seed;
        let mut hasher = SipHasher13::new_with_keys(first.load(Relaxed), second.load(Relaxed));
        hasher.write_u64(owner as u64);
        hasher.write(name);
        hasher.finish()
    }
}

/// Slots that are not of names which stand for others.
fn ordinary<S: Slot>(table: &Table<'_, S>) -> usize {
    table.used().filter(|(_, slot)| !slot.label().is_substitute()).count()
}

/// Whether an upstream stands for others and there are none.
fn is_empty(upstream: &Upstream) -> bool {
    is_substitute(upstream.name.as_bytes())
        && upstream.peers.is_empty()
        && upstream.outcomes.iter().all(|count| *count == 0)
}

fn is_substitute(name: &[u8]) -> bool {
    name.is_empty() || name == OTHER.as_bytes()
}

#[cfg(test)]
mod tests;
