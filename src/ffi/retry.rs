//! What decides whether nginx tries another server (`ngx_http_upstream_next`).

use nginx_sys::{
    NGX_HTTP_LOCK, NGX_HTTP_PATCH, NGX_HTTP_POST, NGX_HTTP_UPSTREAM_FT_ERROR,
    NGX_HTTP_UPSTREAM_FT_HTTP_403, NGX_HTTP_UPSTREAM_FT_HTTP_404, NGX_HTTP_UPSTREAM_FT_HTTP_429,
    NGX_HTTP_UPSTREAM_FT_HTTP_500, NGX_HTTP_UPSTREAM_FT_HTTP_502, NGX_HTTP_UPSTREAM_FT_HTTP_503,
    NGX_HTTP_UPSTREAM_FT_HTTP_504, NGX_HTTP_UPSTREAM_FT_INVALID_HEADER,
    NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT, NGX_HTTP_UPSTREAM_FT_TIMEOUT,
};

use super::time;
use super::upstream::Upstream;

/// A kind of failure.
pub(crate) type Kind = u32;

/// `error`.
pub(crate) const ERROR: Kind = NGX_HTTP_UPSTREAM_FT_ERROR;
/// `timeout`.
pub(crate) const TIMEOUT: Kind = NGX_HTTP_UPSTREAM_FT_TIMEOUT;
/// `invalid_header`.
pub(crate) const INVALID_HEADER: Kind = NGX_HTTP_UPSTREAM_FT_INVALID_HEADER;
/// The upstream's own answer with this status (`ngx_http_upstream_test_next`).
pub(crate) fn answered(status: u16) -> Option<Kind> {
    match status {
        502 => Some(NGX_HTTP_UPSTREAM_FT_HTTP_502),
        503 => Some(NGX_HTTP_UPSTREAM_FT_HTTP_503),
        504 => Some(NGX_HTTP_UPSTREAM_FT_HTTP_504),
        _ => None,
    }
}

/// `non_idempotent`, which is none, but a condition for all.
pub(crate) const NON_IDEMPOTENT: Kind = NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;

/// The words of `proxy_next_upstream`.
const NAMES: [(Kind, &str); 11] = [
    (ERROR, "error"),
    (TIMEOUT, "timeout"),
    (INVALID_HEADER, "invalid_header"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_500, "http_500"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_502, "http_502"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_503, "http_503"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_504, "http_504"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_403, "http_403"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_404, "http_404"),
    (NGX_HTTP_UPSTREAM_FT_HTTP_429, "http_429"),
    (NON_IDEMPOTENT, "non_idempotent"),
];

/// A set of them.
#[derive(Clone, Copy)]
pub(crate) struct Kinds(usize);

impl Kinds {
    /// Whether one is in it.
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & kind as usize != 0
    }

    /// Their names.
    pub(crate) fn names(self) -> Vec<&'static str> {
        NAMES.iter().filter(|(kind, _)| self.has(*kind)).map(|(_, name)| *name).collect()
    }
}

/// What counts for another try.
pub(crate) struct Retry {
    /// `proxy_next_upstream`.
    pub(crate) kinds: Kinds,
    /// `proxy_next_upstream_tries`; 0 for no limit.
    pub(crate) tries: u64,
    /// `proxy_next_upstream_timeout`, milliseconds; 0 for no limit.
    pub(crate) timeout: u64,
    /// Tries left (`u->peer.tries`). When nginx has given a failed peer back and has looked at this
    /// itself (`ngx_http_upstream_next`), one that it gives in addition, where a reused connection
    /// failed, is counted, and for a single server there is no other. A peer that answered is given
    /// back only after the end: nginx goes on if there are more than that one
    /// (`ngx_http_upstream_test_next`).
    pub(crate) left: u64,
    /// Milliseconds since the first server was chosen.
    pub(crate) elapsed: u64,
    /// The request was sent, and its method is not idempotent.
    pub(crate) may_have_changed_something: bool,
    /// The request was sent, and is not kept (`proxy_request_buffering off`).
    pub(crate) request_is_gone: bool,
}

impl Upstream<'_> {
    /// What counts for another try now.
    pub(crate) fn retry(&self) -> Option<Retry> {
        // SAFETY: NULL until the protocol module has set it, then part of the configuration.
        let conf = unsafe { self.raw().conf.as_ref() }?;
        let (peer, request) = (&self.raw().peer, self.request());
        let methods = (NGX_HTTP_POST | NGX_HTTP_LOCK | NGX_HTTP_PATCH) as usize;
        let sent = self.request_sent();
        Some(Retry {
            kinds: Kinds(conf.next_upstream),
            tries: conf.next_upstream_tries as u64,
            timeout: conf.next_upstream_timeout as u64,
            left: (peer.tries as u64).saturating_sub(u64::from(!peer.sockaddr.is_null())),
            elapsed: time::current_msec().saturating_sub(peer.start_time as u64),
            may_have_changed_something: sent && request.method & methods != 0,
            request_is_gone: sent && request.request_body_no_buffering() != 0,
        })
    }
}
