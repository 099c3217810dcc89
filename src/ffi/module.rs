//! `ngx_module_t`: the module's own, and those of the running nginx.

use std::ptr::{self, addr_of};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use nginx_sys::{ngx_cycle_t, ngx_module_t};

use super::string;
use crate::directives::MainConf;

/// The configuration of the http block that nginx began to use last.
static NEWEST: AtomicPtr<MainConf> = AtomicPtr::new(ptr::null_mut());

/// Notes that nginx begins to use a configuration; NULL for one without an http block.
///
/// # Safety
/// It lives until [`give_up_conf`] is called with it, and nobody changes it any more.
pub(super) unsafe fn use_conf(main: *const MainConf) {
    NEWEST.store(main.cast_mut(), Ordering::Relaxed);
}

/// A configuration ends: nobody is given it any more.
pub(crate) fn give_up_conf(main: *const MainConf) {
    let _ = NEWEST.compare_exchange(
        main.cast_mut(),
        ptr::null_mut(),
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
}

/// The configuration that nginx began to use last. It is the one of every request, but where one
/// process is both master and worker: after a reload there, requests go on with the one before.
#[inline(always)]
pub(crate) fn newest_conf() -> Option<&'static MainConf> {
    // SAFETY: by the contract of use_conf().
    unsafe { NEWEST.load(Ordering::Relaxed).as_ref() }
}

/// The module's own entry: nginx writes its numbers into it while loading.
pub(super) fn this() -> &'static ngx_module_t {
    // SAFETY: a static that nginx changes only while loading the module, before it is used.
    unsafe { &*addr_of!(crate::ngx_http_upstream_diag_module) }
}

/// The short name of the protocol module whose `ngx_module_t` stands at this address: `proxy` for
/// `ngx_http_proxy_module`. The modules of the running nginx are searched instead of comparing
/// with their symbols: a module that was not built in has no symbol, and this one would not load.
///
/// The name is the module's own, which stays loaded for as long as there are requests of its.
pub(super) fn short_name(tag: *const ngx_module_t) -> Option<&'static str> {
    /// The answer to the last question: the cycle and the module it was about. One thread asks.
    static LAST: Mutex<(usize, usize, Option<&'static str>)> = Mutex::new((0, 0, None));
    // SAFETY: a pointer that nginx sets before it reads a configuration.
    let cycle = unsafe { addr_of!(nginx_sys::ngx_cycle).read_volatile() };
    let mut last = LAST.lock().ok()?;
    if (last.0, last.1) != (cycle as usize, tag as usize) {
        // SAFETY: nginx's current cycle.
        *last = (cycle as usize, tag as usize, unsafe { name_in(cycle, tag) });
    }
    last.2
}

/// # Safety
/// `cycle` is NULL or nginx's current cycle.
unsafe fn name_in(cycle: *mut ngx_cycle_t, tag: *const ngx_module_t) -> Option<&'static str> {
    // SAFETY: `modules` is an array of modules_n pointers to modules (ngx_cycle_modules), each
    // with a static name.
    unsafe {
        let cycle = cycle.as_ref()?;
        let name = (0..cycle.modules_n)
            .map(|at| *cycle.modules.add(at))
            .find(|module| module.cast_const() == tag && !tag.is_null())
            .and_then(|module| string::c_bytes((*module).name))?;
        let name = name.strip_prefix(b"ngx_http_").unwrap_or(name);
        let name = name.strip_suffix(b"_module").unwrap_or(name);
        std::str::from_utf8(name).ok()
    }
}

/// A table that nginx reads when it loads the library (`ngx_load_module`).
#[repr(transparent)]
pub struct Table<T, const N: usize>(pub(crate) [*const T; N]);

// SAFETY: the table is never written, and what it points to nginx changes only while it loads the
// library, in one thread.
unsafe impl<T, const N: usize> Sync for Table<T, N> {}
