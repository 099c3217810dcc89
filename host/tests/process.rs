//! When a process started, asked about real ones.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::process_started;

/// Guards against a time that is off by the clock that was taken, by its unit, or by a program name
/// that looks like fields.
#[test]
fn a_child_started_after_its_parent_was_asked() {
    let directory = tempfile::tempdir().unwrap();
    // cat waits for the end of its input.
    let program = directory.path().join("a) b (c 1 2)");
    let cat = Command::new("sh").args(["-c", "command -v cat"]).output().unwrap().stdout;
    symlink(String::from_utf8(cat).unwrap().trim(), &program).unwrap();
    let before = Instant::now();
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let after = Instant::now();
    let ago = process_started(pid).unwrap();
    // A tick is 10 ms; the clock itself is read in between.
    let tick = Duration::from_millis(10);
    assert!(ago <= before.elapsed() + tick, "{ago:?}");
    let least = after.elapsed();
    // Grows as time does: not measured from a fixed point.
    let later = process_started(pid).unwrap();
    assert!(later >= ago && later >= least, "{later:?} {ago:?} {least:?}");
    let own = process_started(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(own + tick >= later, "{own:?} {later:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(process_started(pid), None, "ended");
}

/// Guards against an answer for what is no process, as `SO_PEERCRED` gives for one of another
/// namespace (0).
#[test]
fn no_process() {
    for pid in [0, -1, i32::MIN, i32::MAX] {
        assert_eq!(process_started(pid), None, "{pid}");
    }
    assert!(process_started(1).is_none_or(|ago| ago < Duration::from_secs(3_000_000_000)));
}
