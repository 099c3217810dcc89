//! `ngx_http_upstream_rr_peers_t`: nginx's bookkeeping of a group's peers.

mod shared;
mod state;

pub(super) use shared::Shared;
pub(crate) use shared::shared_state;
pub(crate) use state::{fixed_state, states};

use std::mem::offset_of;
use std::ptr;

use diagnosis::peer::Peer;
use nginx_sys::{
    ngx_http_upstream_free_round_robin_peer, ngx_http_upstream_rr_peer_data_t,
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t,
};

use super::string;
use super::time;
use super::upstream::Upstream;

/// More peers than this are not read for one request.
const MOST: usize = 4_096;

/// How far apart the peers of a group are, and so their names: bytes.
pub(crate) const SPACING: usize = size_of::<ngx_http_upstream_rr_peer_t>();

/// A peer, by the address of nginx's structure: only compared, until it is found among those of a
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAt(usize);

/// The peer in use. All balancers that build on round robin let `u->peer.name` point into its
/// structure; where something else is there, no group will have such a peer. With a zone it may
/// point to a copy (`ngx_http_upstream_connect`).
pub(crate) fn in_use(upstream: Upstream<'_>) -> PeerAt {
    with_name(upstream.raw().peer.name as usize)
}

/// The peer that has its name at an address.
pub(super) fn with_name(name: usize) -> PeerAt {
    PeerAt(name.wrapping_sub(offset_of!(ngx_http_upstream_rr_peer_t, name)))
}

/// The peers of a group that stay where they are: all, unless they are shared.
pub(super) fn fixed(group: &ngx_http_upstream_srv_conf_t) -> Vec<PeerAt> {
    let mut fixed = Vec::new();
    if let Some(servers) = configured(group).filter(|_| shared::zone(group).is_none()) {
        // SAFETY: a list that nginx made when it read the configuration.
        unsafe { each(servers, |peer| fixed.push(address(peer))) };
    }
    fixed.sort_unstable_by_key(|peer| peer.0);
    fixed
}

/// Whether a peer is among those that [`fixed`] gave.
pub(super) fn is_fixed(fixed: &[PeerAt], at: PeerAt) -> bool {
    fixed.binary_search_by_key(&at.0, |peer| peer.0).is_ok()
}

/// How many servers a group has, backup servers too (`peers->number`).
pub(crate) fn number(upstream: Upstream<'_>) -> Option<u64> {
    let servers = list(upstream)?;
    // SAFETY: lists that nginx made; a number that changes in a zone is read as it is.
    let (first, second) = unsafe {
        let numbers = |list: *mut ngx_http_upstream_rr_peers_t| {
            list.as_ref().map_or(0, |list| (&raw const list.number).read_volatile())
        };
        (numbers(servers), numbers((*servers).next))
    };
    Some(first.saturating_add(second) as u64)
}

/// Whether more servers of a group than so many are not marked `down`, backup servers too. No more
/// are looked at than it takes: a group can be large.
pub(crate) fn has_more_up(upstream: Upstream<'_>, than: u64) -> Option<bool> {
    let servers = list(upstream)?;
    let mut count = 0_u64;
    let mut more = |peer: &ngx_http_upstream_rr_peer_t| {
        count = count.saturating_add(u64::from(peer.down == 0));
        (count > than).then_some(())
    };
    // SAFETY: lists that nginx made.
    let found = unsafe {
        find(servers, usize::MAX, &mut more).or_else(|| find((*servers).next, usize::MAX, more))
    };
    Some(found.is_some())
}

/// The first few peers of a group.
pub(crate) fn first(upstream: Upstream<'_>, few: usize) -> Vec<Peer> {
    // SAFETY: a list that nginx made.
    let copied = list(upstream).map(|servers| unsafe { copy(servers, few) }).unwrap_or_default();
    copied.into_iter().map(Copied::into_peer).collect()
}

/// The list of servers that an upstream request chooses from.
fn list(upstream: Upstream<'_>) -> Option<*mut ngx_http_upstream_rr_peers_t> {
    match upstream.group() {
        Some(group) => configured(group),
        None => private(upstream),
    }
}

fn address(peer: &ngx_http_upstream_rr_peer_t) -> PeerAt {
    PeerAt(ptr::from_ref(peer) as usize)
}

/// What `look` finds first among so many peers of a list, which is locked meanwhile: `look` must not
/// allocate where it is shared.
///
/// # Safety
/// `list` is NULL or a list of nginx's.
unsafe fn find<T>(
    list: *mut ngx_http_upstream_rr_peers_t,
    most: usize,
    mut look: impl FnMut(&ngx_http_upstream_rr_peer_t) -> Option<T>,
) -> Option<T> {
    if list.is_null() {
        return None;
    }
    // SAFETY: by the caller's contract; the list ends with NULL and does not change while it is
    // locked.
    unsafe {
        let _lock = ReadLock::take(list);
        let mut next: *const ngx_http_upstream_rr_peer_t = (*list).peer;
        for _ in 0..most {
            let peer = next.as_ref()?;
            if let Some(found) = look(peer) {
                return Some(found);
            }
            next = peer.next;
        }
        None
    }
}

/// Shows each of the servers, then each of the backup servers: they have a list and a lock of their
/// own, taken one after the other as ngx_http_upstream_get_round_robin_peer() does.
///
/// # Safety
/// As [`find`], and `servers` is not NULL.
unsafe fn each(
    servers: *mut ngx_http_upstream_rr_peers_t,
    mut show: impl FnMut(&ngx_http_upstream_rr_peer_t),
) {
    // SAFETY: by the caller's contract.
    unsafe {
        for list in [servers, (*servers).next] {
            find(list, usize::MAX, |peer| {
                show(peer);
                None::<()>
            });
        }
    }
}

/// The peers that an upstream request chooses from, backup servers last. `None` where they are
/// kept by something else than nginx's round robin or a balancer built on it.
pub(crate) fn of(upstream: Upstream<'_>) -> Option<Vec<Peer>> {
    list(upstream).map(read)
}

/// As [`of`], of a configured group.
pub(super) fn of_group(group: &ngx_http_upstream_srv_conf_t) -> Option<Vec<Peer>> {
    configured(group).map(read)
}

fn read(peers: *mut ngx_http_upstream_rr_peers_t) -> Vec<Peer> {
    // SAFETY: lists that nginx made. The backup servers have a list and a lock of their own,
    // taken one after the other as ngx_http_upstream_get_round_robin_peer() does.
    let (mut all, backups) = unsafe { (copy(peers, MOST), (*peers).next) };
    if !backups.is_null() {
        // SAFETY: as above.
        all.extend(
            unsafe { copy(backups, MOST) }.into_iter().map(|peer| Copied { backup: true, ..peer }),
        );
    }
    all.into_iter().map(Copied::into_peer).collect()
}

/// The peers of a configured group. The balancers of nginx that build on round robin (least_conn,
/// ip_hash, hash, random, and keepalive around them) leave `peer.data` to it.
fn configured(group: &ngx_http_upstream_srv_conf_t) -> Option<*mut ngx_http_upstream_rr_peers_t> {
    let peers = group.peer.data.cast::<ngx_http_upstream_rr_peers_t>();
    if peers.is_null() || !peers.is_aligned() {
        return None;
    }
    // Another module may keep something else there. Round robin points `name` at the group's own
    // host (ngx_http_upstream_init_round_robin), and with a zone at a copy of it, which only
    // nginx's zone module makes and only from round robin.
    // SAFETY: not NULL and aligned; a structure of another module is read as integers, of which
    // one has to equal an address before anything is followed.
    unsafe {
        let ours = std::ptr::eq((*peers).name, &group.host);
        (ours || shared::zone(group).is_some()).then_some(peers)
    }
}

/// The private peers of an upstream whose address was made at run time.
fn private(upstream: Upstream<'_>) -> Option<*mut ngx_http_upstream_rr_peers_t> {
    let peer = &upstream.raw().peer;
    // Only round robin's own free() proves what `data` is: nginx will call it with that.
    let free = peer.free? as usize;
    if free != ngx_http_upstream_free_round_robin_peer as *const () as usize || peer.data.is_null()
    {
        return None;
    }
    // SAFETY: see above; made by ngx_http_upstream_create_round_robin_peer in the request's pool.
    let peers = unsafe { (*peer.data.cast::<ngx_http_upstream_rr_peer_data_t>()).peers };
    (!peers.is_null()).then_some(peers)
}

/// Longest name of a peer: `unix:` and a path (`NGX_SOCKADDR_STRLEN`).
const NAME: usize = 128;

/// A peer as it is copied under the lock: nothing is allocated there. Running out of memory would
/// end the process with the lock held, which nginx's master does not free.
#[derive(Clone, Copy)]
struct Copied {
    name: [u8; NAME],
    name_len: usize,
    backup: bool,
    numbers: Numbers,
}

#[derive(Clone, Copy)]
struct Numbers {
    fails: usize,
    max_fails: usize,
    fail_timeout: i64,
    checked: i64,
    accessed: i64,
    down: usize,
    weight: isize,
    conns: usize,
    max_conns: usize,
}

/// # Safety
/// `peers` is a list of nginx's.
unsafe fn copy(peers: *mut ngx_http_upstream_rr_peers_t, most: usize) -> Vec<Copied> {
    // SAFETY: by the caller's contract. `number` is a hint only: a list in a zone can grow until
    // the lock is taken.
    let room = unsafe { (*peers).number }.saturating_add(16).min(most);
    let mut all = Vec::with_capacity(room);
    // SAFETY: as above; there is room for as many as are looked at.
    unsafe {
        find(peers, room, |peer| {
            all.push(Copied::from_raw(peer));
            None::<()>
        });
    }
    all
}

impl Copied {
    /// # Safety
    /// `peer` is a peer of nginx's in a locked list.
    unsafe fn from_raw(peer: &ngx_http_upstream_rr_peer_t) -> Copied {
        // SAFETY: the name lives as long as the peer.
        let name = unsafe { string::bytes(&peer.name) };
        let mut copied = Copied {
            name: [0; NAME],
            name_len: name.len().min(NAME),
            backup: false,
            numbers: Numbers::of(peer),
        };
        for (to, from) in copied.name.iter_mut().zip(name) {
            *to = *from;
        }
        copied
    }

    fn into_peer(self) -> Peer {
        let name = diagnosis::text(self.name.get(..self.name_len).unwrap_or_default());
        self.numbers.into_peer(name.into_owned(), self.backup)
    }
}

impl Numbers {
    fn of(peer: &ngx_http_upstream_rr_peer_t) -> Numbers {
        Numbers {
            fails: peer.fails,
            max_fails: peer.max_fails,
            fail_timeout: peer.fail_timeout,
            checked: peer.checked,
            accessed: peer.accessed,
            down: peer.down,
            weight: peer.weight,
            conns: peer.conns,
            max_conns: peer.max_conns,
        }
    }

    fn into_peer(self, name: String, backup: bool) -> Peer {
        let Numbers {
            fails,
            max_fails,
            fail_timeout,
            checked,
            accessed,
            down,
            weight,
            conns,
            max_conns,
        } = self;
        Peer {
            name,
            fails: fails as u64,
            max_fails: max_fails as u64,
            fail_timeout: u64::try_from(fail_timeout).unwrap_or(0),
            since_checked: time::now().saturating_sub(checked),
            since_accessed: time::now().saturating_sub(accessed),
            down: down != 0,
            backup,
            weight: u64::try_from(weight).unwrap_or(0),
            conns: conns as u64,
            max_conns: max_conns as u64,
        }
    }
}

/// `ngx_http_upstream_rr_peers_rlock`, a macro in C: taken only where the peers are shared.
struct ReadLock {
    #[cfg(nginx_upstream_zone)]
    lock: Option<*mut nginx_sys::ngx_atomic_t>,
}

impl ReadLock {
    /// # Safety
    /// `peers` is valid, and outlives the lock.
    #[cfg(nginx_upstream_zone)]
    unsafe fn take(peers: *mut ngx_http_upstream_rr_peers_t) -> ReadLock {
        // SAFETY: by the caller's contract. nginx itself spins on this lock for each request.
        unsafe {
            if (*peers).shpool.is_null() {
                return ReadLock { lock: None };
            }
            let lock = &raw mut (*peers).rwlock;
            nginx_sys::ngx_rwlock_rlock(lock);
            ReadLock { lock: Some(lock) }
        }
    }

    /// # Safety
    /// None needed: without zones nothing is shared.
    #[cfg(not(nginx_upstream_zone))]
    unsafe fn take(_: *mut ngx_http_upstream_rr_peers_t) -> ReadLock {
        ReadLock {}
    }
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        #[cfg(nginx_upstream_zone)]
        if let Some(lock) = self.lock {
            // SAFETY: taken in take(), released once.
            unsafe { nginx_sys::ngx_rwlock_unlock(lock) };
        }
    }
}
