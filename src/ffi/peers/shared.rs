//! Peers in shared memory.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use diagnosis::peer::Peer;
use nginx_sys::{
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t,
};

use super::{MOST, Numbers, PeerAt, ReadLock, address, find, list};
use crate::ffi::string;
use crate::ffi::time;
use crate::ffi::upstream::Upstream;
use crate::record::SPREAD;

/// Where the peers of a group are in its zone, as they were found a moment ago. Most stay there, but
/// nginx can take them away and give others their memory (a `server` with `resolve`): so what is found
/// is compared, and looked up anew.
#[derive(Default)]
pub(in crate::ffi) struct Shared {
    /// In the order of their keys, and those with one key in the order of the group.
    known: RefCell<Vec<Known>>,
    /// When they were looked up, milliseconds.
    since: Cell<Option<u64>>,
}

struct Known {
    key: u64,
    at: PeerAt,
    backup: bool,
}

/// For how long they are known, and how often they are looked up at most, milliseconds: where a peer
/// is not found, all are gone through to find it.
const WHILE: u64 = 1_000;

impl Shared {
    fn is_fresh(&self) -> bool {
        let since = self.since.get();
        since.is_some_and(|since| time::current_msec().wrapping_sub(since) < WHILE)
    }
}

/// The shared memory of a group's zone, as addresses. `None` if it has none.
#[cfg(nginx_upstream_zone)]
pub(super) fn zone(group: &ngx_http_upstream_srv_conf_t) -> Option<Range<usize>> {
    // SAFETY: NULL, or a zone that lives in the cycle, as the group does.
    let shm = unsafe { &group.shm_zone.as_ref()?.shm };
    let start = shm.addr as usize;
    Some(start..start.saturating_add(shm.size))
}

/// As with zones, in an nginx that was built without.
#[cfg(not(nginx_upstream_zone))]
pub(super) fn zone(_: &ngx_http_upstream_srv_conf_t) -> Option<Range<usize>> {
    None
}

/// What nginx keeps of a peer now, if the peers of its group are shared, and it is where it was when
/// they were looked up.
pub(crate) fn shared_state(upstream: Upstream<'_>, name: &str) -> Option<Peer> {
    let zone = zone(upstream.group()?)?;
    let (servers, shared) = (list(upstream)?, shared(upstream)?);
    if !shared.is_fresh() {
        return None;
    }
    let (name, known) = (name.as_bytes(), shared.known.try_borrow().ok()?);
    let key = key(name);
    let alike = known.get(known.partition_point(|known| known.key < key)..)?;
    alike.iter().take_while(|known| known.key == key).find_map(|known| {
        // SAFETY: lists that nginx made.
        let numbers = unsafe {
            let list = if known.backup { (*servers).next } else { servers };
            numbers_at(list, known.at, &zone, name)?
        };
        Some(numbers.into_peer(String::new(), known.backup))
    })
}

/// Looks up where the peers of a group are, if they are shared, and this was not done a moment ago.
pub(super) fn look_up(upstream: Upstream<'_>) {
    let (Some(servers), Some(shared)) = (list(upstream), shared(upstream)) else { return };
    if upstream.group().and_then(zone).is_none() || shared.is_fresh() {
        return;
    }
    shared.since.set(Some(time::current_msec()));
    let mut all = Vec::new();
    // SAFETY: lists that nginx made. There is room before the lock is taken, as nothing may be
    // allocated under it; a list that has grown meanwhile is not read to its end.
    unsafe {
        for (list, backup) in [(servers, false), ((*servers).next, true)] {
            let room = list.as_ref().map_or(0, |list| list.number).saturating_add(16).min(MOST);
            all.reserve(room);
            find(list, room, |peer| {
                let key = key(string::bytes(&peer.name));
                all.push(Known { key, at: address(peer), backup });
                None::<()>
            });
        }
    }
    // Of several with one name, the first is found as going through the group does.
    all.sort_by_key(|known| known.key);
    if let Ok(mut known) = shared.known.try_borrow_mut() {
        *known = all;
    }
}

fn shared<'a>(upstream: Upstream<'a>) -> Option<&'a Shared> {
    upstream.main_conf()?.groups.shared(upstream.group_at())
}

/// What a peer in a zone has, if a peer of this name is there.
///
/// # Safety
/// `list` is NULL or a list of nginx's, the peers of which are in `zone`.
unsafe fn numbers_at(
    list: *mut ngx_http_upstream_rr_peers_t,
    at: PeerAt,
    zone: &Range<usize>,
    name: &[u8],
) -> Option<Numbers> {
    let holds =
        |start: usize, size: usize| zone.contains(&start) && zone.end.saturating_sub(start) >= size;
    if list.is_null() || !holds(at.0, size_of::<ngx_http_upstream_rr_peer_t>()) {
        return None;
    }
    // SAFETY: the zone's memory stays mapped, and all that a peer is made of are integers and
    // addresses: whatever is there now can be read as one, as a copy, of which the name is only
    // followed within the zone. nginx gives up peers under the lock; what else it changes are numbers.
    unsafe {
        let _lock = ReadLock::take(list);
        let peer = (at.0 as *const ngx_http_upstream_rr_peer_t).read_volatile();
        if peer.name.len != name.len() || !holds(peer.name.data as usize, name.len()) {
            return None;
        }
        (string::bytes(&peer.name) == name).then(|| Numbers::of(&peer))
    }
}

/// What tells most names apart.
fn key(name: &[u8]) -> u64 {
    let (words, rest) = name.as_chunks::<{ size_of::<u64>() }>();
    let spread = |key: u64, word: u64| (key ^ word).wrapping_mul(SPREAD).rotate_left(29);
    let of_words = words.iter().fold(0, |key, word| spread(key, u64::from_ne_bytes(*word)));
    rest.iter().fold(of_words, |key, byte| spread(key, u64::from(*byte)))
}
