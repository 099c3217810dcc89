//! System calls, counted by strace.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use t::{Nginx, eventually};

use crate::results::Syscalls;
use crate::scenario::Scenario;
use crate::site::{Asker, Upstreams, check_lines};
use crate::way::Way;

/// N: what N and 2N requests differ by is N requests.
const REQUESTS: usize = 100;

/// Counts the system calls of a scenario's requests.
pub(crate) fn measure(upstreams: &Upstreams, scenario: &Scenario, way: Way) -> Syscalls {
    let nginx = Nginx::start(upstreams.conf(scenario, way));
    let mut asker = Asker::connect(&nginx.addr(0), "/", scenario.status);
    asker.ask(scenario.warm_up);
    // What is done once a second is in some of them: the least is without it.
    let mut least = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..2 {
        for (n, least) in [REQUESTS, 2 * REQUESTS].into_iter().zip(&mut least) {
            let trace = Trace::start(&nginx);
            asker.ask(n);
            let seen = parse(&trace.end(&nginx));
            if least.is_empty() || sum(&seen) < sum(least) {
                *least = seen;
            }
        }
    }
    check_lines(&nginx, scenario, way, scenario.warm_up + 6 * REQUESTS);
    let [once, twice] = least;
    let per = |name: &String| {
        let of = |calls: &BTreeMap<String, u64>| calls.get(name).copied().unwrap_or(0) as f64;
        (of(&twice) - of(&once)) / REQUESTS as f64
    };
    let per_request = twice.keys().map(|name| (name.clone(), per(name)));
    Syscalls {
        nginx: upstreams.nginx().as_str().to_owned(),
        scenario: scenario.name.to_owned(),
        way: way.name().to_owned(),
        per_request: per_request.filter(|(_, calls)| *calls != 0.0).collect(),
    }
}

fn sum(calls: &BTreeMap<String, u64>) -> u64 {
    calls.values().sum()
}

/// A running strace.
struct Trace(Child);

/// Where it writes.
const OUTPUT: &str = "strace.txt";

impl Trace {
    /// Attaches to the worker; returns when it has.
    fn start(nginx: &Nginx) -> Self {
        let [worker] = nginx.worker_pids()[..] else { panic!("one worker") };
        let strace = Command::new("strace")
            .args(["-c", "-q", "-U", "name,calls", "-o"])
            .arg(nginx.path(OUTPUT))
            .args(["-p", &worker.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("strace: {e}"));
        eventually("strace", Duration::from_secs(10), || {
            let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
            (line.trim() != "0").then_some(())
        });
        Self(strace)
    }

    /// What it has counted.
    fn end(mut self, nginx: &Nginx) -> String {
        // It has not been waited for, so the number is still its own.
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::INT).expect("one's own child can be signalled");
        self.0.wait().expect("strace can be waited for");
        nginx.read(OUTPUT)
    }
}

/// Name and number of calls in each line, then a line with the total.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, calls) = (fields.next()?, fields.next()?.parse().ok()?);
        Some((name.to_owned(), calls))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_summary() {
        let text = "syscall              calls\n---------------- ---------\n\
                    recvfrom               400\nwrite                  200\n\
                    ---------------- ---------\ntotal                  600\n";
        let calls = parse(text);
        assert_eq!(calls.len(), 2);
        assert_eq!((calls["recvfrom"], calls["write"]), (400, 200));
    }
}
