//! The panic boundary between nginx and safe code.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log;

/// Runs the body of an `extern "C"` function. A panic never unwinds into C: it is reported as one
/// alert in nginx's log and `fallback` is returned.
pub(super) fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    guard_or(body, || fallback)
}

/// As [`guard`], with a fallback that is made only when it is needed.
pub(super) fn guard_or<T>(body: impl FnOnce() -> T, fallback: impl FnOnce() -> T) -> T {
    // A value that a panic left half-changed belongs to one request, which is not diagnosed any
    // further (`hooks::disable`), so nothing broken is ever looked at again.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        log::cycle_alert("upstream_diag: internal error, this request is not diagnosed");
        fallback()
    })
}

/// Keeps the standard library from printing a panic to standard error, which nginx may have
/// pointed anywhere: what and where goes to nginx's log instead. Called once in each worker.
pub(crate) fn report_panics_to_nginx() {
    std::panic::set_hook(Box::new(|panic| {
        log::cycle_alert(&format!("upstream_diag: {panic}"));
    }));
}
