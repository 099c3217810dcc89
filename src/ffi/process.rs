//! The worker process: what it has in use of what it may use.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::addr_of;

use diagnosis::{Usage, Worker};
use libc::{RLIMIT_NOFILE, rlimit};
use nginx_sys::ngx_atomic_t;

/// The worker's process id: nginx's copy, which takes no system call.
pub(crate) fn id() -> i64 {
    // SAFETY: set when the process starts, and not changed.
    unsafe { addr_of!(nginx_sys::ngx_pid).read() }.into()
}

/// The worker that runs this.
pub(crate) fn worker() -> Worker {
    let (accepted, handled) = accepted().unzip();
    Worker { pid: id(), connections: connections(), files: files(), accepted, handled }
}

/// `worker_connections`, and how many of them are taken: by clients, upstreams, and nginx's own
/// listening sockets and channels.
fn connections() -> Usage {
    // SAFETY: ngx_cycle is the cycle that the worker serves, from its start on.
    unsafe {
        let cycle = addr_of!(nginx_sys::ngx_cycle).read_volatile();
        let Some(cycle) = cycle.as_ref() else { return Usage::default() };
        let used = cycle.connection_n.saturating_sub(cycle.free_connection_n);
        Usage { used: used as u64, limit: cycle.connection_n as u64 }
    }
}

/// Open descriptors (proc(5)) and `RLIMIT_NOFILE`. `None` where /proc is not mounted, or no
/// descriptor is left to look there.
fn files() -> Option<Usage> {
    // One is that of the directory.
    let used = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let mut limit = MaybeUninit::<rlimit>::zeroed();
    // SAFETY: the kernel fills the structure, which is all integers.
    let limit = unsafe {
        if libc::getrlimit(RLIMIT_NOFILE, limit.as_mut_ptr()) != 0 {
            return None;
        }
        limit.assume_init()
    };
    Some(Usage { used: used as u64, limit: limit.rlim_cur })
}

/// Connections accepted and handled, of all workers. nginx has these counters only with the module
/// that shows them (`ngx_http_stub_status_module`), so they are looked for when they are needed:
/// this one would not load into an nginx without.
fn accepted() -> Option<(u64, u64)> {
    Some((counter(c"ngx_stat_accepted")?, counter(c"ngx_stat_handled")?))
}

/// A counter of nginx's by the name of the variable that points to it.
fn counter(name: &CStr) -> Option<u64> {
    // SAFETY: a variable of this name is nginx's, a pointer to a counter in memory that all
    // workers share (ngx_event_module_init), which lives as long as the process.
    unsafe {
        let variable = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        let counter = variable.cast::<*const ngx_atomic_t>().as_ref()?.as_ref()?;
        Some(std::ptr::read_volatile(counter) as u64)
    }
}
