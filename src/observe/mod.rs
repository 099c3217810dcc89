//! From nginx's structures to plain values, at the moments that tell something: an error line,
//! the end of an upstream request.

mod attempt;
mod context;
mod count;
mod finalize;
mod group;
mod listening;
mod tap;

pub(crate) use attempt::{Assembled, assemble};
pub(crate) use count::{
    add_histories, add_other_histories, count, count_unwatched, count_usual, past,
};
pub(crate) use finalize::{answered_in, finalized, gave_up};
pub(crate) use group::{cached_in_subrequest, uri};
pub(crate) use tap::line;

use diagnosis::Cause;

use crate::ffi::request::Request;
use crate::ffi::upstream::{State, Upstream};

/// Where the request goes on in an upstream request whose location tells whether it is to be
/// diagnosed: one that is under way there, or was not watched (see `ffi::watch`), so that nothing
/// better can be known. The place of its first attempt in `r->upstream_states`.
#[inline]
fn told_by_location(request: Request<'_>) -> Option<usize> {
    let tells = |upstream: &Upstream<'_>| upstream.is_under_way() || !upstream.has_group();
    request.upstream().filter(tells)?;
    request.loc_conf().filter(|conf| conf.enabled())?;
    Some(request.states().len().saturating_sub(request.last_states().len()))
}

/// Whether an upstream answered with an error of its own of which nothing was noted.
#[inline]
pub(crate) fn unnoted_error(request: Request<'_>) -> bool {
    request.states().iter().any(answered_error) && told_by_location(request).is_some()
}

/// Whether the client gets a gateway's error. Subrequests have no client.
#[inline]
pub(crate) fn answers_gateway_error(request: Request<'_>) -> bool {
    is_gateway_error(request) && request.is_main()
}

/// Whether a subrequest was answered with a gateway's error from the cache.
pub(crate) fn is_cached_in_subrequest(request: Request<'_>) -> bool {
    is_gateway_error(request) && !request.is_main() && has_cached_error(request)
}

/// Whether the error is what the cache held. A redirect can have led from a good response in the
/// cache to an error elsewhere.
fn has_cached_error(request: Request<'_>) -> bool {
    matches!(request.cached_status(), Some(502..=504))
}

fn is_gateway_error(request: Request<'_>) -> bool {
    matches!(request.status(), 502..=504)
}

/// The cause of a gateway's error that no upstream's failure explains.
pub(crate) fn own_error(request: Request<'_>) -> Option<Cause> {
    if !answers_gateway_error(request) || request.is_post_action() {
        return None;
    }
    request.loc_conf().filter(|conf| conf.enabled())?;
    if has_cached_error(request) {
        return Some(Cause::CachedError);
    }
    // The failure of an upstream that was not to be diagnosed is no error of the configuration's.
    let gateway = |state: &State| matches!(state.status(), 502..=504);
    let internal = |state: &State| state.status() == 500 && state.header_time().is_none();
    let failed = request.states().iter().any(|state| gateway(state) || internal(state));
    let none_reached = request.states().is_empty() && request.upstream().is_some();
    (!failed && !none_reached).then_some(Cause::LocalReturn)
}

/// Whether an upstream answered with 502, 503 or 504 itself. nginx logs nothing then.
/// The status alone does not tell: nginx writes 502 and 504 for its own failures too, but then no
/// header came.
fn answered_error(state: &State) -> bool {
    matches!(state.status(), 502..=504) && state.header_time().is_some()
}
