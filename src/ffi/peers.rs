//! `ngx_http_upstream_rr_peers_t`: nginx's bookkeeping of a group's peers.

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
    let (mut all, backups) = unsafe { (copy(peers), (*peers).next) };
    if !backups.is_null() {
        // SAFETY: as above.
        all.extend(
            unsafe { copy(backups) }.into_iter().map(|peer| Copied { backup: true, ..peer }),
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
unsafe fn copy(peers: *mut ngx_http_upstream_rr_peers_t) -> Vec<Copied> {
    // SAFETY: by the caller's contract. `number` is a hint only: a list in a zone can grow until
    // the lock is taken.
    let room = unsafe { (*peers).number }.saturating_add(16).min(MOST);
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
            numbers: Numbers {
                fails: peer.fails,
                max_fails: peer.max_fails,
                fail_timeout: peer.fail_timeout,
                checked: peer.checked,
                down: peer.down,
                weight: peer.weight,
                conns: peer.conns,
                max_conns: peer.max_conns,
            },
        };
        for (to, from) in copied.name.iter_mut().zip(name) {
            *to = *from;
        }
        copied
    }

    fn into_peer(self) -> Peer {
        let Numbers { fails, max_fails, fail_timeout, checked, down, weight, conns, max_conns } =
            self.numbers;
        Peer {
            name: diagnosis::text(self.name.get(..self.name_len).unwrap_or_default()),
            fails: fails as u64,
            max_fails: max_fails as u64,
            fail_timeout: u64::try_from(fail_timeout).unwrap_or(0),
            since_checked: time::now().saturating_sub(checked),
            down: down != 0,
            backup: self.backup,
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
