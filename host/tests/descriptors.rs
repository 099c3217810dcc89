//! What it takes of the process: nothing that stays. Alone in its program, because it counts and
//! uses up what all tests of a program share.

#![allow(
    clippy::unwrap_used,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs::{self, File};
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What each function knows of a host with nothing on it.
fn known() -> [bool; 4] {
    [
        host::listeners(1).is_some(),
        host::unix_listener(b"/nonexistent").is_some(),
        host::is_own(IpAddr::from([192, 0, 2, 1])).is_some(),
        host::process_started(i32::try_from(std::process::id()).unwrap()).is_some(),
    ]
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Guards against a worker that loses a descriptor with each failure, and against a panic or a
/// wrong answer in one that has none left, which is when connections fail.
#[test]
fn descriptors_are_given_back_and_not_needed() {
    let before = open_files();
    for _ in 0..100 {
        assert_eq!(known(), [true; 4]);
    }
    assert_eq!(open_files(), before);

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut rest: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert_eq!(known(), [false; 4]);
    // One is enough, for each of them.
    rest.pop();
    assert_eq!(known(), [true; 4]);
}
