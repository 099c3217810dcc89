//! What many reloads cost.

use std::fs;

use serde_json::json;
use t::{Nginx, diag};

use super::{counts, groups};

/// What a process has: resident memory in kB, open files and mappings.
fn has(pid: u32) -> (u64, usize, usize) {
    let proc = format!("/proc/{pid}");
    let status = fs::read_to_string(format!("{proc}/status")).expect("a process");
    // What it has of its own: pages of the zone count as soon as they are touched.
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
    let kb = line.trim().trim_end_matches(" kB").parse().expect("a number");
    let maps = fs::read_to_string(format!("{proc}/maps")).expect("mappings");
    let files = fs::read_dir(format!("{proc}/fd")).expect("files").count();
    (kb, files, maps.lines().count())
}

/// Guards against memory, descriptors and shared memory that a reload leaves behind, and against
/// counts that wear off.
#[test]
fn two_hundred_reloads() {
    let dead: Vec<_> = (0..20).map(|_| t::refused_port()).collect();
    let addrs: Vec<String> = dead.iter().map(t::RefusedPort::addr).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let conf = |n: usize| {
        // Some peers come and go.
        let some = &addrs[..10 + n % 10];
        groups(&[("u", some), ("v", &addrs[..1])])
            .http("upstream_diag_log syslog:server=127.0.0.1:9 rate=1r/s if=$arg_never;")
            .http("error_log {prefix}/more.log; upstream_diag_zone 1m;")
    };
    let nginx = Nginx::start(conf(0));
    assert_eq!(nginx.get("/v").status, 502);
    let mut before = None;
    for n in 1..=250 {
        let old = nginx.reload_with(conf(n));
        nginx.wait_workers_gone(&old);
        if n == 50 {
            before = Some(has(nginx.pid()));
        }
    }
    let (before, after) = (before.expect("a look"), has(nginx.pid()));
    assert!(after.0 <= before.0 + 300, "{before:?}, then {after:?}");
    assert_eq!(after.1, before.1, "open files");
    assert!(after.2 <= before.2 + 2, "{before:?}, then {after:?}");
    assert_eq!(nginx.all_worker_pids().len(), 1);
    let status = diag::status(&nginx);
    assert_eq!(counts(&status, "v"), [(addrs[0].to_owned(), [0, 1, 0])]);
    assert_eq!(status["zone"]["peers"]["used"], json!(20));
    assert_eq!(status["recent"].as_array().map(Vec::len), Some(1));
    nginx.stop();
}
