//! Processes as /proc shows them.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    started: u64,
}

/// Fields of /proc/<pid>/stat.
struct Stat {
    parent: u32,
    group: u32,
    started: u64,
    dead: bool,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.started == self.started && !s.dead)
    }

    /// What `ps` shows; nginx names its processes there.
    pub(super) fn title(&self) -> String {
        let raw = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&raw);
        text.split('\0').next().unwrap_or_default().trim_end().to_owned()
    }

    /// A worker that has finished its start (it takes the title last).
    pub(super) fn is_ready_worker(&self) -> bool {
        self.title() == "nginx: worker process"
    }

    /// A worker, also one that is about to end.
    pub(super) fn is_worker(&self) -> bool {
        self.title().starts_with("nginx: worker process")
    }

    /// Targets of the open descriptors; none when that may not be seen.
    pub(super) fn open_files(&self) -> Vec<PathBuf> {
        let Ok(dir) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return Vec::new();
        };
        dir.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }
}

/// Signals a process that cannot be another one by now: a child not yet
/// waited for, or one whose start time was just checked.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The only error left is that it has ended, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

/// The process with this number now.
pub(super) fn process(pid: u32) -> Option<Process> {
    stat(pid).map(|s| Process { pid, started: s.started })
}

/// The children of a process.
pub(super) fn children(parent: u32) -> Vec<Process> {
    alive()
        .filter(|(_, s)| s.parent == parent)
        .map(|(pid, s)| Process { pid, started: s.started })
        .collect()
}

/// Whether one of a group's processes is still there, with what it has open.
pub(crate) fn group_is_alive(group: u32) -> bool {
    alive().any(|(_, s)| s.group == group)
}

fn alive() -> impl Iterator<Item = (u32, Stat)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).map(|s| (pid, s)))
        .filter(|(_, s)| !s.dead)
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name is in parentheses and may hold any character: the last one
    // ends it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Field 22 of all; 3 to 5 are taken.
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { parent, group, started, dead: matches!(state, "Z" | "X") })
}
