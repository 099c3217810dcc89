//! From nginx's structures to plain values, at the moments that tell something: an error line,
//! the end of an upstream request.

mod attempt;
mod finalize;
mod group;
mod tap;

pub(crate) use attempt::{Assembled, assemble};
pub(crate) use finalize::{answered_in, finalized};
pub(crate) use group::uri;
pub(crate) use tap::line;

use crate::ffi::request::Request;
use crate::ffi::upstream::{State, Upstream};

/// Whether an upstream answered with an error of its own, nothing was noted of that, and the
/// request's location tells whether it is to be diagnosed: the upstream request still goes on
/// there, or was not watched (see `ffi::watch`) and nothing better can be known.
#[inline]
pub(crate) fn unnoted_error(request: Request<'_>) -> bool {
    let tells = |upstream: Upstream<'_>| upstream.is_under_way() || !upstream.has_group();
    request.upstream().is_some_and(tells)
        && request.states().iter().any(answered_error)
        && request.loc_conf().is_some_and(|conf| conf.enabled())
}

/// Whether an upstream answered with 502, 503 or 504 itself. nginx logs nothing then.
/// The status alone does not tell: nginx writes 502 and 504 for its own failures too, but then no
/// header came.
fn answered_error(state: &State) -> bool {
    matches!(state.status(), 502..=504) && state.header_time().is_some()
}
