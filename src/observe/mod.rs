//! From nginx's structures to plain values, at the moments that tell something: an error line,
//! the end of an upstream request.

mod attempt;
mod finalize;
mod tap;

pub(crate) use attempt::{Assembled, assemble};
pub(crate) use finalize::finalized;
pub(crate) use tap::{line, uri};

use crate::ffi::request::Request;
use crate::ffi::upstream::State;

/// Whether an upstream answered with 502, 503 or 504 itself. nginx logs nothing then.
#[inline]
pub(crate) fn upstream_answered_error(request: Request<'_>) -> bool {
    request.states().iter().any(answered_error)
}

/// The status alone does not tell: nginx writes 502 and 504 for its own failures too, but then no
/// header came.
fn answered_error(state: &State) -> bool {
    matches!(state.status(), 502..=504) && state.header_time().is_some()
}
