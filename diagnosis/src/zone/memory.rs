//! The parts together: counting, adding, reading.

use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use super::head::{Head, following};
use super::layout::{MORE_PEERS, MORE_UPSTREAMS};
use super::name::fitting;
use super::slots::{Attempted, PeerSlot, UpstreamSlot};
use super::table::{Key, Label, Slot, Table};
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
    /// Whether the peer has no place of its own: it may get one.
    #[inline]
    pub fn is_other(&self) -> bool {
        self.other
    }

    /// Whether the place is still that of the peer with this name.
    #[inline]
    pub fn holds(&self, peer: &[u8]) -> bool {
        self.peer.label().holds(self.key, if self.other { OTHER.as_bytes() } else { peer })
    }

    /// As [`Place::holds`], of a place of the peer's own. It calls nothing, and is false for a name
    /// of less than eight bytes, too.
    #[inline(always)]
    pub fn is_own(&self, peer: &[u8]) -> bool {
        self.peer.label().holds_words(self.key, peer)
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
            peers: Table { slots: parts.peers, index: parts.peer_index, state: &head.peers_state },
            upstreams: Table {
                slots: parts.upstreams,
                index: parts.upstream_index,
                state: &head.upstreams_state,
            },
            steps: parts.steps,
        }
    }

    /// What it begins with.
    pub fn head(&self) -> &'m Head {
        self.head
    }

    /// Where the ring is, which stands behind all other parts: so many bytes from the head.
    pub fn ring_at(&self) -> usize {
        let head = std::ptr::from_ref(self.head) as usize;
        (self.steps.as_ptr_range().end as usize).saturating_sub(head)
    }

    /// The place of a peer. An attempt without a peer has an empty name.
    pub fn find(&self, upstream: &[u8], peer: &[u8]) -> Option<Place<'m>> {
        self.find_peer(self.find_upstream(upstream)?, peer)
    }

    /// As [`Memory::find`], giving the peer a place if it has none. Without a free one it is that
    /// of `other`. Under the lock.
    pub fn add(&self, upstream: &[u8], peer: &[u8], now: u64) -> Option<Place<'m>> {
        self.repair();
        self.add_upstream(upstream, now)
            .and_then(|at| self.add_peer(at, peer, now).or_else(|| self.add_other(at, now)))
            .or_else(|| self.add_other(self.add_upstream(OTHER.as_bytes(), now)?, now))
    }

    /// Makes the places that are there in any case. Under the lock.
    pub fn begin(&self, now: u64) {
        self.add(OTHER.as_bytes(), OTHER.as_bytes(), now);
    }

    /// A new configuration begins, with these upstreams and their peers: each has its place from
    /// the start, and what only those before named is not shown any more. The configuration's
    /// number. Under the lock.
    pub fn configure(&self, upstreams: &[(&str, Vec<&str>)], now: u64) -> u32 {
        self.repair();
        let generation = self.head.next_generation();
        // First what is there: what is left without a mark can give way to what is new.
        let missing = self.mark(upstreams, generation, None);
        let (free_upstreams, free_peers) = self.free();
        if missing.upstreams > free_upstreams || missing.peers > free_peers {
            self.give_up(generation, now, KEPT);
        }
        let (free_upstreams, free_peers) = self.free();
        if missing.upstreams > free_upstreams || missing.peers > free_peers {
            self.give_up(generation, now, 0);
        }
        self.mark(upstreams, generation, Some(now));
        // Only now: until here a reader sees what was there, and what is new already.
        self.head.begin_configuration(generation);
        generation
    }

    /// Marks what a configuration names. With a time it adds what is not there; else it counts
    /// that.
    fn mark(&self, upstreams: &[(&str, Vec<&str>)], generation: u32, add: Option<u64>) -> Missing {
        let mut missing = Missing::default();
        for (name, peers) in upstreams {
            let found = match add {
                Some(now) => self.add_upstream(name.as_bytes(), now),
                None => self.find_upstream(name.as_bytes()),
            };
            let Some((at, upstream)) = found.and_then(|at| Some((at, self.upstreams.slot(at)?)))
            else {
                missing.upstreams = missing.upstreams.saturating_add(1);
                missing.peers = missing.peers.saturating_add(peers.len());
                continue;
            };
            upstream.label().set_configured(generation);
            for peer in peers {
                let found = match add {
                    Some(now) => self.add_peer(at, peer.as_bytes(), now),
                    None => self.find_peer(at, peer.as_bytes()),
                };
                match found {
                    Some(place) => place.peer.label().set_configured(generation),
                    None => missing.peers = missing.peers.saturating_add(1),
                }
            }
        }
        missing
    }

    /// Notes that a peer is in use in the configuration in use, though that does not name it: its
    /// address is made at run time, or found by a resolver.
    pub fn revive(&self, place: Place<'m>) {
        for label in [place.upstream.label(), place.peer.label()] {
            if self.is_stale(label) {
                label.set_configured(0);
            }
        }
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
        self.repair();
        let name = upstream.unwrap_or_default().as_bytes();
        let at = self.add_upstream(name, now).or_else(|| self.add_upstream(OTHER.as_bytes(), now));
        let slot = at.and_then(|at| self.upstreams.slot(at));
        self.count_record_in(slot, (outcome, cause), time);
    }

    /// As [`Memory::count_record`], of the upstream of a place.
    pub fn count_record_at(&self, place: Place<'m>, verdict: (Outcome, Cause), time: u64) {
        self.repair();
        self.count_record_in(Some(place.upstream), verdict, time);
    }

    fn count_record_in(
        &self,
        upstream: Option<&UpstreamSlot>,
        (outcome, cause): (Outcome, Cause),
        time: u64,
    ) {
        self.head.count_record(outcome, cause);
        if let Some(slot) = upstream {
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
            peers: places(self.peers.count(false)),
            upstreams: places(self.upstreams.count(false)),
            all: all.into_iter().map(|(_, upstream)| upstream).filter(|u| !is_empty(u)).collect(),
            timeline: timeline::read(self.steps, time),
        }
    }

    /// Whether the configuration in use names it, or none ever did.
    fn is_shown<S: Slot>(&self, slot: &S) -> bool {
        !self.is_stale(slot.label())
    }

    /// Whether only a configuration before the one in use names it.
    fn is_stale(&self, label: &Label) -> bool {
        is_before(label, self.head.generation())
    }

    fn place(&self, upstream: usize, peer: usize) -> Option<Place<'m>> {
        let (upstream, peer) = (self.upstreams.slot(upstream)?, self.peers.slot(peer)?);
        Some(Place { upstream, peer, key: peer.label().key(), other: false })
    }

    fn find_upstream(&self, name: &[u8]) -> Option<usize> {
        let name = fitting(name, || self.hash(0, name));
        self.upstreams.find(self.upstream_key(&name))
    }

    fn find_peer(&self, upstream: usize, name: &[u8]) -> Option<Place<'m>> {
        let name = fitting(name, || self.hash(0, name));
        self.place(upstream, self.peers.find(self.peer_key(upstream, &name)?)?)
    }

    fn add_upstream(&self, name: &[u8], now: u64) -> Option<usize> {
        let name = fitting(name, || self.hash(0, name));
        let key = self.upstream_key(&name);
        self.upstreams.find(key).or_else(|| {
            let room = self.has_room(&self.upstreams, &name, MORE_UPSTREAMS, now);
            room.then(|| self.upstreams.add(key, now)).flatten()
        })
    }

    fn add_peer(&self, upstream: usize, name: &[u8], now: u64) -> Option<Place<'m>> {
        let name = fitting(name, || self.hash(0, name));
        let key = self.peer_key(upstream, &name)?;
        let peer = self.peers.find(key).or_else(|| {
            let room = self.has_room(&self.peers, &name, MORE_PEERS, now);
            // Making room may have given up the upstream.
            let key = if room { self.peer_key(upstream, &name)? } else { return None };
            self.peers.add(key, now)
        })?;
        self.place(upstream, peer)
    }

    fn add_other(&self, upstream: usize, now: u64) -> Option<Place<'m>> {
        let place = self.add_peer(upstream, OTHER.as_bytes(), now)?;
        Some(Place { other: true, ..place })
    }

    /// Whether a table has a slot for a name, after giving up those that are not needed any more.
    /// There are `more` for names that stand for others.
    fn has_room<S: Slot>(&self, table: &Table<'m, S>, name: &[u8], more: usize, now: u64) -> bool {
        if is_substitute(name) {
            return table.count(true) < more;
        }
        let limit = self.head.layout().peers;
        // A client that makes up names would have this search made with every request.
        let searched = table.state.searched.load(Relaxed);
        let again = searched == 0 || now.saturating_sub(searched) >= SEARCH;
        if table.count(false) >= limit && again {
            table.state.searched.store(now.max(1), Relaxed);
            self.give_up(self.head.generation(), now, KEPT);
        }
        table.count(false) < limit
    }

    /// Slots that are left for upstreams and for peers.
    fn free(&self) -> (usize, usize) {
        let limit = self.head.layout().peers;
        let free = |used: usize| limit.saturating_sub(used);
        (free(self.upstreams.count(false)), free(self.peers.count(false)))
    }

    /// Gives up what only configurations before one name, and what none does and has not been
    /// used for so long. An upstream goes with the last of its peers, and what stood for others in
    /// it with that.
    fn give_up(&self, generation: u32, now: u64, unused: u64) {
        let is_over = |label: &Label, used: u64| {
            let over = label.configured() == 0 && used.saturating_add(unused) <= now;
            !label.is_substitute() && (over || is_before(label, generation))
        };
        let mut kept = vec![false; self.upstreams.slots.len()];
        self.peers.remove(|_, peer| {
            let gone = is_over(peer.label(), peer.last_used());
            if !gone
                && !peer.label().is_substitute()
                && let Some(owner) = kept.get_mut(peer.label().owner())
            {
                *owner = true;
            }
            gone
        });
        let mut gone = vec![false; self.upstreams.slots.len()];
        self.upstreams.remove(|at, upstream| {
            let over = is_over(upstream.label(), upstream.label().since());
            let over = over && kept.get(at) == Some(&false);
            if let Some(place) = gone.get_mut(at) {
                *place = over;
            }
            over
        });
        self.peers.remove(|_, peer| gone.get(peer.label().owner()) == Some(&true));
    }

    fn repair(&self) {
        self.peers.repair();
        self.upstreams.repair();
    }

    fn upstream_key<'a>(&self, name: &'a [u8]) -> Key<'a> {
        Key { hash: self.hash(0, name), owner: 0, name }
    }

    /// Made of the upstream's key, not of its place, which another can take.
    fn peer_key<'a>(&self, upstream: usize, name: &'a [u8]) -> Option<Key<'a>> {
        let label = self.upstreams.slot(upstream)?.label();
        let hash = self.hash(label.key(), name);
        (!label.is_free()).then_some(Key { hash, owner: upstream, name })
    }

    fn hash(&self, of: u64, name: &[u8]) -> u64 {
        let [first, second] = &self.head.seed;
        let mut hasher = SipHasher13::new_with_keys(first.load(Relaxed), second.load(Relaxed));
        hasher.write_u64(of);
        hasher.write(name);
        hasher.finish()
    }
}

/// Whether only a configuration before this one, or the next, names it.
fn is_before(label: &Label, generation: u32) -> bool {
    ![0, generation, following(generation)].contains(&label.configured())
}

/// How much of a configuration has no place yet.
#[derive(Clone, Copy, Default)]
struct Missing {
    upstreams: usize,
    peers: usize,
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
