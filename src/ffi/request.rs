//! `ngx_http_request_t`.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use nginx_sys::{
    NGX_HTTP_MODULE, NGX_HTTP_VERSION_9, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_http_core_srv_conf_t, ngx_http_get_indexed_variable, ngx_http_request_t,
    ngx_http_upstream_state_t, ngx_list_part_t, ngx_module_t, ngx_table_elt_t,
};

use super::conf::VariableIndex;
use super::upstream::{State, Upstream};
use super::{module, string, time};
use crate::directives::{LocConf, MainConf};

/// Identity of a request while its pool lives: the address of its structure, which nginx never
/// gives to another request of the same pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(usize);

impl RequestId {
    /// The subrequest with this identity, noted earlier under `main`: nginx allocates
    /// subrequests from the main request's pool and gives none back before that ends.
    pub(crate) fn subrequest<'a>(self, main: Request<'a>) -> Option<Request<'a>> {
        // SAFETY: an identity is only ever made by id() of a live request, and kept with the
        // pool that the request lives in (hooks::Kept); `main` shows that it lives still.
        unsafe { Request::from_raw(self.0 as *mut ngx_http_request_t) }
            .filter(|request| std::ptr::eq(request.raw().main, main.as_ptr()))
    }
}

/// A request, main or subrequest.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    raw: NonNull<ngx_http_request_t>,
    lives: PhantomData<&'a ngx_http_request_t>,
}

impl<'a> Request<'a> {
    /// The request at `raw`, unless that is NULL or no request.
    ///
    /// # Safety
    /// `raw` is NULL or points to a request that lives for `'a`.
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_request_t) -> Option<Request<'a>> {
        let raw = NonNull::new(raw)?;
        // SAFETY: valid by the caller's contract.
        let signature = unsafe { (*raw.as_ptr()).signature };
        (signature == NGX_HTTP_MODULE).then_some(Request { raw, lives: PhantomData })
    }

    /// The request that nginx calls a handler with.
    ///
    /// # Safety
    /// `raw` points to a request that lives for `'a`: what [`Request::from_raw`] would look at is
    /// known.
    #[inline(always)]
    pub(super) unsafe fn of_handler(raw: *mut ngx_http_request_t) -> Request<'a> {
        // SAFETY: by the caller's contract.
        Request { raw: unsafe { NonNull::new_unchecked(raw) }, lives: PhantomData }
    }

    pub(super) fn raw(&self) -> &'a ngx_http_request_t {
        // SAFETY: from_raw()'s contract. Shared access only: nginx changes the request between
        // the module's calls, never during one, except where a method here asks it to.
        unsafe { self.raw.as_ref() }
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_http_request_t {
        self.raw.as_ptr()
    }

    /// Its identity.
    pub(crate) fn id(&self) -> RequestId {
        RequestId(self.raw.as_ptr() as usize)
    }

    /// Whether this is a main request.
    pub(crate) fn is_main(&self) -> bool {
        self.raw().main == self.raw.as_ptr()
    }

    /// Whether this request runs a `post_action`: the client has its response.
    pub(crate) fn is_post_action(&self) -> bool {
        self.raw().post_action() != 0
    }

    /// Whether this is a subrequest that nothing waits for (`NGX_HTTP_SUBREQUEST_BACKGROUND`).
    pub(crate) fn is_in_background(&self) -> bool {
        self.raw().background() != 0
    }

    /// The module's configuration of the location that serves the request now.
    pub(crate) fn loc_conf(&self) -> Option<&'static LocConf> {
        // SAFETY: nginx fills loc_conf with what create_loc_conf made, for every location; it
        // lives in the cycle's pool, which outlives its requests.
        unsafe { conf_at(self.raw().loc_conf, module::this())?.cast::<LocConf>().as_ref() }
    }

    /// Keeps a number with the request, until an internal redirect: in the module's place of
    /// `r->ctx`, as the number itself. 0 is none.
    #[inline]
    pub(crate) fn keep(&self, number: usize) {
        // SAFETY: the array has a place for each HTTP module, and this module puts nothing else in
        // its own.
        unsafe {
            let place = self.raw().ctx.add(module::this().ctx_index);
            place.write(std::ptr::without_provenance_mut(number));
        }
    }

    /// The number that is kept.
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        // SAFETY: as for keep(); nginx zeroes the array.
        unsafe { self.raw().ctx.add(module::this().ctx_index).read().addr() }
    }

    /// The module's configuration of the http block.
    pub(crate) fn main_conf(&self) -> Option<&'static MainConf> {
        // SAFETY: as for loc_conf(), with create_main_conf.
        unsafe { conf_at(self.raw().main_conf, module::this())?.cast::<MainConf>().as_ref() }
    }

    /// Name of the location, which lives in the cycle, as long as requests.
    pub(crate) fn location(&self) -> &'static [u8] {
        // SAFETY: the core module's location configuration is an ngx_http_core_loc_conf_t.
        unsafe {
            let core = &*std::ptr::addr_of!(ngx_http_core_module);
            conf_at(self.raw().loc_conf, core)
                .and_then(|conf| conf.cast::<ngx_http_core_loc_conf_t>().as_ref())
                .map_or(&[], |conf| string::bytes(&conf.name))
        }
    }

    /// `server_name` of the server block.
    pub(crate) fn server(&self) -> &'a [u8] {
        // SAFETY: the core module's server configuration is an ngx_http_core_srv_conf_t.
        unsafe {
            let core = &*std::ptr::addr_of!(ngx_http_core_module);
            conf_at(self.raw().srv_conf, core)
                .and_then(|conf| conf.cast::<ngx_http_core_srv_conf_t>().as_ref())
                .map_or(&[], |conf| string::bytes(&conf.server_name))
        }
    }

    /// `r->upstream`.
    pub(crate) fn upstream(&self) -> Option<Upstream<'a>> {
        // SAFETY: NULL, or what ngx_http_upstream_create() made in the request's pool.
        unsafe { Upstream::from_raw(self.raw().upstream, self.raw()) }
    }

    /// `r->upstream`, where there is one.
    ///
    /// # Safety
    /// An upstream request of this request is under way, or ends.
    #[inline(always)]
    pub(super) unsafe fn ending_upstream(&self) -> Upstream<'a> {
        // SAFETY: by the caller's contract. As for upstream().
        unsafe { Upstream::of_hook(self.raw().upstream, self.raw()) }
    }

    /// `r->upstream_states`: an entry for each attempt, of all upstream requests of this request.
    pub(crate) fn states(&self) -> &'a [State] {
        // SAFETY: NULL, or an array of ngx_http_upstream_state_t in the request's pool
        // (ngx_http_upstream_init_request). State is a transparent wrapper.
        unsafe {
            match self.raw().upstream_states.as_ref() {
                Some(states) if states.nelts > 0 => slice::from_raw_parts(
                    states.elts.cast::<ngx_http_upstream_state_t>().cast::<State>(),
                    states.nelts,
                ),
                _ => &[],
            }
        }
    }

    /// The entry of the only attempt, if there was just one.
    #[inline]
    pub(crate) fn only_state(&self) -> Option<&'a State> {
        // SAFETY: as for states(); with an element, there is a place where that is.
        unsafe {
            let states = self.raw().upstream_states.as_ref().filter(|states| states.nelts == 1)?;
            Some(&*states.elts.cast::<ngx_http_upstream_state_t>().cast::<State>())
        }
    }

    /// Those of the last upstream request: what comes behind the last entry that only separates.
    #[inline]
    pub(crate) fn last_states(&self) -> &'a [State] {
        let states = self.states();
        match states.iter().rposition(State::is_separator) {
            Some(at) => states.get(at.saturating_add(1)..).unwrap_or_default(),
            None => states,
        }
    }

    /// Serial number of the client's connection.
    pub(crate) fn connection_number(&self) -> u64 {
        // SAFETY: a live request has a connection.
        unsafe { (*self.raw().connection).number }
    }

    /// The client's address.
    pub(crate) fn client(&self) -> &'a [u8] {
        // SAFETY: as above; addr_text is set when the connection is accepted.
        unsafe { string::bytes(&(*self.raw().connection).addr_text) }
    }

    /// The client's connection is broken (`connection->error`), or nginx has waited too long for
    /// the client (`connection->timedout`).
    pub(crate) fn client_gone(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            let connection = &*self.raw().connection;
            connection.error() != 0 || connection.timedout() != 0
        }
    }

    /// The request method.
    pub(crate) fn method(&self) -> &'a [u8] {
        // SAFETY: strings of a request live in its pool or header buffers.
        unsafe { string::bytes(&self.raw().method_name) }
    }

    /// The host asked for (`r->headers_in.server`): from the request line or `Host`.
    pub(crate) fn host(&self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { string::bytes(&self.raw().headers_in.server) }
    }

    /// The request's URI as the client sent it, query string included.
    pub(crate) fn unparsed_uri(&self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { string::bytes(&self.raw().unparsed_uri) }
    }

    /// The normalized URI, without the query string.
    pub(crate) fn uri(&self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { string::bytes(&self.raw().uri) }
    }

    /// The query string.
    pub(crate) fn args(&self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { string::bytes(&self.raw().args) }
    }

    /// The status that nginx's cache held, if the response, or the error in its place, is from
    /// there. nginx caches its own 502 and 504 as nothing but a status, without a response
    /// (`ngx_http_upstream_cache`).
    #[cfg(nginx_http_cache)]
    pub(crate) fn cached_status(&self) -> Option<u16> {
        let upstream = self.upstream()?;
        let status = if self.is_cached() {
            upstream.raw().headers_in.status_n
        } else if upstream.is_cache_hit() {
            // SAFETY: NULL or the request's cache state, in its pool.
            unsafe { self.raw().cache.as_ref()?.error }
        } else {
            return None;
        };
        u16::try_from(status).ok()
    }

    /// As above, in an nginx that was built without a cache.
    #[cfg(not(nginx_http_cache))]
    pub(crate) fn cached_status(&self) -> Option<u16> {
        None
    }

    /// `r->cached`: the response is from the cache.
    pub(crate) fn is_cached(&self) -> bool {
        self.raw().cached() != 0
    }

    /// nginx has redirected the request to an error page, so that its location is not the one in
    /// which the error was made.
    pub(crate) fn is_on_error_page(&self) -> bool {
        self.raw().error_page() != 0
    }

    /// The value of a header of the request: of several lines one list (RFC 9110, section 5.3).
    /// `name` is in small letters.
    pub(crate) fn header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut lines: Vec<&[u8]> = Vec::new();
        let mut part: *const ngx_list_part_t = &self.raw().headers_in.headers.part;
        // SAFETY: a list of ngx_table_elt_t in the request's pool (ngx_http_process_request_headers).
        unsafe {
            while let Some(headers) = part.as_ref() {
                let first = headers.elts.cast::<ngx_table_elt_t>();
                let all: &[ngx_table_elt_t] =
                    if first.is_null() { &[] } else { slice::from_raw_parts(first, headers.nelts) };
                let same = all
                    .iter()
                    .filter(|header| string::bytes(&header.key).eq_ignore_ascii_case(name));
                lines.extend(same.map(|header| string::bytes(&header.value)));
                part = headers.next;
            }
        }
        (!lines.is_empty()).then(|| lines.join(&b", "[..]))
    }

    /// `$status` (`ngx_http_variable_status`); 0 while there is none.
    pub(crate) fn status(&self) -> u16 {
        let raw = self.raw();
        let status = match (raw.err_status, raw.headers_out.status) {
            (0, 0) if raw.http_version == NGX_HTTP_VERSION_9 as usize => 9,
            (0, status) => status,
            (status, _) => status,
        };
        u16::try_from(status).unwrap_or(0)
    }

    /// Time since the request came, milliseconds (`$request_time`).
    pub(crate) fn time(&self) -> u64 {
        time::since(self.raw().start_sec, self.raw().start_msec as u64)
    }

    /// The value of a variable.
    pub(crate) fn variable(&self, index: VariableIndex) -> Option<&'a [u8]> {
        // SAFETY: the index came from nginx, for this configuration. The value lives in the
        // request's pool or longer.
        unsafe {
            let value = ngx_http_get_indexed_variable(self.as_ptr(), index.0).as_ref()?;
            (value.not_found() == 0 && value.len() > 0)
                .then(|| slice::from_raw_parts(value.data, value.len() as usize))
        }
    }
}

/// A module's place in an array of configurations.
///
/// # Safety
/// `confs` is NULL or one of the arrays of an `ngx_http_conf_ctx_t`, and `module` an HTTP module
/// that nginx has numbered.
unsafe fn conf_at(
    confs: *mut *mut std::ffi::c_void,
    module: &ngx_module_t,
) -> Option<*mut std::ffi::c_void> {
    if confs.is_null() {
        return None;
    }
    // SAFETY: the array has a place for each HTTP module (ngx_http_max_module).
    let conf = unsafe { *confs.add(module.ctx_index) };
    (!conf.is_null()).then_some(conf)
}
