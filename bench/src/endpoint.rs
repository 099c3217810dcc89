//! The status location, and the zone behind it.

use std::time::Instant;

use serde_json::Value;
use t::{Conf, Nginx};

use crate::callgrind;
use crate::results::{Scrape, Zone, median};
use crate::scenario::{MANY_PEERS, Peers, SCENARIOS};
use crate::site::{Asker, Upstreams};
use crate::way::Way;

/// Groups of so many peers.
const PEERS: [usize; 3] = [10, 100, MANY_PEERS];

/// Formats, and how they are asked for: with as many records for any number of peers.
const FORMATS: [(&str, &str); 2] =
    [("json", "/status?format=json&limit=100"), ("prometheus", "/status?format=prometheus")];

/// Places for all of them, and not many for records: an answer looks at every one.
const ZONE: &str = "1800k peers=1100";

/// N, as for requests. An answer is much work.
const ANSWERS: usize = 3;

/// How many answers are timed.
const TIMED: usize = 30;

/// Measures answers of each format and size.
pub(crate) fn scrapes(upstreams: &Upstreams) -> Vec<Scrape> {
    let mut scrapes = Vec::new();
    for peers in PEERS {
        let conf = || conf(upstreams, peers, ZONE);
        for (format, path) in FORMATS {
            let nginx = Nginx::start(conf());
            let mut asker = fill(&nginx, path);
            let bytes = asker.ask(3).len();
            let mut timed = || {
                let start = Instant::now();
                asker.ask(1);
                start.elapsed().as_secs_f64() * 1_000.0
            };
            let ms = median((0..TIMED).map(|_| timed()));
            drop(nginx);
            let asker = |nginx: &Nginx| fill(nginx, path);
            scrapes.push(Scrape {
                nginx: upstreams.nginx().as_str().to_owned(),
                format: format.to_owned(),
                peers,
                instructions: callgrind::answer(conf(), asker, ANSWERS),
                bytes,
                ms,
            });
        }
    }
    scrapes
}

/// What zones say they have in use, by the places for peers.
pub(crate) fn zones(upstreams: &Upstreams) -> Vec<Zone> {
    let zone = |places: usize| {
        let nginx = Nginx::start(conf(upstreams, PEERS[0], &format!("8m peers={places}")));
        let body = nginx.get("/status?format=json").body;
        let status: Value = serde_json::from_slice(&body).expect("a status document");
        Zone {
            nginx: upstreams.nginx().as_str().to_owned(),
            places,
            used: status["zone"]["used"].as_u64().expect("a number"),
        }
    };
    [MANY_PEERS, 2 * MANY_PEERS].map(zone).into()
}

/// Has every peer fail at least once, two by each request, and makes more than enough records.
fn fill(nginx: &Nginx, path: &'static str) -> Asker {
    Asker::connect(&nginx.addr(0), "/", 502).ask(MANY_PEERS);
    Asker::connect(&nginx.addr(0), path, 200)
}

fn conf(upstreams: &Upstreams, peers: usize, zone: &str) -> Conf {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.peers == Peers::Dead(MANY_PEERS));
    let mut scenario = scenario.cloned().expect("a scenario with many peers");
    scenario.peers = Peers::Dead(peers);
    let mut conf =
        upstreams.conf(&scenario, Way::Module).http(format!("upstream_diag_zone {zone};"));
    conf.servers[0].push_str("location = /status { upstream_diag_status; }\n");
    conf
}
