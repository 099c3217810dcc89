//! Values of variables.

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_http_request_t, ngx_int_t, ngx_pnalloc, ngx_variable_value_t,
};

use super::guard::guard;
use super::hooks;
use super::request::Request;
use crate::present;

/// `ngx_http_get_variable_pt`; `at` is the place in `present::VARIABLES`.
pub(super) unsafe extern "C" fn get(
    r: *mut ngx_http_request_t,
    v: *mut ngx_variable_value_t,
    at: usize,
) -> ngx_int_t {
    // SAFETY: nginx calls it with a live request and a value to fill.
    let (request, value) = unsafe { (Request::from_raw(r), v.as_mut()) };
    let (Some(request), Some(value)) = (request, value) else {
        return NGX_ERROR as ngx_int_t;
    };
    // Empty rather than "not found": `if=$upstream_diag_cause` and `map` take both alike.
    value.data = c"".as_ptr().cast_mut().cast();
    value.set_len(0);
    value.set_valid(1);
    value.set_no_cacheable(1);
    value.set_not_found(0);
    if hooks::may_have_failed(request) {
        let text = guard(None, || present::variable(request, at));
        if let Some(text) = text {
            return fill(request, value, text.as_bytes());
        }
    }
    NGX_OK as ngx_int_t
}

fn fill(request: Request<'_>, value: &mut ngx_variable_value_t, text: &[u8]) -> ngx_int_t {
    // The length has 28 bits.
    let text = text.get(..text.len().min((1 << 28) - 1)).unwrap_or_default();
    // SAFETY: memory from the request's pool, filled before nginx reads it.
    unsafe {
        let data = ngx_pnalloc(request.raw().pool, text.len().max(1)).cast::<u8>();
        if data.is_null() {
            return NGX_ERROR as ngx_int_t;
        }
        data.copy_from_nonoverlapping(text.as_ptr(), text.len());
        value.data = data;
    }
    value.set_len(u32::try_from(text.len()).unwrap_or(0));
    NGX_OK as ngx_int_t
}
