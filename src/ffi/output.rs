//! Where log lines go: files and syslog, and the condition on them.

use std::ptr::NonNull;
use std::ptr::addr_of;

use nginx_sys::{
    NGX_OK, ngx_http_complex_value, ngx_http_complex_value_t, ngx_int_t, ngx_open_file_t,
    ngx_str_t, ngx_syslog_add_header, ngx_syslog_peer_t, ngx_syslog_send,
};

use super::request::Request;
use super::string;

/// A file opened with the cycle.
#[derive(Clone, Copy)]
pub(crate) struct OpenFile(pub(super) NonNull<ngx_open_file_t>);

impl OpenFile {
    /// Writes a whole line with one `write()` on a descriptor opened for appending, as
    /// `access_log` does. Whether it was written is all that is known.
    pub(crate) fn write(&self, line: &[u8]) -> bool {
        // SAFETY: the file lives in the cycle; nginx changes its descriptor when it reopens it.
        let written =
            unsafe { libc::write((*self.0.as_ptr()).fd, line.as_ptr().cast(), line.len()) };
        usize::try_from(written) == Ok(line.len())
    }
}

/// A syslog server.
#[derive(Clone, Copy)]
pub(crate) struct Syslog(pub(super) NonNull<ngx_syslog_peer_t>);

/// `<255>Jan 01 00:00:00 `: the longest priority and time of `ngx_syslog_add_header`.
const PRIORITY_AND_TIME: usize = "<255>Jan 01 00:00:00 ".len();

impl Syslog {
    /// Sends a line as one datagram, without waiting.
    pub(crate) fn send(&self, line: &[u8]) -> bool {
        let peer = self.0.as_ptr();
        // SAFETY: peer and hostname live in the cycle. The buffer has room for the header as
        // ngx_http_log_handler computes it: priority, time, hostname, tag and ": ".
        unsafe {
            let cycle = addr_of!(nginx_sys::ngx_cycle).read_volatile();
            let room = [(*cycle).hostname.len, (*peer).tag.len, 3]
                .iter()
                .fold(PRIORITY_AND_TIME, |sum, len| sum.saturating_add(*len));
            let mut datagram = vec![0_u8; room];
            let end = ngx_syslog_add_header(peer, datagram.as_mut_ptr());
            let header = (end as usize).saturating_sub(datagram.as_ptr() as usize);
            datagram.truncate(header);
            datagram.extend_from_slice(line);
            let sent = ngx_syslog_send(peer, datagram.as_mut_ptr(), datagram.len());
            usize::try_from(sent) == Ok(datagram.len())
        }
    }
}

/// The compiled value of `if=`.
#[derive(Clone, Copy)]
pub(crate) struct Condition(pub(super) NonNull<ngx_http_complex_value_t>);

impl Condition {
    /// False for an empty value and for `0`, as with `access_log`.
    pub(crate) fn holds(&self, request: Request<'_>) -> bool {
        let mut value = ngx_str_t { len: 0, data: std::ptr::null_mut() };
        // SAFETY: the compiled value lives in the cycle, the request is live; the result is in
        // the request's pool.
        unsafe {
            let done = ngx_http_complex_value(request.as_ptr(), self.0.as_ptr(), &mut value);
            done == NGX_OK as ngx_int_t && !matches!(string::bytes(&value), b"" | b"0")
        }
    }
}
