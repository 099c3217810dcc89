//! Responses that the module makes itself: the status location.

use std::ptr;

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_NOT_ALLOWED,
    NGX_OK, ngx_alloc_chain_link, ngx_buf_t, ngx_chain_t, ngx_http_discard_request_body,
    ngx_http_output_filter, ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_list_push,
    ngx_pcalloc, ngx_table_elt_t, off_t,
};

use super::guard::guard;
use super::request::Request;
use super::{command, string};
use crate::present;

/// What is sent.
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// `Content-Type`.
    pub(crate) content_type: &'static str,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Bytes of the body in one buffer: what filters behind take at a time.
const BUFFER: usize = 64 * 1_024;

/// `ngx_http_handler_pt` of a location with `upstream_diag_status`.
pub(super) unsafe extern "C" fn status(r: *mut ngx_http_request_t) -> ngx_int_t {
    guard(NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t, || {
        // SAFETY: nginx calls a content handler with a live request.
        let Some(request) = (unsafe { Request::from_raw(r) }) else {
            return NGX_ERROR as ngx_int_t;
        };
        if request.raw().method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as usize == 0 {
            // SAFETY: as above. RFC 9110, section 15.5.6, asks for this header.
            unsafe { add_header(r, b"Allow", b"GET, HEAD") };
            return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
        }
        // SAFETY: as above.
        let discarded = unsafe { ngx_http_discard_request_body(r) };
        if discarded != NGX_OK as ngx_int_t {
            return discarded;
        }
        match present::status(request) {
            // SAFETY: as above.
            Some(answer) => unsafe { send(r, answer) },
            None => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        }
    })
}

/// # Safety
/// `r` is a live request whose response was not begun, and nothing else looks at it meanwhile.
unsafe fn add_header(
    r: *mut ngx_http_request_t,
    name: &'static [u8],
    value: &'static [u8],
) -> bool {
    // SAFETY: by the caller's contract; the header's list was initialized with the request. nginx
    // does not clear what it gives out of a list.
    unsafe {
        let header = ngx_list_push(&raw mut (*r).headers_out.headers).cast::<ngx_table_elt_t>();
        if header.is_null() {
            return false;
        }
        header.write_bytes(0, 1);
        (*header).hash = 1;
        (*header).key = string::from_static(name);
        (*header).value = string::from_static(value);
        true
    }
}

/// # Safety
/// As [`add_header`].
unsafe fn send(r: *mut ngx_http_request_t, answer: Answer) -> ngx_int_t {
    // SAFETY: by the caller's contract.
    unsafe {
        let headers = &mut (*r).headers_out;
        headers.status = usize::from(answer.status);
        headers.content_length_n = answer.body.len() as off_t;
        headers.content_type = string::from_static(answer.content_type.as_bytes());
        headers.content_type_len = headers.content_type.len;
        headers.content_type_lowcase = ptr::null_mut();
        if !add_header(r, b"Cache-Control", b"no-store") || !add_header(r, b"Vary", b"Accept") {
            return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
        }
        let sent = ngx_http_send_header(r);
        if sent == NGX_ERROR as ngx_int_t || sent > NGX_OK as ngx_int_t || (*r).header_only() != 0 {
            return sent;
        }
        let chain = chain(r, answer.body);
        if chain.is_null() { NGX_ERROR as ngx_int_t } else { ngx_http_output_filter(r, chain) }
    }
}

/// A chain of buffers over the body, which lives as long as the request. NULL if memory is short.
///
/// # Safety
/// As [`add_header`].
unsafe fn chain(r: *mut ngx_http_request_t, body: Vec<u8>) -> *mut ngx_chain_t {
    // SAFETY: the pool is the request's; zeros are valid for a buffer, and the body's bytes do not
    // move with the Vec that is moved to the pool. Nobody writes to a buffer that is `memory`.
    unsafe {
        let pool = (*r).pool;
        let body = command::put(pool, body).cast::<Vec<u8>>();
        let Some(body) = body.as_ref() else { return ptr::null_mut() };
        let mut first: *mut ngx_chain_t = ptr::null_mut();
        // From the last one on, so that each link knows the one behind it. An empty body is sent
        // as one empty buffer.
        let mut last = true;
        let pieces = body.chunks(BUFFER).rev().chain(body.is_empty().then_some(&[][..]));
        for piece in pieces {
            let link = ngx_alloc_chain_link(pool);
            let buffer = ngx_pcalloc(pool, size_of::<ngx_buf_t>()).cast::<ngx_buf_t>();
            if link.is_null() || buffer.is_null() {
                return ptr::null_mut();
            }
            let start = piece.as_ptr().cast_mut();
            (*buffer).start = start;
            (*buffer).pos = start;
            (*buffer).last = start.add(piece.len());
            (*buffer).end = (*buffer).last;
            (*buffer).set_memory(u32::from(!piece.is_empty()));
            (*buffer).set_last_buf(u32::from(last && (*r).main == r));
            (*buffer).set_last_in_chain(u32::from(last));
            (*link).buf = buffer;
            (*link).next = first;
            first = link;
            last = false;
        }
        first
    }
}
