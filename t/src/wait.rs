//! Waiting for what gives no event to wait on, always with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Short enough not to be felt in a test, long enough to leave the CPU to the
/// process that is waited for.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `f` until it gives a value; `None` after `within`.
pub fn poll<T>(within: Duration, mut f: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        // Read the clock first: a slow machine still gets one last look after
        // the deadline has passed.
        let late = Instant::now() >= deadline;
        if let Some(value) = f() {
            return Some(value);
        }
        if late {
            return None;
        }
        sleep(INTERVAL);
    }
}

/// [`poll`] that fails the test at the deadline.
///
/// # Panics
/// When `within` has passed.
pub fn eventually<T>(what: &str, within: Duration, f: impl FnMut() -> Option<T>) -> T {
    poll(within, f).unwrap_or_else(|| panic!("{what}: not within {within:?}"))
}
