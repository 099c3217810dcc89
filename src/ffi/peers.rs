//! `ngx_http_upstream_rr_peers_t`: nginx's bookkeeping of a group's peers.

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

/// A peer, by the address of nginx's structure: only compared, until it is found among those of a
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAt(usize);

/// The peer in use. All balancers that build on round robin let `u->peer.name` point into its
/// structure; where something else is there, no group will have such a peer. With a zone it points
/// to a copy (`ngx_http_upstream_connect`).
pub(crate) fn in_use(upstream: Upstream<'_>) -> PeerAt {
    with_name(upstream.raw().peer.name as usize)
}

/// The peer that has its name at an address.
pub(super) fn with_name(name: usize) -> PeerAt {
    PeerAt(name.wrapping_sub(offset_of!(ngx_http_upstream_rr_peer_t, name)))
}

/// What nginx keeps of a peer now. A group has any number of peers, so a single one is not looked
/// for among them where that can be avoided: peers that are not shared stay where they are for as
/// long as their configuration. Others are found by name.
pub(crate) fn state(upstream: Upstream<'_>, at: PeerAt, name: &[u8]) -> Option<Peer> {
    let peers = match upstream.group() {
        Some(group) => configured(group)?,
        None => private(upstream)?,
    };
    let groups = upstream.main_conf().map(|main| &main.groups);
    if groups.is_some_and(|groups| groups.has_fixed(upstream.group_at(), at)) {
        // SAFETY: one of the group's own peers, which nobody but this worker has.
        let (peer, backup) = unsafe {
            let peer = &*(at.0 as *const ngx_http_upstream_rr_peer_t);
            (peer, is_in((*peers).next, at))
        };
        return Some(Numbers::of(peer).into_peer(String::new(), backup));
    }
    // SAFETY: lists that nginx made, as in read().
    let (first, second) = unsafe { (find(peers, name), (*peers).next) };
    let numbers = first.map(|numbers| (numbers, false)).or_else(|| {
        // SAFETY: as above.
        let backup = (!second.is_null()).then(|| unsafe { find(second, name) })?;
        backup.map(|numbers| (numbers, true))
    });
    numbers.map(|(numbers, backup)| numbers.into_peer(String::new(), backup))
}

/// Whether a peer is in a list. Backup servers are few.
///
/// # Safety
/// `peers` is NULL or a list of nginx's that is not shared.
unsafe fn is_in(peers: *const ngx_http_upstream_rr_peers_t, at: PeerAt) -> bool {
    // SAFETY: by the caller's contract; the list ends with NULL.
    unsafe {
        let mut next = peers.as_ref().map_or(ptr::null(), |peers| peers.peer.cast_const());
        while let Some(peer) = next.as_ref() {
            if ptr::from_ref(peer) as usize == at.0 {
                return true;
            }
            next = peer.next;
        }
        false
    }
}

/// # Safety
/// As [`copy`].
unsafe fn find(peers: *mut ngx_http_upstream_rr_peers_t, name: &[u8]) -> Option<Numbers> {
    // SAFETY: by the caller's contract; the list ends with NULL and does not change while it is
    // locked.
    unsafe {
        let _lock = ReadLock::take(peers);
        let mut next: *const ngx_http_upstream_rr_peer_t = (*peers).peer;
        for _ in 0..MOST {
            let peer = next.as_ref()?;
            if string::bytes(&peer.name) == name {
                return Some(Numbers::of(peer));
            }
            next = peer.next;
        }
        None
    }
}

/// The peers of a group that stay where they are: all, unless they are shared.
pub(super) fn fixed(group: &ngx_http_upstream_srv_conf_t) -> Vec<PeerAt> {
    let mut fixed = Vec::new();
    if let Some(peers) = configured(group).filter(|_| group.shm_zone.is_null()) {
        // SAFETY: lists that nginx made when it read the configuration, which end with NULL.
        unsafe {
            for list in [peers, (*peers).next] {
                let mut next = list.as_ref().map_or(ptr::null(), |list| list.peer.cast_const());
                while let Some(peer) = next.as_ref() {
                    fixed.push(PeerAt(ptr::from_ref(peer) as usize));
                    next = peer.next;
                }
            }
        }
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
    let peers = match upstream.group() {
        Some(group) => configured(group)?,
        None => private(upstream)?,
    };
    // SAFETY: lists that nginx made; a number that changes in a zone is read as it is.
    let (first, second) = unsafe {
        let numbers = |list: *mut ngx_http_upstream_rr_peers_t| {
            list.as_ref().map_or(0, |list| (&raw const list.number).read_volatile())
        };
        (numbers(peers), numbers((*peers).next))
    };
    Some(first.saturating_add(second) as u64)
}

/// The first few peers of a group.
pub(crate) fn first(upstream: Upstream<'_>, few: usize) -> Vec<Peer> {
    let peers = match upstream.group() {
        Some(group) => configured(group),
        None => private(upstream),
    };
    // SAFETY: a list that nginx made, as in read().
    let copied = peers.map(|peers| unsafe { copy(peers, few) }).unwrap_or_default();
    copied.into_iter().map(Copied::into_peer).collect()
}

/// The peers that an upstream request chooses from, backup servers last. `None` where they are
/// kept by something else than nginx's round robin or a balancer built on it.
pub(crate) fn of(upstream: Upstream<'_>) -> Option<Vec<Peer>> {
    match upstream.group() {
        Some(group) => of_group(group),
        None => private(upstream).map(read),
    }
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
        (ours || !group.shm_zone.is_null()).then_some(peers)
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
    // SAFETY: the list ends with NULL and does not change while it is locked.
    unsafe {
        let _lock = ReadLock::take(peers);
        let mut at: *const ngx_http_upstream_rr_peer_t = (*peers).peer;
        while let Some(peer) = at.as_ref() {
            if all.len() >= room {
                break;
            }
            all.push(Copied::from_raw(peer));
            at = peer.next;
        }
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
            down: peer.down,
            weight: peer.weight,
            conns: peer.conns,
            max_conns: peer.max_conns,
        }
    }

    fn into_peer(self, name: String, backup: bool) -> Peer {
        let Numbers { fails, max_fails, fail_timeout, checked, down, weight, conns, max_conns } =
            self;
        Peer {
            name,
            fails: fails as u64,
            max_fails: max_fails as u64,
            fail_timeout: u64::try_from(fail_timeout).unwrap_or(0),
            since_checked: time::now().saturating_sub(checked),
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
