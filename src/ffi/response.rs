//! Responses that the module makes itself: the status location.

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_NOT_ALLOWED,
    NGX_HTTP_OK, NGX_OK, ngx_chain_t, ngx_create_temp_buf, ngx_http_discard_request_body,
    ngx_http_output_filter, ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_list_push,
    ngx_table_elt_t, off_t,
};

use super::guard::guard;
use super::request::Request;
use super::string;
use crate::present;

/// `ngx_http_handler_pt` of a location with `upstream_diag_status`.
pub(super) unsafe extern "C" fn status(r: *mut ngx_http_request_t) -> ngx_int_t {
    guard(NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t, || {
        // SAFETY: nginx calls a content handler with a live request.
        let Some(request) = (unsafe { Request::from_raw(r) }) else {
            return NGX_ERROR as ngx_int_t;
        };
        if request.raw().method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as usize == 0 {
            return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
        }
        // SAFETY: as above.
        let discarded = unsafe { ngx_http_discard_request_body(r) };
        if discarded != NGX_OK as ngx_int_t {
            return discarded;
        }
        match present::status(request) {
            Some(body) => send(r, &body),
            None => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        }
    })
}

fn send(r: *mut ngx_http_request_t, body: &[u8]) -> ngx_int_t {
    // SAFETY: `r` is live, and nothing else looks at it during this call. The header's list was
    // initialized with the request.
    unsafe {
        let headers = &mut (*r).headers_out;
        headers.status = NGX_HTTP_OK as usize;
        headers.content_length_n = body.len() as off_t;
        headers.content_type = string::from_static(b"application/json");
        headers.content_type_len = headers.content_type.len;
        headers.content_type_lowcase = std::ptr::null_mut();
        let header = ngx_list_push(&mut headers.headers).cast::<ngx_table_elt_t>();
        if header.is_null() {
            return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
        }
        // nginx does not clear what it gives out of a list.
        header.write_bytes(0, 1);
        (*header).hash = 1;
        (*header).key = string::from_static(b"Cache-Control");
        (*header).value = string::from_static(b"no-store");

        let sent = ngx_http_send_header(r);
        if sent == NGX_ERROR as ngx_int_t || sent > NGX_OK as ngx_int_t || (*r).header_only() != 0 {
            return sent;
        }
        let buffer = ngx_create_temp_buf((*r).pool, body.len().max(1));
        if buffer.is_null() {
            return NGX_ERROR as ngx_int_t;
        }
        (*buffer).last.copy_from_nonoverlapping(body.as_ptr(), body.len());
        (*buffer).last = (*buffer).last.add(body.len());
        (*buffer).set_last_buf(u32::from((*r).main == r));
        (*buffer).set_last_in_chain(1);
        let mut chain = ngx_chain_t { buf: buffer, next: std::ptr::null_mut() };
        ngx_http_output_filter(r, &mut chain)
    }
}
