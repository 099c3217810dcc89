//! `ngx_http_upstream_t` and `ngx_http_upstream_state_t`.

mod tls;

use std::borrow::Cow;
use std::hint;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::slice;

use nginx_sys::{
    AF_UNIX, NGX_HTTP_UPSTREAM_CREATE, ngx_connection_t, ngx_http_request_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_state_t, ngx_http_upstream_t, ngx_module_t,
    ngx_msec_t,
};

use super::request::Request;
use super::{module, peers, socket, string};
use crate::directives::MainConf;

/// Bytes that a socket takes in one go, with room to spare: Linux's take some 200k.
const AT_ONCE: u64 = 64 * 1_024;

/// Identity of an upstream request while the request's pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamId(usize);

/// One upstream request.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a> {
    raw: NonNull<ngx_http_upstream_t>,
    request: &'a ngx_http_request_t,
}

impl<'a> Upstream<'a> {
    /// # Safety
    /// `raw` is NULL or an upstream request of `request` that lives for `'a`.
    pub(super) unsafe fn from_raw(
        raw: *mut ngx_http_upstream_t,
        request: &'a ngx_http_request_t,
    ) -> Option<Upstream<'a>> {
        NonNull::new(raw).map(|raw| Upstream { raw, request })
    }

    /// # Safety
    /// As for [`Upstream::from_raw`], of a pointer that is not NULL.
    #[inline(always)]
    pub(super) unsafe fn of_hook(
        raw: *mut ngx_http_upstream_t,
        request: &'a ngx_http_request_t,
    ) -> Upstream<'a> {
        // SAFETY: by the caller's contract.
        Upstream { raw: unsafe { NonNull::new_unchecked(raw) }, request }
    }

    pub(super) fn raw(&self) -> &'a ngx_http_upstream_t {
        // SAFETY: from_raw()'s contract. No reference is kept: nginx, and hooks::hook_finalize(),
        // change the structure between the calls of these methods.
        unsafe { self.raw.as_ref() }
    }

    /// Its identity.
    pub(crate) fn id(&self) -> UpstreamId {
        UpstreamId(self.raw.as_ptr() as usize)
    }

    /// The name of the peer in use, or of the group when none could be chosen.
    pub(crate) fn peer_name(&self) -> Option<&'a [u8]> {
        // SAFETY: NULL or a name in the configuration, the zone or the request's pool.
        unsafe { string::bytes_at(self.raw().peer.name) }
    }

    /// Whether the peer is a unix socket. Its name tells: `peer.sockaddr` is NULL once the peer
    /// was given back.
    pub(crate) fn is_unix(&self) -> bool {
        // SAFETY: NULL or the peer's address, which has a family.
        let family = unsafe { self.raw().peer.sockaddr.as_ref() }.map(|addr| addr.sa_family);
        family.is_some_and(|family| u32::from(family) == AF_UNIX)
            || self.peer_name().is_some_and(|name| name.starts_with(b"unix:"))
    }

    /// Whether this host has a source address for the peer's. Only asked where that is in doubt:
    /// it takes a socket of its own.
    pub(crate) fn has_source_address(&self) -> Option<bool> {
        self.sockaddr().and_then(socket::has_source_address)
    }

    /// Address and port of the peer, until it is given back. A unix socket has none.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.sockaddr().and_then(socket::ip_address)
    }

    /// The bytes of `peer.sockaddr`, until the peer is given back.
    fn sockaddr(&self) -> Option<&[u8]> {
        let peer = &self.raw().peer;
        if peer.sockaddr.is_null() {
            return None;
        }
        // SAFETY: the peer's address, `socklen` bytes, held until the peer is given back.
        Some(unsafe {
            slice::from_raw_parts(peer.sockaddr.cast::<u8>(), usize::try_from(peer.socklen).ok()?)
        })
    }

    /// `u->peer.cached`: the connection came from the keepalive cache.
    pub(crate) fn is_reused(&self) -> bool {
        self.raw().peer.cached() != 0
    }

    fn connection(&self) -> Option<&'a ngx_connection_t> {
        // SAFETY: NULL, or a connection that is open until the upstream request moves on.
        unsafe { self.raw().peer.connection.as_ref() }
    }

    /// The socket of the connection to the peer.
    pub(crate) fn fd(&self) -> Option<i32> {
        self.connection().map(|connection| connection.fd)
    }

    /// Bytes sent on the connection (`connection->sent`).
    pub(crate) fn bytes_sent(&self) -> Option<u64> {
        self.connection().and_then(|connection| u64::try_from(connection.sent).ok())
    }

    /// `u->request_sent`.
    pub(crate) fn request_sent(&self) -> bool {
        self.raw().request_sent() != 0
    }

    /// `u->request_body_sent`.
    pub(crate) fn request_body_sent(&self) -> bool {
        self.raw().request_body_sent() != 0
    }

    /// Whether all of the request was sent when the connection stood: it did not have to wait for
    /// its client, nor for room.
    pub(crate) fn sent_at_once(&self) -> bool {
        self.request_body_sent()
            && self.request().request_body_no_buffering() == 0
            && self.bytes_sent().is_some_and(|sent| sent <= AT_ONCE)
    }

    /// `u->header_sent`: the response header went to the client.
    pub(crate) fn header_sent(&self) -> bool {
        self.raw().header_sent() != 0
    }

    /// `X-Accel-Redirect`: the upstream sent the request on to another location.
    pub(crate) fn is_redirected(&self) -> bool {
        !self.raw().headers_in.x_accel_redirect.is_null()
    }

    /// Between `ngx_http_upstream_init_request` and `ngx_http_upstream_finalize_request`.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.raw().cleanup.is_null()
    }

    /// `u->state`: the entry of the current attempt.
    pub(crate) fn state(&self) -> Option<&'a State> {
        // SAFETY: NULL or an entry of r->upstream_states. State is a transparent wrapper.
        unsafe { self.raw().state.cast::<State>().as_ref() }
    }

    /// `u->start_time`: when the current attempt began, on the clock of `ngx_current_msec`.
    pub(crate) fn start_time(&self) -> u64 {
        self.raw().start_time as u64
    }

    /// What stands in the buffer for the response header.
    pub(crate) fn header_bytes(&self) -> &'a [u8] {
        let buffer = &self.raw().buffer;
        // A response to be cached leaves room for the cache file's own header in front.
        let skip = self.cache_header();
        let used = (buffer.last as usize).saturating_sub(buffer.start as usize);
        if buffer.start.is_null() || used <= skip {
            return &[];
        }
        // SAFETY: nginx filled [start, last) of its buffer, the first `skip` bytes aside.
        unsafe { slice::from_raw_parts(buffer.start.add(skip), used.saturating_sub(skip)) }
    }

    /// Bytes of the buffer that the header of the cache file takes.
    #[cfg(nginx_http_cache)]
    pub(crate) fn cache_header(&self) -> usize {
        // SAFETY: NULL or the request's cache state, in its pool.
        unsafe { self.request.cache.as_ref() }.map_or(0, |cache| cache.header_start)
    }

    /// As above, in an nginx that was built without a cache.
    #[cfg(not(nginx_http_cache))]
    pub(crate) fn cache_header(&self) -> usize {
        0
    }

    /// `$upstream_cache_status` is `HIT`: no peer was asked.
    #[cfg(nginx_http_cache)]
    pub(super) fn is_cache_hit(&self) -> bool {
        self.raw().cache_status() == nginx_sys::NGX_HTTP_CACHE_HIT
    }

    /// The connection could not be written to for `proxy_send_timeout` (`write->timedout`).
    pub(crate) fn write_timed_out(&self) -> bool {
        // SAFETY: an open connection has its events.
        let write = self.connection().and_then(|c| unsafe { c.write.as_ref() });
        write.is_some_and(|write| write.timedout() != 0)
    }

    /// `u->upgrade`: the connection is a tunnel, for WebSocket for one.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.raw().upgrade() != 0
    }

    /// `buffer_size` of the protocol module.
    pub(crate) fn header_limit(&self) -> Option<u64> {
        // SAFETY: NULL until the protocol module has set it, then part of the configuration.
        let conf = unsafe { self.raw().conf.as_ref() }?;
        Some(conf.buffer_size as u64)
    }

    /// `u->resolved->ctx->state`, where that is an error.
    pub(crate) fn resolver_error(&self) -> Option<i64> {
        // SAFETY: `resolved` lives in the request's pool, `ctx` until the name is resolved; both
        // are NULL otherwise (ngx_http_upstream_resolve_handler).
        let state = unsafe { self.raw().resolved.as_ref()?.ctx.as_ref()?.state };
        // 0 is success, NGX_AGAIN (-2) a query under way.
        (state > 0).then_some(state as i64)
    }

    /// The host of an address made at run time; with its port where the host alone would be the
    /// name of a group, which a client must not be able to speak ill of.
    fn resolved_name(&self) -> Option<String> {
        // SAFETY: as above; the host's text lives in the request's pool.
        let (host, port) = unsafe {
            let resolved = self.raw().resolved.as_ref()?;
            (diagnosis::text(string::bytes(&resolved.host)).into_owned(), resolved.port)
        };
        let taken = self.main_conf().is_some_and(|main| main.groups.has(&host));
        Some(if taken { format!("{host}:{port}") } else { host })
    }

    /// The module's configuration of the http block.
    pub(super) fn main_conf(&self) -> Option<&'static MainConf> {
        // SAFETY: the request lives for 'a, and is only read.
        let request = unsafe { Request::from_raw(std::ptr::from_ref(self.request).cast_mut()) };
        request?.main_conf()
    }

    /// Address of the group; 0 where the address was made at run time.
    #[inline]
    pub(crate) fn group_at(&self) -> usize {
        self.raw().upstream as usize
    }

    /// Bytes of the response header, while the buffer still stands at its end: when it is about to
    /// be sent on (`ngx_http_upstream_send_response`).
    #[inline]
    pub(crate) fn header_size(&self) -> usize {
        let buffer = &self.raw().buffer;
        let size = (buffer.pos as usize).wrapping_sub(buffer.start as usize);
        size.saturating_sub(self.cache_header())
    }

    /// Where nginx has the name of the peer in use: as [`State::peer_at`].
    pub(crate) fn peer_at(&self) -> usize {
        self.raw().peer.name as usize
    }

    /// Whether the name of a peer that is there is the configuration's, and stays where it is. With
    /// a zone it is shared, or a copy (`ngx_http_upstream_connect`), and a balancer of a third party
    /// may have it in the request.
    pub(crate) fn has_fixed_name(&self, at: usize) -> bool {
        let peer = peers::with_name(at);
        self.main_conf().is_some_and(|main| main.groups.has_fixed(self.group_at(), peer))
    }

    /// Whether it chooses from a configured group; otherwise its address was made at run time.
    pub(crate) fn has_group(&self) -> bool {
        !self.raw().upstream.is_null()
    }

    pub(super) fn group(&self) -> Option<&'a ngx_http_upstream_srv_conf_t> {
        // SAFETY: NULL for a peer made at run time, else part of the configuration.
        unsafe { self.raw().upstream.as_ref() }
    }

    /// Whether it chooses from an `upstream` block, not from an address in a pass directive.
    pub(crate) fn is_block(&self) -> bool {
        self.group().is_some_and(|group| group.flags & NGX_HTTP_UPSTREAM_CREATE as usize != 0)
    }

    pub(super) fn request(&self) -> &'a ngx_http_request_t {
        self.request
    }

    /// The name of the group: that of an `upstream` block, or the address in `proxy_pass`.
    pub(crate) fn group_name(&self) -> Option<Cow<'static, str>> {
        let configured = || {
            // What is served from the cache has not come to choosing a group.
            // SAFETY: NULL until the protocol module has set it, then part of the configuration.
            unsafe { self.raw().conf.as_ref()?.upstream.as_ref() }
        };
        match self.group() {
            Some(group) => {
                let known = self.main_conf().and_then(|main| main.groups.name(self.group_at()));
                Some(known.map_or_else(|| name_of(group).into(), Cow::Borrowed))
            }
            None => self.resolved_name().or_else(|| configured().map(name_of)).map(Cow::Owned),
        }
    }

    /// The protocol module: `u->output.tag` is the address of its `ngx_module_t`.
    pub(crate) fn module(&self) -> Option<&'static str> {
        module::short_name(self.raw().output.tag.cast::<ngx_module_t>())
    }
}

/// The name of a group: that of an `upstream` block, or the address in a pass directive.
pub(super) fn name_of(group: &ngx_http_upstream_srv_conf_t) -> String {
    // SAFETY: a name in the configuration.
    let host = diagnosis::text(unsafe { string::bytes(&group.host) }).into_owned();
    let named = group.flags & NGX_HTTP_UPSTREAM_CREATE as usize != 0;
    if named || group.port == 0 { host } else { format!("{host}:{}", group.port) }
}

/// One entry of `r->upstream_states`: an attempt, or what stands between two upstream requests.
#[repr(transparent)]
pub(crate) struct State(ngx_http_upstream_state_t);

impl State {
    /// The peer's name; `None` for an entry between groups and for an attempt without a peer.
    pub(crate) fn peer(&self) -> Option<&[u8]> {
        // SAFETY: NULL or a name that nginx keeps for as long as the request.
        unsafe { string::bytes_at(self.0.peer) }
    }

    /// Where nginx has the peer's name: an address to compare, and 0 where there is none.
    #[inline(always)]
    pub(crate) fn peer_at(&self) -> usize {
        self.0.peer as usize
    }

    /// As [`State::peer`], where that is a name of eight bytes or more.
    #[inline(always)]
    pub(crate) fn long_peer(&self) -> Option<&[u8]> {
        // SAFETY: as above; a text that is not empty is not NULL.
        unsafe {
            let name = self.0.peer.as_ref().filter(|name| name.len >= size_of::<u64>())?;
            hint::assert_unchecked(!name.data.is_null());
            Some(slice::from_raw_parts(name.data, name.len))
        }
    }

    /// How long the attempt took, milliseconds, if it ends with a response that is no error of a
    /// gateway's. That time is set before a hook hears of the end
    /// (`ngx_http_upstream_finalize_request`).
    #[inline]
    pub(crate) fn took_if_good(&self) -> Option<u64> {
        let State(state) = self;
        if state.header_time == ngx_msec_t::MAX || matches!(state.status, 502..=504) {
            return None;
        }
        Some(state.response_time as u64)
    }

    /// Whether it stands between the attempts of two upstream requests: all zeros, while those of an
    /// attempt have -1 for times that were not reached (`ngx_http_upstream_init_request`,
    /// `ngx_http_upstream_connect`).
    #[inline]
    pub(crate) fn is_separator(&self) -> bool {
        self.0.peer.is_null() && self.0.header_time == 0 && self.0.connect_time == 0
    }

    /// `$upstream_status`; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        u16::try_from(self.0.status).unwrap_or(0)
    }

    /// Milliseconds until the connection stood.
    pub(crate) fn connect_time(&self) -> Option<u64> {
        millis(self.0.connect_time)
    }

    /// Milliseconds until the response header was complete.
    pub(crate) fn header_time(&self) -> Option<u64> {
        millis(self.0.header_time)
    }

    /// Milliseconds until the attempt ended.
    pub(crate) fn response_time(&self) -> Option<u64> {
        millis(self.0.response_time)
    }

    /// Bytes received from the peer.
    pub(crate) fn bytes_received(&self) -> u64 {
        u64::try_from(self.0.bytes_received).unwrap_or(0)
    }

    /// Bytes sent to the peer.
    pub(crate) fn bytes_sent(&self) -> u64 {
        u64::try_from(self.0.bytes_sent).unwrap_or(0)
    }
}

/// nginx writes -1 for a time that was not reached (`ngx_http_upstream_connect`).
fn millis(time: ngx_msec_t) -> Option<u64> {
    (time != ngx_msec_t::MAX).then_some(time as u64)
}
