//! Instructions, counted by valgrind: the same number on every machine, whatever else it does.

mod parse;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use t::{Conf, Nginx, eventually, poll};

use crate::results::Instructions;
use crate::scenario::Scenario;
use crate::site::{Asker, Upstreams, check_lines};
use crate::way::Way;

pub(crate) use parse::{parse, total};

/// What gives memory out.
const ALLOCATORS: &[&str] =
    &["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// What waits for others: nginx's locks in shared memory, and those of threads.
const LOCKS: &[&str] = &[
    "ngx_shmtx_lock",
    "ngx_shmtx_trylock",
    "ngx_rwlock_rlock",
    "ngx_rwlock_wlock",
    "ngx_spinlock",
    "pthread_mutex_lock",
];

/// How often nginx is started for a count: again, to see if it comes out the same.
const STARTS: usize = 2;

/// Other clients, in the middle of a request. What malloc does for nginx's pools depends on
/// which pieces of memory are free, and next to what, by some hundred instructions a request: these
/// clients take what was left over from reading the configuration, and separate what is freed
/// after a request from the rest.
const OTHERS: usize = 100;

/// N. Where garbage is collected at times, that is a part of every request's cost: N is large
/// enough for it to be in all counts alike.
fn requests(way: Way) -> usize {
    if way.collects_garbage() { 1_000 } else { 50 }
}

/// How often N and 2N requests are counted at each start. Once a second nginx renews its times,
/// and the module asks the kernel about a peer that fails: of some rounds, one is between.
fn rounds(way: Way) -> usize {
    if way.collects_garbage() { 1 } else { 5 }
}

/// An nginx under callgrind.
pub(crate) struct Callgrind {
    nginx: Nginx,
    worker: u32,
    dumps: usize,
}

impl Callgrind {
    /// Starts it, with nothing counted yet.
    pub(crate) fn start(conf: Conf) -> Self {
        let conf = conf.under(&[
            // It moves the stack, and nginx copies it to the heap.
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
        self.say(&["instrumentation", "on"]);
    }

    /// Waits until the worker does.
    fn idle(&self) {
        eventually("a worker that waits", Duration::from_secs(10), || {
            sleep(Duration::from_millis(10));
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.worker)).expect("a worker");
            stat.contains(") S ").then_some(())
        });
    }

    /// What has happened since the last call, as text.
    pub(crate) fn dump(&mut self) -> String {
        // The client has its answer before the request is logged.
        self.idle();
        self.say(&["dump"]);
        self.dumps += 1;
        let path = self.nginx.path(&format!("callgrind.out.{}.{}", self.worker, self.dumps));
        let ready = || fs::read_to_string(&path).ok().filter(|text| text.contains("\ntotals: "));
        poll(Duration::from_secs(10), ready).expect("a dump")
    }

    fn say(&self, words: &[&str]) {
        let prefix = format!("--vgdb-prefix={}", self.nginx.path("vgdb-pipe").display());
        let out = Command::new("vgdb")
            .args([&prefix, &format!("--pid={}", self.worker)])
            // A worker has its end of the pipe some time after its start. One that waits for a
            // request does not look at it by itself, and need not be waited for.
            .args(["--wait=30", "--max-invoke-ms=1"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("vgdb: {e}"));
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// The cheapest of several dumps.
#[derive(Default)]
struct Least(Option<(u64, String)>);

impl Least {
    fn count(&mut self, text: String) {
        self.add(Least(Some((total(&text), text))));
    }

    fn add(&mut self, other: Least) {
        if self.0.is_none() || (other.0.is_some() && other.total() < self.total()) {
            *self = other;
        }
    }

    fn total(&self) -> u64 {
        self.0.as_ref().map_or(0, |(total, _)| *total)
    }

    fn text(&self) -> &str {
        self.0.as_ref().map_or("", |(_, text)| text)
    }
}

/// Counts N and 2N requests, some times each. The cheapest of each are those without work that
/// is not the requests': where N had such work and 2N had not, their difference would be too small.
fn count(
    callgrind: &mut Callgrind,
    asker: &mut Asker,
    requests: usize,
    rounds: usize,
) -> [Least; 2] {
    let mut least = [Least::default(), Least::default()];
    for _ in 0..rounds {
        for (n, least) in [requests, 2 * requests].into_iter().zip(&mut least) {
            asker.ask(n);
            least.count(callgrind.dump());
        }
    }
    least
}

/// Counts what a request of a scenario takes, and keeps the dumps in `keep`.
pub(crate) fn measure(
    upstreams: &Upstreams,
    scenario: &Scenario,
    way: Way,
    keep: &Path,
) -> Instructions {
    let (requests, rounds) = (requests(way), rounds(way));
    // Lua compiles what it has run some times.
    let warm_up = scenario.warm_up.max(requests);
    let mut starts = Vec::new();
    let mut best = [Least::default(), Least::default()];
    for _ in 0..STARTS {
        let mut callgrind = Callgrind::start(upstreams.conf(scenario, way));
        let address = callgrind.nginx().addr(0);
        let begun = || {
            let mut asker = Asker::connect(&address, "/", scenario.status);
            asker.begin();
            asker
        };
        let _before: Vec<Asker> = (0..OTHERS).map(|_| begun()).collect();
        callgrind.idle();
        let mut asker = begun();
        callgrind.idle();
        let _after: Vec<Asker> = (0..OTHERS).map(|_| begun()).collect();
        callgrind.idle();
        asker.end();
        // Most of the warming up is done before anything is slowed down by counting.
        asker.ask(warm_up);
        callgrind.begin();
        asker.ask(20);
        callgrind.dump();
        let least = count(&mut callgrind, &mut asker, requests, rounds);
        let all = 1 + warm_up + 20 + rounds * 3 * requests;
        check_lines(callgrind.nginx(), scenario, way, all);
        starts.push(per_request(least.each_ref().map(Least::total), requests));
        for (best, least) in best.iter_mut().zip(least) {
            best.add(least);
        }
    }
    let figure = per_request(best.each_ref().map(Least::total), requests);
    for (least, n) in best.iter().zip([requests, 2 * requests]) {
        let name = dump_name(upstreams.nginx().as_str(), scenario.name, way.name(), n);
        fs::write(keep.join(name), least.text()).expect("a file in the output directory");
    }
    let profiles = best.map(|least| parse(least.text()));
    let calls = |names| per_request(profiles.each_ref().map(|p| p.calls(names)), requests);
    Instructions {
        nginx: upstreams.nginx().as_str().to_owned(),
        scenario: scenario.name.to_owned(),
        way: way.name().to_owned(),
        requests,
        per_request: figure,
        starts,
        allocations: calls(ALLOCATORS),
        locks: calls(LOCKS),
    }
}

/// The file with the dump of so many requests.
pub(crate) fn dump_name(nginx: &str, scenario: &str, way: &str, requests: usize) -> String {
    format!("{nginx}.{scenario}.{way}.{requests}.callgrind")
}

/// Counts what one answer of the first server takes, which is asked for so many times before.
pub(crate) fn answer(conf: Conf, asker: impl FnOnce(&Nginx) -> Asker, requests: usize) -> f64 {
    let mut callgrind = Callgrind::start(conf);
    let mut asker = asker(callgrind.nginx());
    asker.ask(requests);
    callgrind.begin();
    asker.ask(1);
    callgrind.dump();
    let least = count(&mut callgrind, &mut asker, requests, 3);
    per_request(least.each_ref().map(Least::total), requests)
}

/// From what N and 2N requests took: beginning and ending are in both.
fn per_request([once, twice]: [u64; 2], requests: usize) -> f64 {
    (twice as f64 - once as f64) / requests as f64
}
