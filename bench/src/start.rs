//! Starting and reloading an nginx that has many locations.

use std::path::Path;
use std::time::Instant;

use t::{Conf, Nginx};

use crate::callgrind;
use crate::load::resident;
use crate::results::Start;
use crate::scenario::{MANY_LOCATIONS, Scenario};
use crate::site::Upstreams;
use crate::way::Way;

/// How often each way is started and reloaded, in turns.
const TURNS: usize = 5;

/// Measures the ways.
pub(crate) fn measure(
    upstreams: &Upstreams,
    scenario: &Scenario,
    ways: &[Way],
    keep: &Path,
) -> Vec<Start> {
    assert_eq!(scenario.locations, MANY_LOCATIONS);
    let conf = |way| upstreams.conf(scenario, way);
    let start = |&way: &Way| Start {
        nginx: upstreams.nginx().as_str().to_owned(),
        way: way.name().to_owned(),
        locations: scenario.locations,
        instructions: check(conf(way), keep),
        start_ms: Vec::new(),
        reload_ms: Vec::new(),
        own_kb: 0,
    };
    let mut starts: Vec<Start> = ways.iter().map(start).collect();
    for _ in 0..TURNS {
        for (&way, start) in ways.iter().zip(&mut starts) {
            let conf = conf(way);
            let begin = Instant::now();
            let nginx = Nginx::start(conf);
            start.start_ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
            start.own_kb = resident(&nginx, 0).own_kb;
            let begin = Instant::now();
            let old = nginx.reload();
            start.reload_ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
            nginx.wait_workers_gone(&old);
        }
    }
    starts
}

/// The instructions of `nginx -t`, which reads the configuration and ends.
fn check(conf: Conf, keep: &Path) -> u64 {
    let file = keep.join("nginx-t");
    let out = format!("--callgrind-out-file={}", file.display());
    let (good, said) = Nginx::check(&conf.under(&["valgrind", "--tool=callgrind", &out]));
    assert!(good, "nginx -t: {said}");
    callgrind::total(&std::fs::read_to_string(&file).expect("callgrind's file"))
}
