//! What the module keeps for a request, and the hook on its upstream's finalization.
//!
//! `r->ctx[]` is cleared by internal redirects, so the record hangs on the request's pool: as the
//! data of a cleanup, found again by the cleanup's handler. Subrequests share the main request's
//! pool, and so the record. A request whose upstream never fails has none.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use nginx_sys::{
    NGX_OK, ngx_http_request_t, ngx_http_upstream_t, ngx_int_t, ngx_pool_cleanup_add,
    ngx_pool_cleanup_t,
};

use super::guard::{guard, guard_or};
use super::request::Request;
use super::upstream::{Upstream, UpstreamId};
use super::watch::{self, Finalize};
use crate::observe;
use crate::present;
use crate::record::Diagnosis;

/// Requests of this worker that have a record now: while there are none, nothing is searched. One
/// more while the handler of connections' logs is not known: requests are to be looked at until then.
static LIVE: AtomicUsize = AtomicUsize::new(1);

#[derive(Default)]
struct Kept {
    diagnosis: RefCell<Diagnosis>,
    /// The functions that were in place before the hook, one for each upstream request whose function
    /// is none of those that [`watch`] keeps. It is taken out when it is called.
    originals: RefCell<Vec<(UpstreamId, Finalize)>>,
    /// A panic happened while this request was looked at: nothing of it is believed any more.
    disabled: Cell<bool>,
}

/// The record's place on the pool of a request.
fn find<'a>(request: Request<'a>) -> Option<&'a Kept> {
    if LIVE.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: the pool of a live request; its cleanups are a list that nginx only prepends to.
    // With this handler, `data` is what keep() put there, freed with the pool.
    unsafe {
        let pool = request.raw().pool.as_ref()?;
        let mut cleanup: *const ngx_pool_cleanup_t = pool.cleanup;
        while let Some(entry) = cleanup.as_ref() {
            if entry.handler.is_some_and(|handler| handler as usize == forget as *const () as usize)
            {
                return entry.data.cast::<Kept>().as_ref();
            }
            cleanup = entry.next;
        }
        None
    }
}

/// As [`find`], making the place if there is none. `None` if memory is short.
fn keep<'a>(request: Request<'a>) -> Option<&'a Kept> {
    if let Some(kept) = find(request) {
        return Some(kept);
    }
    // nginx aligns what it allocates as an unsigned long.
    const { assert!(align_of::<Kept>() <= align_of::<std::ffi::c_ulong>()) };
    // SAFETY: the pool of a live request, which holds the cleanup's data. The cleanup runs when nginx
    // destroys the pool, which is after the request's log phase.
    unsafe {
        let cleanup = ngx_pool_cleanup_add(request.raw().pool, size_of::<Kept>());
        let cleanup = NonNull::new(cleanup)?;
        let kept = (*cleanup.as_ptr()).data.cast::<Kept>();
        kept.write(Kept::default());
        (*cleanup.as_ptr()).handler = Some(forget);
        LIVE.fetch_add(1, Ordering::Relaxed);
        kept.as_ref()
    }
}

/// `ngx_pool_cleanup_pt`: ends the record with its request.
unsafe extern "C" fn forget(data: *mut c_void) {
    guard((), || {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: written by keep(), in memory of the pool; nginx runs a cleanup once.
        unsafe { data.cast::<Kept>().drop_in_place() };
    });
}

impl Kept {
    /// Runs `look` on the diagnosis, unless it was given up or is in use further up the stack.
    fn with<T>(&self, look: impl FnOnce(&mut Diagnosis) -> T) -> Result<T, Disabled> {
        if self.disabled.get() {
            return Err(Disabled);
        }
        let mut diagnosis = self.diagnosis.try_borrow_mut().map_err(|_| Disabled)?;
        // Set for the time of the call: it stays set only if the call ends by a panic.
        self.disabled.set(true);
        let value = look(&mut diagnosis);
        self.disabled.set(false);
        Ok(value)
    }
}

/// The diagnosis of a request was given up: it must not be begun anew from what nginx has.
pub(crate) struct Disabled;

/// Looks at the record of a request, if it has one.
pub(crate) fn with<T>(
    request: Request<'_>,
    look: impl FnOnce(&mut Diagnosis) -> T,
) -> Result<Option<T>, Disabled> {
    find(request).map(|kept| kept.with(look)).transpose()
}

/// Changes the record of a request, which is made if there is none. Nothing happens if memory is
/// short or the diagnosis was given up.
pub(crate) fn update(request: Request<'_>, change: impl FnOnce(&mut Diagnosis)) {
    if let Some(kept) = keep(request) {
        let _ = kept.with(change);
    }
}

/// Gives up the diagnosis of a request.
pub(super) fn disable(request: Request<'_>) {
    if let Some(kept) = keep(request) {
        kept.disabled.set(true);
    }
}

/// Hooks the finalization of an upstream request that is not watched yet.
pub(crate) fn hook_finalize(request: Request<'_>, upstream: Upstream<'_>) {
    // SAFETY: the upstream request lives in the request's pool, and no reference into it is held
    // here (Upstream keeps a pointer). The protocol module has set its function, or none yet.
    let u = unsafe { &mut *request.raw().upstream };
    // What passed by peer.init is watched from there. If no hook stands any more, another module's
    // function does, which calls the hook: that one is not the protocol module's.
    let passed = !u.upstream.is_null() && u.peer.get.is_some();
    if passed && !watch::is_hooked(u) {
        hook_with(request, upstream.id(), u);
    } else if !passed {
        hook(request, upstream.id(), u);
    }
}

/// Hooks the end of an upstream request of any kind. Whether a hook stands there now: not if memory is
/// short.
pub(super) fn hook(request: Request<'_>, id: UpstreamId, u: &mut ngx_http_upstream_t) -> bool {
    watch::hook(u) || hook_with(request, id, u)
}

/// As [`hook`], with the function that stands there kept for this request.
#[cold]
fn hook_with(request: Request<'_>, id: UpstreamId, u: &mut ngx_http_upstream_t) -> bool {
    let Some(original) = u.finalize_request else { return false };
    let Some(kept) = keep(request) else { return false };
    let Ok(mut originals) = kept.originals.try_borrow_mut() else { return false };
    if originals.iter().any(|(known, _)| *known == id) {
        return false;
    }
    originals.push((id, original));
    u.finalize_request = Some(finalize_other);
    true
}

/// Stands in `u->finalize_request` for the function of a usual protocol module ([`watch`]).
pub(super) unsafe extern "C" fn finalize<const AT: usize>(
    r: *mut ngx_http_request_t,
    rc: ngx_int_t,
) {
    // No panic boundary: nothing here can panic. Both end by a jump.
    // SAFETY: nginx calls it with the live request that the upstream request belongs to; the
    // original is the function that stood here before, called with its own arguments.
    unsafe {
        if usual_end(Request::of_handler(r), rc) {
            watch::original::<AT>()(r, rc);
        } else {
            unusual_end::<AT>(r, rc);
        }
    }
}

/// Counts the end of an upstream request of the usual kind. False if it is of another kind. No more is
/// kept meanwhile than there are registers for.
///
/// # Safety
/// An upstream request of this request ends.
#[inline(always)]
unsafe fn usual_end(request: Request<'_>, rc: ngx_int_t) -> bool {
    if LIVE.load(Ordering::Relaxed) != 0 || observe::gave_up(rc) {
        return false;
    }
    // SAFETY: by the caller's contract.
    let upstream = unsafe { request.ending_upstream() };
    observe::count_usual(request, upstream)
}

/// As [`finalize`], of an upstream request of any kind.
///
/// # Safety
/// As for that.
#[cold]
unsafe extern "C" fn unusual_end<const AT: usize>(r: *mut ngx_http_request_t, rc: ngx_int_t) {
    // SAFETY: by the caller's contract.
    unsafe {
        let request = Request::of_handler(r);
        if let Some(upstream) = request.upstream() {
            ended(request, upstream, rc);
        }
        watch::original::<AT>()(r, rc);
    }
}

/// Stands in `u->finalize_request` for any other function.
pub(super) unsafe extern "C" fn finalize_other(r: *mut ngx_http_request_t, rc: ngx_int_t) {
    // SAFETY: as for finalize().
    unsafe {
        let request = Request::of_handler(r);
        let Some(upstream) = request.upstream() else { return };
        let original = other_original(request, upstream);
        ended(request, upstream, rc);
        if let Some(original) = original {
            original(r, rc);
        }
    }
}

/// Looks at the end of an upstream request. It is seen twice where another module's function stands
/// between two hooks.
fn ended(request: Request<'_>, upstream: Upstream<'_>, rc: ngx_int_t) {
    // A module that calls the hook later, when the request has another upstream request: that has
    // not ended.
    if upstream.is_under_way() {
        return;
    }
    let failed = LIVE.load(Ordering::Relaxed) != 0 || observe::gave_up(rc);
    let noted = if failed || guard(false, || observe::answered_in(request)) {
        let finalized = || observe::finalized(request, upstream, rc);
        let noted = guard_or(finalized, || {
            disable(request);
            Some(false)
        });
        let Some(noted) = noted else { return };
        noted
    } else {
        false
    };
    guard((), || observe::count(request, upstream, noted));
}

/// The function that [`finalize_other`] replaced. Nothing in it can panic.
fn other_original(request: Request<'_>, upstream: Upstream<'_>) -> Option<Finalize> {
    let own = find(request).and_then(|kept| {
        let mut originals = kept.originals.try_borrow_mut().ok()?;
        let at = originals.iter().position(|(id, _)| *id == upstream.id())?;
        // It may be another module's, and call the hook that it found: there it is looked for again,
        // and must not be found, or it would be called for ever.
        Some(originals.swap_remove(at).1)
    });
    // Where that module has put its function in front of the hook again, it has been called.
    let first = upstream.raw().finalize_request.map(|first| first as usize);
    let is_left = |function: &Finalize| Some(*function as usize) != first;
    let module = || watch::other_original(upstream.raw()).filter(is_left);
    own.filter(is_left).or_else(module)
}

/// `ngx_http_handler_pt` of the log phase.
pub(super) unsafe extern "C" fn log_phase(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls a phase handler with a live request, whose upstream request is NULL or
    // lives.
    unsafe {
        let upstream = (*r).upstream;
        // Every request comes by here, and of most there is nothing to say.
        if LIVE.load(Ordering::Relaxed) != 0
            || (!upstream.is_null() && !watch::is_hooked(&*upstream))
            || has_gateway_status(&*r)
        {
            return log_request(r);
        }
    }
    NGX_OK as ngx_int_t
}

/// Whether its status is 502, 503 or 504, as `Request::status` tells.
#[inline]
fn has_gateway_status(r: &ngx_http_request_t) -> bool {
    let status = if r.err_status == 0 { r.headers_out.status } else { r.err_status };
    matches!(status, 502..=504)
}

/// A request of which there may be something to say.
///
/// # Safety
/// `r` is a live request.
#[cold]
unsafe extern "C" fn log_request(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: by the caller's contract.
    let request = unsafe { Request::of_handler(r) };
    // Where another module stands in front of nginx's handler of connections.
    super::log::learn_handler(request);
    let unwatched = request.upstream().filter(|_| !is_watched(request));
    if let Some(upstream) = unwatched {
        guard((), || observe::count_unwatched(request, upstream));
    }
    if LIVE.load(Ordering::Relaxed) != 0
        || observe::answers_gateway_error(request)
        // What was watched to its end has left a record, or has not failed.
        || (unwatched.is_some() && observe::unnoted_error(request))
    {
        guard_or(|| present::emit(request), || disable(request));
    }
    NGX_OK as ngx_int_t
}

/// The handler of connections' logs is known now: one thing less to look after.
pub(super) fn handler_known() {
    LIVE.fetch_sub(1, Ordering::Relaxed);
}

/// Whether a hook stands at the end of the request's last upstream request, or there is none.
fn is_watched(request: Request<'_>) -> bool {
    request.upstream().is_none_or(|upstream| watch::is_hooked(upstream.raw()))
}

/// Whether a variable may have a value.
#[inline]
pub(crate) fn may_have_failed(request: Request<'_>) -> bool {
    LIVE.load(Ordering::Relaxed) != 0
        || observe::unnoted_error(request)
        || observe::answers_gateway_error(request)
}
