//! `ngx_str_t` and C strings as byte slices.

use std::ffi::{CStr, c_char};
use std::slice;

use nginx_sys::ngx_str_t;

/// The bytes of an `ngx_str_t`.
///
/// # Safety
/// `text` holds a pointer to `len` initialized bytes that live for `'a`, as every `ngx_str_t` of
/// nginx does, or NULL.
pub(super) unsafe fn bytes<'a>(text: &ngx_str_t) -> &'a [u8] {
    if text.data.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: not NULL, and valid for `len` bytes by the caller's contract.
    unsafe { slice::from_raw_parts(text.data, text.len) }
}

/// The bytes behind a pointer to an `ngx_str_t`, if there is one.
///
/// # Safety
/// `text` is NULL or valid as for [`bytes`].
pub(super) unsafe fn bytes_at<'a>(text: *const ngx_str_t) -> Option<&'a [u8]> {
    // SAFETY: NULL or valid by the caller's contract.
    unsafe { text.as_ref().map(|text| bytes(text)) }
}

/// The bytes of a C string, if there is one.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that lives for `'a`.
pub(super) unsafe fn c_bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: NUL-terminated by the caller's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// An `ngx_str_t` over bytes that outlive every use nginx makes of it.
pub(super) fn from_static(text: &'static [u8]) -> ngx_str_t {
    ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() }
}
