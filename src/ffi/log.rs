//! `ngx_log_t`: the tap that hears what nginx logs, and the module's own lines.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::ptr::{NonNull, addr_of};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nginx_sys::{
    NGX_LOG_ALERT, NGX_LOG_ERR, NGX_LOG_NOTICE, ngx_conf_t, ngx_connection_t, ngx_cycle_t,
    ngx_http_core_loc_conf_t, ngx_http_init_connection, ngx_http_log_ctx_t, ngx_listening_t,
    ngx_log_error_core, ngx_log_handler_pt, ngx_log_t, ngx_pcalloc, ngx_uint_t, u_char,
};

use super::guard::{guard, guard_or};
use super::hooks;
use super::request::Request;
use super::string;
use crate::observe;

/// Address of nginx's `ngx_http_log_error`, which is static: 0 until a connection was seen.
static HTTP_LOG_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Set while a line is being looked at.
static INSIDE: AtomicBool = AtomicBool::new(false);

fn address(handler: ngx_log_handler_pt) -> usize {
    handler.map_or(0, |handler| handler as usize)
}

/// `ngx_http_init_connection`, while learn() stands in its place.
static INIT_CONNECTION: AtomicUsize = AtomicUsize::new(0);

type InitConnection = unsafe extern "C" fn(c: *mut ngx_connection_t);

/// Sees to it that the handler is learnt that nginx gives the logs of HTTP connections. Only logs
/// with this handler are believed to have an `ngx_http_log_ctx_t` in `data`: other modules reuse a
/// location's `error_log` with data of their own. It is learnt from the worker's first connection,
/// before its first request; a handler of a phase would be called for every request.
pub(super) fn learn_from_connections(cycle: &ngx_cycle_t) {
    for socket in listening(cycle) {
        let handler = socket.handler.map_or(0, |handler| handler as usize);
        if handler == ngx_http_init_connection as *const () as usize {
            INIT_CONNECTION.store(handler, Ordering::Relaxed);
            socket.handler = Some(learn);
        }
    }
}

/// `ngx_connection_handler_pt`: stands in `ls->handler` until the first connection.
unsafe extern "C" fn learn(c: *mut ngx_connection_t) {
    // No panic boundary: nothing here can panic.
    // SAFETY: nginx calls it with an accepted connection; learn_from_connections() stored the
    // address of the function that stood here before. A connection that was closed meanwhile has
    // no descriptor, and its log may be gone (ngx_close_connection).
    unsafe {
        let original =
            std::mem::transmute::<usize, InitConnection>(INIT_CONNECTION.load(Ordering::Relaxed));
        // With a deferred accept() the first request would be read, and could fail, in there; so it
        // comes as an event.
        if (*(*c).listening).deferred_accept() != 0 {
            (*(*c).read).set_ready(0);
        }
        original(c);
        if (*c).fd < 0 {
            return;
        }
        known(address((*(*c).log).handler));
        let cycle = addr_of!(nginx_sys::ngx_cycle).read_volatile();
        for socket in listening(&*cycle) {
            if socket.handler.is_some_and(|handler| handler as usize == learn as *const () as usize)
            {
                socket.handler = Some(original);
            }
        }
    }
}

/// Learns the handler from a request, if it is not known yet.
#[inline]
pub(super) fn learn_handler(request: Request<'_>) {
    if HTTP_LOG_HANDLER.load(Ordering::Relaxed) == 0 {
        // SAFETY: a request has a connection, and that a log (ngx_http_init_connection).
        let handler = unsafe { (*(*request.raw().connection).log).handler };
        known(address(handler));
    }
}

/// Notes the handler's address.
fn known(handler: usize) {
    let first =
        HTTP_LOG_HANDLER.compare_exchange(0, handler, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if first && handler != 0 {
        hooks::handler_known();
    }
}

/// The listening sockets of a cycle.
fn listening<'a>(cycle: &ngx_cycle_t) -> &'a mut [ngx_listening_t] {
    // SAFETY: the cycle's array of listening sockets; the process has one thread, and nginx does
    // not change them while the module is called.
    unsafe {
        let listening = &cycle.listening;
        match listening.nelts {
            0 => &mut [],
            n => slice::from_raw_parts_mut(listening.elts.cast::<ngx_listening_t>(), n),
        }
    }
}

/// The log heads of one configuration: a head stands in front of each distinct `error_log`.
#[derive(Default)]
pub(crate) struct Heads(HashMap<usize, NonNull<ngx_log_t>>);

impl Heads {
    /// Puts a head in front of the location's `error_log`. False if memory is short.
    ///
    /// The original stays linked by pointer: without any `error_log` directive it is
    /// `&cycle->new_log`, which nginx completes only after the configuration is read.
    pub(crate) fn install(
        &mut self,
        cf: &mut ngx_conf_t,
        clcf: &mut ngx_http_core_loc_conf_t,
    ) -> bool {
        let original = clcf.error_log;
        if original.is_null() || self.0.values().any(|head| head.as_ptr() == original) {
            return true;
        }
        let head = match self.0.get(&(original as usize)) {
            Some(head) => *head,
            None => {
                // SAFETY: the configuration's pool outlives every connection that copies the head.
                // ngx_log_t is all integers and pointers, for which zeros are valid.
                let head = unsafe { ngx_pcalloc(cf.pool, size_of::<ngx_log_t>()) };
                let Some(head) = NonNull::new(head.cast::<ngx_log_t>()) else { return false };
                // SAFETY: allocated above, with room and alignment for an ngx_log_t.
                unsafe {
                    (*head.as_ptr()).writer = Some(tap);
                    (*head.as_ptr()).next = original;
                }
                self.0.insert(original as usize, head);
                head
            }
        };
        clcf.error_log = head.as_ptr();
        true
    }

    /// Gives each head its level, once the levels of all logs are known. It is never lower than
    /// the original's: `ngx_log_error_core` stops at the first log whose level is too low, and
    /// the user's own log would lose lines.
    pub(super) fn complete(&self, cycle: &ngx_cycle_t) {
        for head in self.0.values() {
            // SAFETY: head and original live in the cycle, which is still being made.
            unsafe {
                let original = (*head.as_ptr()).next;
                (*head.as_ptr()).log_level = (*original).log_level.max(NGX_LOG_ERR as ngx_uint_t);
                // Unused as long as there is a writer; for modules that look for a log's file.
                (*head.as_ptr()).file = (*original).file;
            }
        }
        // nginx has copied the log of each listening socket already, before the levels were
        // known (ngx_configure_listening_sockets): every connection starts with that copy.
        for socket in listening(cycle) {
            if let Some(head) = self.0.values().find(|head| head.as_ptr() == socket.logp) {
                // SAFETY: as for the levels above.
                unsafe {
                    socket.log.log_level = (*head.as_ptr()).log_level;
                    socket.log.file = (*head.as_ptr()).file;
                }
            }
        }
    }
}

/// A line as it reached the tap.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The whole line, nginx's prefix and the line feed included.
    pub(crate) text: &'a [u8],
    /// `log->action`.
    pub(crate) action: Option<&'a [u8]>,
}

/// `ngx_log_writer_pt` of a head. `log` is the connection's own log: ngx_set_connection_log()
/// copied the writer into it.
unsafe extern "C" fn tap(log: *mut ngx_log_t, level: ngx_uint_t, text: *mut u_char, len: usize) {
    // With a debug log this is called for every debug line.
    if level > NGX_LOG_ERR as ngx_uint_t {
        return;
    }
    // The module may cause a line itself, by running out of memory for one: that ends here.
    if INSIDE.swap(true, Ordering::Relaxed) {
        return;
    }
    // Whoever logs may look at errno afterwards.
    let errno = nginx_sys::ngx_errno();
    // SAFETY: nginx calls a writer with the log it formatted the line for.
    let request = guard(None, || unsafe { current_request(log) });
    let heard = || {
        let Some(request) = request else { return };
        // SAFETY: `text` is ngx_log_error_core's buffer, `len` of it are filled; the action is a
        // static string, or NULL.
        let line = unsafe {
            Line { text: slice::from_raw_parts(text, len), action: string::c_bytes((*log).action) }
        };
        observe::line(request, &line);
    };
    guard_or(heard, || {
        if let Some(request) = request {
            hooks::disable(request);
        }
    });
    nginx_sys::ngx_set_errno(errno);
    INSIDE.store(false, Ordering::Relaxed);
}

/// The request a line is about, if the log is that of an HTTP connection with a live request.
///
/// # Safety
/// `log` is a log that nginx just wrote to.
unsafe fn current_request<'a>(log: *const ngx_log_t) -> Option<Request<'a>> {
    let known = HTTP_LOG_HANDLER.load(Ordering::Relaxed);
    // SAFETY: valid by the caller's contract.
    let log = unsafe { &*log };
    if known == 0 || address(log.handler) != known {
        return None;
    }
    // SAFETY: with that handler, `data` is the connection's context (ngx_http_init_connection).
    // Its requests are NULL once they are freed (ngx_http_free_request).
    unsafe {
        let context = log.data.cast::<ngx_http_log_ctx_t>().as_ref()?;
        if context.request.is_null() {
            return None;
        }
        Request::from_raw(context.current_request)
    }
}

/// Writes a line of the module's own to the cycle's log, at level alert.
pub(crate) fn cycle_alert(message: &str) {
    write_to_cycle(NGX_LOG_ALERT, message);
}

/// Writes a line of the module's own to the cycle's log, at level notice.
pub(crate) fn cycle_notice(message: &str) {
    write_to_cycle(NGX_LOG_NOTICE, message);
}

fn write_to_cycle(level: u32, message: &str) {
    // SAFETY: ngx_cycle and its log exist from ngx_init_cycle on, long before any request. The
    // format takes a length and that many bytes.
    unsafe {
        let cycle = addr_of!(nginx_sys::ngx_cycle).read_volatile();
        if cycle.is_null()
            || (*cycle).log.is_null()
            || (*(*cycle).log).log_level < level as ngx_uint_t
        {
            return;
        }
        ngx_log_error_core(
            level as ngx_uint_t,
            (*cycle).log,
            0,
            c"%*s".as_ptr(),
            message.len(),
            message.as_ptr().cast::<c_void>(),
        );
    }
}
