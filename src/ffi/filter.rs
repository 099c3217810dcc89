//! A header filter: the moment when the response header of an upstream is complete.

use std::sync::atomic::{AtomicUsize, Ordering};

use nginx_sys::{NGX_OK, ngx_http_request_t, ngx_http_top_header_filter, ngx_int_t};

use super::guard::guard_or;
use super::request::Request;
use super::{hooks, watch};
use crate::observe;

type Filter = unsafe extern "C" fn(r: *mut ngx_http_request_t) -> ngx_int_t;

/// The filter behind this one.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Puts the filter in front of all others. A module whose place is before that of nginx's own last
/// filter cannot do that in postconfiguration, where that one ends the chain; and in a worker it
/// does not matter what a reload that failed has left in the master.
pub(super) fn install() {
    // SAFETY: the worker has one thread, and serves no request yet.
    unsafe {
        let top = ngx_http_top_header_filter;
        if let Some(next) = top.filter(|top| *top as usize != header as *const () as usize) {
            NEXT.store(next as usize, Ordering::Relaxed);
            ngx_http_top_header_filter = Some(header);
        }
    }
}

/// `ngx_http_output_header_filter_pt`.
unsafe extern "C" fn header(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls a filter with a live request, whose upstream request is NULL or lives.
    unsafe {
        let upstream = (*r).upstream;
        // Every response comes by here: most have no upstream, or one that is watched.
        if !upstream.is_null() {
            if !watch::is_hooked(&*upstream) {
                return unwatched(r);
            }
            keep_size(r);
        }
        next(r)
    }
}

/// Calls the filter behind this one.
///
/// # Safety
/// `r` is a live request.
#[inline(always)]
unsafe fn next(r: *mut ngx_http_request_t) -> ngx_int_t {
    match NEXT.load(Ordering::Relaxed) {
        0 => NGX_OK as ngx_int_t,
        // SAFETY: install() stored the address of such a function there, before this one was
        // called.
        next => unsafe { std::mem::transmute::<usize, Filter>(next)(r) },
    }
}

/// As [`header`], of a request whose upstream request is not watched.
///
/// # Safety
/// `r` is a live request with an upstream.
#[cold]
unsafe extern "C" fn unwatched(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: by the caller's contract.
    unsafe {
        if came(r) {
            keep_size(r);
        }
        next(r)
    }
}

/// Keeps the size of an upstream's header, which is counted when the upstream request ends: until
/// then nothing else of it is looked up. Later headers, of an error page for one, come after that.
///
/// # Safety
/// `r` is a live request with an upstream.
#[inline(always)]
unsafe fn keep_size(r: *mut ngx_http_request_t) {
    // SAFETY: by the caller's contract.
    let request = unsafe { Request::of_handler(r) };
    if let Some(upstream) = request.upstream()
        && upstream.is_under_way()
        && !request.is_cached()
    {
        request.keep(upstream.header_size());
    }
}

/// A header of a request whose upstream request is not watched: of the cache, of an error page, or
/// of an upstream whose address was made at run time, which nothing could watch before. Whether it is
/// watched now.
///
/// # Safety
/// `r` is a live request with an upstream.
unsafe fn came(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: by the caller's contract.
    let Some(request) = (unsafe { Request::from_raw(r) }) else { return false };
    let Some(upstream) = request.upstream() else { return false };
    if !upstream.is_under_way() {
        if observe::is_cached_in_subrequest(request) {
            let note = || observe::cached_in_subrequest(request, upstream);
            guard_or(note, || hooks::disable(request));
        }
        return false;
    }
    if upstream.has_group() || !request.loc_conf().is_some_and(|conf| conf.enabled()) {
        return false;
    }
    // SAFETY: no reference into the upstream request is held here (Upstream keeps a pointer).
    unsafe { (*r).upstream.as_mut() }.is_some_and(|u| hooks::hook(request, upstream.id(), u))
}
