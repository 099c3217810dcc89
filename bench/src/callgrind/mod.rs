//! Instructions, counted by valgrind: the same number on every machine, whatever else it does.

mod parse;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use t::{Conf, Nginx, poll};

use crate::scenario::Scenario;
use crate::site::{Asker, is_root};

pub(crate) use parse::{Function, Profile, parse};

/// What gives memory out.
pub(crate) const ALLOCATORS: &[&str] =
    &["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// Requests before anything is counted: every buffer, connection and peer has been used by then.
const WARM_UP: usize = 300;

/// What [`count`] does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// N: N and 2N requests are counted.
    pub(crate) requests: usize,
    /// How often.
    pub(crate) rounds: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Count {
    /// Instructions of one request, by each round.
    pub(crate) rounds: Vec<f64>,
    /// The least of each number of requests, by which the once-a-second work is left out.
    pub(crate) per_request: f64,
    /// The N and 2N requests of the round that cost the least.
    pub(crate) profiles: [Profile; 2],
}

/// An nginx under callgrind.
pub(crate) struct Callgrind {
    nginx: Nginx,
    worker: u32,
    dumps: usize,
}

impl Callgrind {
    /// Starts it, with nothing counted yet.
    pub(crate) fn start(conf: Conf, file: Option<(&str, String)>) -> Self {
        // Its parts are made by the worker, in the directory of root.
        let conf = if is_root() { conf.user("root") } else { conf };
        let conf = conf.under(&[
            "env",
            "-i",
            "PATH=/usr/bin:/bin",
            "valgrind",
            "--tool=callgrind",
            // Without this there is no way to talk to a forked worker.
            "--trace-children=yes",
            "--vgdb-prefix={prefix}/vgdb-pipe",
            "--instr-atstart=no",
            "--callgrind-out-file={prefix}/callgrind.out.%p",
        ]);
        assert!(file.is_none(), "to do");
        let nginx = Nginx::start(conf);
        let [worker] = nginx.child_pids()[..] else { panic!("one worker") };
        Self { nginx, worker, dumps: 0 }
    }

    /// The nginx.
    pub(crate) fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// Begins to count.
    pub(crate) fn begin(&self) {
        self.say("instrumentation on");
    }

    /// What has happened since the last call.
    pub(crate) fn dump(&mut self) -> (Profile, String) {
        self.say("dump");
        self.dumps += 1;
        let path = self.nginx.path(&format!("callgrind.out.{}.{}", self.worker, self.dumps));
        let ready = || fs::read_to_string(&path).ok().filter(|text| text.contains("\ntotals: "));
        let text = poll(Duration::from_secs(10), ready).unwrap_or_else(|| panic!("{path:?}"));
        (parse(&text), text)
    }

    fn say(&self, what: &str) {
        let prefix = format!("--vgdb-prefix={}", self.nginx.path("vgdb-pipe").display());
        let out = Command::new("vgdb")
            .args([&prefix, &format!("--pid={}", self.worker), "--wait=30"])
            .args(what.split(' '))
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("vgdb: {e}"));
        assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// Counts the instructions of requests, and keeps the dumps of the cheapest round in `keep`.
pub(crate) fn count(
    callgrind: &mut Callgrind,
    scenario: &Scenario,
    plan: Plan,
    keep: &Path,
) -> Count {
    let mut asker = Asker::connect(callgrind.nginx(), scenario);
    asker.ask(20);
    callgrind.begin();
    asker.ask(WARM_UP);
    callgrind.dump();
    let mut counted = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds {
        for (times, counted) in counted.iter_mut().enumerate() {
            asker.ask(plan.requests * (times + 1));
            counted.push(callgrind.dump());
        }
    }
    let per = |[once, twice]: [u64; 2]| (twice as f64 - once as f64) / plan.requests as f64;
    let rounds = counted[0].iter().zip(&counted[1]).map(|(a, b)| per([a.0.total, b.0.total]));
    let rounds = rounds.collect();
    let least = counted.map(|counted| {
        counted.into_iter().min_by_key(|(profile, _)| profile.total).expect("at least one round")
    });
    for ((_, text), n) in least.iter().zip(["n", "2n"]) {
        fs::write(keep.with_extension(format!("callgrind.{n}")), text)
            .expect("a file in the output directory");
    }
    let profiles = least.map(|(profile, _)| profile);
    let per_request = per([profiles[0].total, profiles[1].total]);
    Count { rounds, per_request, profiles }
}
