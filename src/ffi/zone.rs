//! The shared memory zone: a state machine over nginx's slab pool.
//!
//! - *fresh*: the memory was just made, by a start, a changed size or a binary upgrade;
//! - *reused*: a reload took the memory over from the cycle before, at the same address;
//! - *mapped*: the memory exists already and holds what another process made
//!   (`shm.exists`).

use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::{NonNull, addr_of_mut};
use std::slice;

use nginx_sys::{
    NGX_OK, ngx_int_t, ngx_shared_memory_add, ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_unlock,
    ngx_slab_alloc, ngx_slab_pool_t,
};

use super::conf::Conf;
use super::guard::guard;
use super::{log, module, string};
use crate::record::Shared;

/// The zone's name carries the version of the layout: a module with another layout that is loaded
/// by a reload must not be given this memory.
const NAME: &[u8] = b"upstream_diag_1";

/// Part of the zone that is left to the slab allocator's own bookkeeping: its header, and for
/// each page a descriptor.
const SLAB_SHARE: usize = 16;

/// A zone as configured. Its memory is made later, when nginx has read the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Zone(NonNull<ngx_shm_zone_t>);

/// The smallest zone: what other modules of nginx ask for (`ngx_http_upstream_zone`), eight pages.
pub(crate) fn smallest() -> usize {
    // SAFETY: set when nginx starts, and not changed.
    unsafe { nginx_sys::ngx_pagesize.saturating_mul(8) }
}

impl Conf<'_> {
    /// Adds the zone to the cycle. `None` if nginx refused, which it has reported.
    pub(crate) fn add_zone(&mut self, size: usize) -> Option<Zone> {
        let mut name = string::from_static(NAME);
        // SAFETY: the name is static; the tag only has to be an address of the module's own.
        unsafe {
            let tag = std::ptr::from_ref(module::this()).cast_mut().cast();
            let zone = NonNull::new(ngx_shared_memory_add(self.raw(), &mut name, size, tag))?;
            (*zone.as_ptr()).init = Some(init);
            Some(Zone(zone))
        }
    }
}

/// `ngx_shm_zone_init_pt`. Without its memory the module goes on without a zone: that is no
/// reason for nginx not to start.
unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, before: *mut c_void) -> ngx_int_t {
    guard((), || {
        // SAFETY: nginx calls it with a zone of its own whose memory is mapped and begins with a
        // slab pool (ngx_init_zone_pool).
        unsafe {
            let pool = (*zone).shm.addr.cast::<ngx_slab_pool_t>();
            if !before.is_null() {
                (*zone).data = before;
            } else if !(*pool).data.is_null() {
                (*zone).data = (*pool).data;
            } else {
                (*zone).data = make(pool, (*zone).shm.size).cast();
                (*pool).data = (*zone).data;
            }
            if (*zone).data.is_null() {
                log::cycle_alert("upstream_diag: the zone is too small, nothing is kept in it");
            }
        }
    });
    NGX_OK as ngx_int_t
}

/// Takes one block for the counters and the ring behind them, and never gives it back.
///
/// # Safety
/// `pool` is the slab pool of a zone of `size` bytes.
unsafe fn make(pool: *mut ngx_slab_pool_t, size: usize) -> *mut Shared {
    // SAFETY: by the caller's contract. Zeros are valid for Shared, which is all atomics, and a
    // block of more than a page is aligned to a page.
    unsafe {
        // The slab allocator would write "no memory" at level crit for what is reported here.
        (*pool).set_log_nomem(0);
        let page = nginx_sys::ngx_pagesize;
        let mut wanted = size.saturating_sub(size / SLAB_SHARE);
        while wanted > size_of::<Shared>() {
            let block = ngx_slab_alloc(pool, wanted);
            if !block.is_null() {
                block.cast::<u8>().write_bytes(0, size_of::<Shared>());
                let shared = block.cast::<Shared>();
                (*shared).set_capacity(wanted.saturating_sub(size_of::<Shared>()));
                return shared;
            }
            wanted = wanted.saturating_sub(page);
        }
        std::ptr::null_mut()
    }
}

impl Zone {
    /// The counters. `None` where the zone has no memory.
    pub(crate) fn shared(&self) -> Option<&'static Shared> {
        // SAFETY: the zone lives in the cycle; its data is NULL or what init() put there, which
        // lives as long as the process: a worker never unmaps a zone.
        unsafe { (*self.0.as_ptr()).data.cast::<Shared>().as_ref() }
    }

    /// Size of the shared memory, bytes.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).shm.size }
    }

    /// Runs `work` on the counters and the bytes of the ring, under the slab pool's own mutex:
    /// nginx's master frees that one when a worker dies with it (`ngx_unlock_mutexes`).
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&Shared, &mut [u8]) -> T) -> Option<T> {
        let shared = self.shared()?;
        // SAFETY: the pool lies at the start of the zone's memory.
        let pool = unsafe { (*self.0.as_ptr()).shm.addr.cast::<ngx_slab_pool_t>() };
        let _lock = Lock::take(pool);
        // SAFETY: the ring's bytes lie behind the counters in the same block, `capacity` of them
        // (make()); the lock keeps every other process and caller away from them.
        let ring = unsafe {
            let first = std::ptr::from_ref(shared).add(1).cast::<u8>().cast_mut();
            slice::from_raw_parts_mut(first, shared.capacity())
        };
        Some(work(shared, ring))
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
