//! Requests in a second, and memory under many, with wrk.

use std::fs;
use std::process::{Command, Stdio};

use t::Nginx;

use crate::results::{Memory, Resident, Throughput};
use crate::scenario::Scenario;
use crate::site::Upstreams;
use crate::way::Way;

/// How often each way takes its turn, and for how many seconds.
const TURNS: usize = 7;
const SECONDS: u64 = 1;

/// Connections of the client.
const CONNECTIONS: u64 = 16;

/// When to look at the memory: after so many failures, about.
const FAILURES: [u64; 3] = [1_000, 20_000, 100_000];

/// Measures the ways in turns, so that what else the machine does meets all of them alike.
pub(crate) fn throughput(
    upstreams: &Upstreams,
    scenario: &Scenario,
    ways: &[Way],
) -> Vec<Throughput> {
    let start = |&way: &Way| Nginx::start(upstreams.conf(scenario, way));
    let nginxes: Vec<Nginx> = ways.iter().map(start).collect();
    let mut runs = vec![Vec::new(); ways.len()];
    for turn in 0..=TURNS {
        for (nginx, runs) in nginxes.iter().zip(&mut runs) {
            let load = wrk(nginx, scenario.status);
            // The first is to warm up.
            if turn > 0 {
                runs.push(load.per_second);
            }
        }
    }
    let result = |(way, runs): (&Way, _)| Throughput {
        nginx: upstreams.nginx().as_str().to_owned(),
        scenario: scenario.name.to_owned(),
        way: way.name().to_owned(),
        runs,
    };
    ways.iter().zip(runs).map(result).collect()
}

/// Looks at the worker's memory while requests fail.
pub(crate) fn memory(upstreams: &Upstreams, scenario: &Scenario, way: Way) -> Memory {
    let nginx = Nginx::start(upstreams.conf(scenario, way));
    let (mut failures, mut seen) = (0, Vec::new());
    for wanted in FAILURES {
        while failures < wanted {
            failures += wrk(&nginx, scenario.status).requests;
        }
        seen.push(resident(&nginx, failures));
    }
    let name = upstreams.nginx().as_str().to_owned();
    Memory { nginx: name, way: way.name().to_owned(), seen }
}

/// What the worker has now.
pub(crate) fn resident(nginx: &Nginx, failures: u64) -> Resident {
    let [worker] = nginx.worker_pids()[..] else { panic!("one worker") };
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("a process of ours");
    let kb = |name| field(&status, name).unwrap_or_else(|| panic!("{name} in {status}"));
    Resident { failures, kb: kb("VmRSS:"), own_kb: kb("RssAnon:") }
}

/// The first number after `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

/// What came of a second of requests.
#[derive(Debug, PartialEq)]
struct Load {
    requests: u64,
    errors: u64,
    per_second: f64,
}

fn wrk(nginx: &Nginx, status: u16) -> Load {
    let out = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{SECONDS}")])
        .arg(format!("http://127.0.0.1:{}/", nginx.port()))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("wrk: {e}"));
    let text = String::from_utf8_lossy(&out.stdout);
    let load = parse(&text).unwrap_or_else(|| panic!("wrk said {text:?}"));
    let errors = if status == 200 { 0 } else { load.requests };
    assert_eq!(load.errors, errors, "answers that are no success: {text}");
    assert!(!text.contains("Socket errors"), "{text}");
    load
}

fn parse(text: &str) -> Option<Load> {
    let summary = text.lines().find(|line| line.contains(" requests in "))?;
    Some(Load {
        requests: summary.split_whitespace().next()?.parse().ok()?,
        errors: field(text, "Non-2xx or 3xx responses:").unwrap_or(0),
        per_second: text.split_once("Requests/sec:")?.1.split_whitespace().next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency     1.02ms    1.31ms  12.00ms   93.10%\n  \
                    24690 requests in 1.10s, 5.00MB read\n  \
                    Non-2xx or 3xx responses: 24690\n\
                    Requests/sec:  22445.45\nTransfer/sec:      4.55MB\n";
        let load = Load { requests: 24_690, errors: 24_690, per_second: 22_445.45 };
        assert_eq!(parse(text), Some(load));
        assert_eq!(parse(&text.replace("Non-2xx", "")).unwrap().errors, 0);
        assert_eq!(parse("unable to connect"), None);
    }

    #[test]
    fn reads_a_status() {
        let text = "Name:\tnginx\nVmRSS:\t    5032 kB\nRssAnon:\t    1200 kB\n";
        assert_eq!(field(text, "RssAnon:"), Some(1200));
        assert_eq!(field(text, "RssShmem:"), None);
    }
}
