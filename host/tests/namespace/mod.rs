//! A network namespace for a test.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a new network namespace, where these `ip` commands were run.
pub(crate) fn in_namespace(commands: &[&str], test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Of this thread alone, and of what it starts.
            if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
                println!("skipped: no network namespace ({e})");
                return;
            }
            for command in commands {
                let status = Command::new("ip").args(command.split(' ')).status();
                assert!(status.is_ok_and(|s| s.success()), "ip {command}");
            }
            test();
        });
        // With the test's own message.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
