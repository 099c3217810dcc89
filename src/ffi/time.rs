//! nginx's cached clocks.

use std::ptr::addr_of;

use diagnosis::Stamp;

use super::string;

/// `ngx_current_msec`: a monotonic clock, milliseconds, as of this turn of the event loop.
pub(crate) fn current_msec() -> u64 {
    // SAFETY: nginx's global is set before a configuration is read and changed only by this
    // thread. It is declared volatile, hence the volatile read.
    unsafe { addr_of!(nginx_sys::ngx_current_msec).read_volatile() as u64 }
}

/// `ngx_time()`: seconds since the epoch.
pub(crate) fn now() -> i64 {
    nginx_sys::ngx_time()
}

/// Wall-clock time as ISO 8601 with milliseconds: nginx's own cached string, which has the
/// offset of the local time zone, with the milliseconds put in.
pub(crate) fn iso8601() -> Stamp {
    // SAFETY: ngx_time_update() points it at one of nginx's static slots, which stays unchanged
    // for as many updates as there are slots (NGX_TIME_SLOTS).
    let cached = unsafe {
        let text = addr_of!(nginx_sys::ngx_cached_http_log_iso8601).read_volatile();
        string::bytes(&text)
    };
    let cached = cached.try_into().unwrap_or(*b"0000-00-00T00:00:00+00:00");
    let (seconds, zone) = cached.split_at("0000-00-00T00:00:00".len());
    let msec = u32::try_from(nginx_sys::ngx_timeofday().msec).unwrap_or(0);
    let digit = |n: u32| b'0'.wrapping_add((n % 10) as u8);
    let fraction = [b'.', digit(msec / 100), digit(msec / 10), digit(msec)];
    let mut stamp = Stamp::default();
    let (first, rest) = stamp.split_at_mut(seconds.len());
    let (second, third) = rest.split_at_mut(fraction.len());
    first.copy_from_slice(seconds);
    second.copy_from_slice(&fraction);
    third.copy_from_slice(zone);
    stamp
}

/// Time since the request was received, milliseconds: `$request_time`.
pub(super) fn since(sec: i64, msec: u64) -> u64 {
    let now = nginx_sys::ngx_timeofday();
    let ms = now
        .sec
        .saturating_sub(sec)
        .saturating_mul(1_000)
        .saturating_add(now.msec as i64)
        .saturating_sub(msec as i64);
    ms.max(0).unsigned_abs()
}
