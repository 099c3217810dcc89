//! What nginx wrote.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::Nginx;
use crate::wait::poll;

/// How long a log line may take.
const LINES: Duration = Duration::from_secs(5);

/// Signs of a crash or of a broken nginx, a sanitizer's and Rust's included.
/// `signal 11` is covered by `exited on signal`, but not when it is said by
/// something else.
const FAULTS: [&str; 7] = [
    "[alert]",
    "[emerg]",
    "signal 11",
    "exited on signal",
    "panicked at",
    "Sanitizer",
    "runtime error:",
];

impl Nginx {
    /// `<prefix>/error.log` so far.
    pub fn error_log(&self) -> String {
        self.read("error.log")
    }

    /// A file in the prefix; empty when it is missing.
    pub fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a line in the error log, and returns it.
    ///
    /// # Panics
    /// With the log, when there is none in time.
    pub fn wait_for_log(&self, text: &str, within: Duration) -> String {
        let find = || self.error_log().lines().find(|l| l.contains(text)).map(str::to_owned);
        poll(within, find)
            .unwrap_or_else(|| panic!("no {text:?} in the error log:\n{}", self.error_log()))
    }

    /// The complete lines of a file in the prefix.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = self.read(name);
        // A line that is being written has no end yet.
        text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// Waits for `n` lines (or more) in a file. Logs are written after the
    /// response, so that a test that has one does not have the other yet.
    ///
    /// # Panics
    /// With the lines and the error log, when they are too few.
    pub fn wait_lines(&self, name: &str, n: usize) -> Vec<String> {
        poll(LINES, || Some(self.lines(name)).filter(|lines| lines.len() >= n)).unwrap_or_else(
            || panic!("{name}: wanted {n} lines: {:#?}\n{}", self.lines(name), self.error_log()),
        )
    }

    /// A JSON log in the prefix.
    ///
    /// # Panics
    /// When a line is not JSON.
    pub fn json_log(&self, name: &str) -> Vec<Value> {
        parse(&self.lines(name))
    }

    /// Waits for `n` lines (or more) in a JSON log.
    ///
    /// # Panics
    /// When they are too few or a line is not JSON.
    pub fn wait_json_lines(&self, name: &str, n: usize) -> Vec<Value> {
        parse(&self.wait_lines(name, n))
    }

    /// Lines of the error log that contain `text` are no fault.
    pub fn allow_log(&self, text: &str) {
        self.state().allowed.push(text.to_owned());
    }

    /// Checks that the logs show no crash, no `[alert]`, no `[emerg]`.
    ///
    /// # Panics
    /// With the lines, when they do.
    pub fn assert_clean(&self) {
        let allowed = self.state().allowed.clone();
        let logs = self.all_logs();
        let faults: Vec<&str> = logs
            .lines()
            .filter(|l| {
                FAULTS.iter().any(|f| l.contains(f)) || exit_code(l).is_some_and(|c| c != "0")
            })
            .filter(|l| !allowed.iter().any(|a| l.contains(a.as_str())))
            .collect();
        if !faults.is_empty() {
            self.state().checked = true;
            panic!("nginx is not clean:\n{}", faults.join("\n"));
        }
    }

    /// Where nginx may have said something: rotated logs too, and stderr
    /// (which nginx itself points to the error log once it runs).
    pub(super) fn all_logs(&self) -> String {
        ["stderr.log", "error.log.1", "error.log"].map(|name| self.read(name)).concat()
    }

    /// The end of the logs, for a test that fails.
    pub(super) fn last_words(&self) -> String {
        let logs = self.all_logs();
        let lines: Vec<&str> = logs.lines().collect();
        let last = &lines[lines.len().saturating_sub(60)..];
        format!("--- error log of {}\n{}\n---", self.prefix().display(), last.join("\n"))
    }
}

/// The code in `worker process 1 exited with code 0`.
fn exit_code(line: &str) -> Option<&str> {
    line.split_once(" exited with code ")?.1.split(' ').next()
}

fn parse(lines: &[String]) -> Vec<Value> {
    let parse = |l: &String| {
        serde_json::from_str(l).unwrap_or_else(|e| panic!("not a line of JSON ({e}): {l}"))
    };
    lines.iter().map(parse).collect()
}
