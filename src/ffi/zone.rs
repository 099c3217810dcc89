//! The shared memory zone: a state machine over nginx's slab pool.
//!
//! - *fresh*: the memory was just made, by a start, a changed size or a binary upgrade;
//! - *reused*: a reload took the memory over from the cycle before, at the same address;
//! - *mapped*: the memory exists already and holds what another process made
//!   (`shm.exists`).

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::{NonNull, addr_of, addr_of_mut};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use diagnosis::zone::{Head, Layout, Memory, Parts, PeerSlot, Step, TooSmall, UpstreamSlot};
use nginx_sys::{
    NGX_OK, ngx_int_t, ngx_list_part_t, ngx_pcalloc, ngx_pnalloc, ngx_shared_memory_add,
    ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_unlock, ngx_slab_alloc, ngx_slab_page_t,
    ngx_slab_pool_t, ngx_slab_stat_t, ngx_str_t,
};

use super::conf::Conf;
use super::guard::guard;
use super::{log, module, string, time};

/// What the zone's name begins with. The rest is made of the sizes of all parts: a module with
/// another layout, or another configuration of this one, must not be given this memory by a
/// reload.
const NAME: &str = "upstream_diag";

/// A zone as configured. Its memory is made later, when nginx has read the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Zone(NonNull<ngx_shm_zone_t>);

/// Divides a zone of `size` bytes.
pub(crate) fn layout(
    size: usize,
    peers: Option<usize>,
    events: Option<usize>,
) -> Result<Layout, TooSmall> {
    Layout::fit(usable(size), peers, events).map_err(|small| TooSmall { least: whole(small.least) })
}

/// Bytes of a zone that one block can have: what the slab allocator's own bookkeeping leaves
/// (`ngx_slab_init`), whole pages of it.
fn usable(size: usize) -> usize {
    let page = page_size();
    // Slots and their statistics, one for each power of two below a page, and what is lost by
    // aligning the first page.
    let slots = size_of::<ngx_slab_page_t>().saturating_add(size_of::<ngx_slab_stat_t>());
    let head = size_of::<ngx_slab_pool_t>()
        .saturating_add(slots.saturating_mul(usize::BITS as usize))
        .saturating_add(page);
    let each = page.saturating_add(size_of::<ngx_slab_page_t>());
    size.saturating_sub(head).checked_div(each).unwrap_or(0).saturating_mul(page)
}

/// Size of a zone that has so many bytes for one block.
fn whole(bytes: usize) -> usize {
    let page = page_size().max(1);
    let mut size = bytes.div_ceil(page).saturating_mul(page);
    while usable(size) < bytes && size < isize::MAX.unsigned_abs() {
        let missing = bytes.saturating_sub(usable(size)).div_ceil(page);
        size = size.saturating_add(missing.saturating_mul(page));
    }
    size
}

fn page_size() -> usize {
    // SAFETY: set when nginx starts, and not changed.
    unsafe { nginx_sys::ngx_pagesize }
}

impl Conf<'_> {
    /// Adds the zone to the cycle. `None` if nginx refused, which it has reported.
    pub(crate) fn add_zone(&mut self, size: usize, layout: Layout) -> Option<Zone> {
        STARTS_EMPTY.store(false, Ordering::Relaxed);
        let text = format!("{NAME}_{}", layout.fingerprint());
        // SAFETY: the name and the layout live in the cycle's pool, as long as the zone; the tag
        // only has to be an address of the module's own.
        unsafe {
            let pool = self.raw().pool;
            let name = ngx_pnalloc(pool, text.len()).cast::<u8>();
            let wanted = ngx_pcalloc(pool, size_of::<Layout>()).cast::<Layout>();
            if name.is_null() || wanted.is_null() {
                return None;
            }
            name.copy_from_nonoverlapping(text.as_ptr(), text.len());
            wanted.write(layout);
            let mut name = ngx_str_t { len: text.len(), data: name };
            let zone = NonNull::new(ngx_shared_memory_add(self.raw(), &mut name, size, tag()))?;
            (*zone.as_ptr()).init = Some(init);
            (*zone.as_ptr()).data = wanted.cast();
            Some(Zone(zone))
        }
    }
}

/// What tells the module's zones from others.
fn tag() -> *mut c_void {
    std::ptr::from_ref(module::this()).cast_mut().cast()
}

/// `ngx_shm_zone_init_pt`. Without its memory the module goes on without a zone: that is no
/// reason for nginx not to start.
unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, before: *mut c_void) -> ngx_int_t {
    guard((), || {
        // SAFETY: nginx calls it with a zone of its own whose memory is mapped and begins with a
        // slab pool (ngx_init_zone_pool); add_zone() has put the layout there.
        unsafe {
            let pool = (*zone).shm.addr.cast::<ngx_slab_pool_t>();
            if !before.is_null() {
                (*zone).data = before;
            } else if !(*pool).data.is_null() {
                (*zone).data = (*pool).data;
            } else {
                STARTS_EMPTY.store(had_another(&(*zone).shm.name), Ordering::Relaxed);
                let layout = (*zone).data.cast::<Layout>().read();
                (*zone).data = make(pool, &layout).cast();
                (*pool).data = (*zone).data;
            }
            if (*zone).data.is_null() {
                log::cycle_alert("upstream_diag: the zone got no memory, nothing is kept");
            }
        }
    });
    NGX_OK as ngx_int_t
}

/// The zone that was made last takes the place of one with other sizes.
static STARTS_EMPTY: AtomicBool = AtomicBool::new(false);

/// Whether the new configuration's zone takes the place of one with other sizes. Asked when nginx
/// begins to use it: a reload can fail after its zones are made.
pub(crate) fn starts_empty() -> bool {
    STARTS_EMPTY.load(Ordering::Relaxed)
}

/// Whether the cycle before has a zone of the module's under another name.
fn had_another(name: &ngx_str_t) -> bool {
    // SAFETY: while a new cycle is made, ngx_cycle is the one before, with a list of zones, or
    // at a start one whose list is zeros.
    unsafe {
        let cycle = addr_of!(nginx_sys::ngx_cycle).read_volatile();
        let Some(cycle) = cycle.as_ref() else { return false };
        let mut part: *const ngx_list_part_t = &cycle.shared_memory.part;
        while let Some(zones) = part.as_ref() {
            let first = zones.elts.cast::<ngx_shm_zone_t>();
            let all: &[ngx_shm_zone_t] =
                if first.is_null() { &[] } else { slice::from_raw_parts(first, zones.nelts) };
            if all.iter().any(|zone| {
                zone.tag == tag() && string::bytes(&zone.shm.name) != string::bytes(name)
            }) {
                return true;
            }
            part = zones.next;
        }
        false
    }
}

/// Takes one block for everything, and never gives it back.
///
/// # Safety
/// `pool` is the slab pool of a zone.
unsafe fn make(pool: *mut ngx_slab_pool_t, layout: &Layout) -> *mut Head {
    // SAFETY: by the caller's contract. Zeros are valid for all parts, which are atomics, and a
    // block of more than a page is aligned to a page.
    unsafe {
        // The slab allocator would write "no memory" at level crit for what is reported above.
        (*pool).set_log_nomem(0);
        let block = ngx_slab_alloc(pool, layout.bytes());
        if !block.is_null() {
            block.cast::<u8>().write_bytes(0, layout.bytes().saturating_sub(layout.ring));
            let head = block.cast::<Head>();
            (*head).begin(layout, seed());
            if let Some(memory) = memory_at(head) {
                memory.begin(time::current_msec());
            }
        }
        block.cast()
    }
}

/// Random numbers.
fn seed() -> [u64; 2] {
    let mut bytes = [0_u8; 16];
    // SAFETY: the kernel writes at most so many bytes. Should it have none, the hash is one that
    // clients can foresee: that costs time at most.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    let (first, second) = bytes.split_at(8);
    [first, second].map(|half| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// The parts of the memory that begins there.
///
/// # Safety
/// `head` is NULL or what make() returned, and stays mapped.
unsafe fn memory_at(head: *const Head) -> Option<Memory<'static>> {
    // SAFETY: the block was made with this layout, zeroed, and is only changed through atomics.
    // Every part's size is a multiple of the alignment of the next.
    unsafe {
        let first = head.as_ref()?;
        let layout = first.layout();
        let peers = head.add(1).cast::<PeerSlot>();
        let upstreams = peers.add(layout.peer_slots()).cast::<UpstreamSlot>();
        let peer_index = upstreams.add(layout.upstream_slots()).cast::<AtomicU32>();
        let upstream_index = peer_index.add(layout.peer_index());
        let steps = upstream_index.add(layout.upstream_index()).cast::<Step>();
        let parts = Parts {
            peers: slice::from_raw_parts(peers, layout.peer_slots()),
            upstreams: slice::from_raw_parts(upstreams, layout.upstream_slots()),
            peer_index: slice::from_raw_parts(peer_index, layout.peer_index()),
            upstream_index: slice::from_raw_parts(upstream_index, layout.upstream_index()),
            steps: slice::from_raw_parts(steps, layout.steps()),
        };
        Some(Memory::new(first, parts))
    }
}

impl Zone {
    /// The memory, once init() was called. `None` where the zone has none.
    pub(super) fn memory(&self) -> Option<Memory<'static>> {
        // SAFETY: after init() the zone's data is NULL or what make() returned, which lives as
        // long as the process: a worker never unmaps a zone.
        unsafe { memory_at((*self.0.as_ptr()).data.cast()) }
    }

    /// Size of the shared memory, bytes.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: the zone lives in the cycle.
        unsafe { (*self.0.as_ptr()).shm.size }
    }

    /// Runs `work` on the memory and the bytes of its ring, under the slab pool's own mutex:
    /// nginx's master frees that one when a worker dies with it (`ngx_unlock_mutexes`).
    pub(crate) fn locked<T>(
        &self,
        memory: Memory<'static>,
        work: impl FnOnce(Memory<'static>, &mut [u8]) -> T,
    ) -> T {
        let (at, size) = (memory.ring_at(), memory.head().layout().ring);
        // SAFETY: the pool lies at the start of the zone's memory.
        let pool = unsafe { (*self.0.as_ptr()).shm.addr.cast::<ngx_slab_pool_t>() };
        let _lock = Lock::take(pool);
        // SAFETY: the ring is the last part of the block (make()); the lock keeps every other
        // process and caller away from it.
        let ring = unsafe {
            let first = std::ptr::from_ref(memory.head()).cast::<u8>().cast_mut();
            slice::from_raw_parts_mut(first.add(at), size)
        };
        work(memory, ring)
    }
}

/// The slab pool's mutex, held until dropped, by a panic too.
struct Lock(*mut ngx_slab_pool_t);

impl Lock {
    fn take(pool: *mut ngx_slab_pool_t) -> Lock {
        // SAFETY: the only caller passes the pool of a live zone.
        unsafe { ngx_shmtx_lock(addr_of_mut!((*pool).mutex)) };
        Lock(pool)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: taken by this process in take().
        unsafe { ngx_shmtx_unlock(addr_of_mut!((*self.0).mutex)) };
    }
}
