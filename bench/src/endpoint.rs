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

/// Formats, and how they are asked for.
const FORMATS: [(&str, &str); 2] =
    [("json", "/status?format=json"), ("prometheus", "/status?format=prometheus")];

/// Places for records: all are taken when the first answer is made, in groups of any size.
const RECORDS: usize = 100;

/// N, as for requests. An answer is much work.
const ANSWERS: usize = 3;

/// How many answers are timed.
const TIMED: usize = 30;

/// Measures answers of each format and size.
pub(crate) fn scrapes(upstreams: &Upstreams) -> Vec<Scrape> {
    let mut scrapes = Vec::new();
    for peers in PEERS {
        for (format, path) in FORMATS {
            let nginx = Nginx::start(conf(upstreams, peers));
            let mut asker = fill(&nginx, peers, path);
            let bytes = asker.ask(3).len();
            let mut timed = || {
                let start = Instant::now();
                asker.ask(1);
                start.elapsed().as_secs_f64() * 1_000.0
            };
            let ms = median((0..TIMED).map(|_| timed()));
            drop(nginx);
            let asker = |nginx: &Nginx| fill(nginx, peers, path);
            scrapes.push(Scrape {
                nginx: upstreams.nginx().as_str().to_owned(),
                format: format.to_owned(),
                peers,
                instructions: callgrind::answer(conf(upstreams, peers), asker, ANSWERS),
                bytes,
                ms,
            });
        }
    }
    scrapes
}

/// What zones of the same size say they have in use.
pub(crate) fn zones(upstreams: &Upstreams) -> Vec<Zone> {
    let zone = |peers| {
        let nginx = Nginx::start(conf(upstreams, peers));
        let body = nginx.get("/status?format=json").body;
        let status: Value = serde_json::from_slice(&body).expect("a status document");
        let count = |name: &str| status["zone"][name].as_u64().expect("a number");
        Zone {
            nginx: upstreams.nginx().as_str().to_owned(),
            peers: status["zone"]["peers"]["used"].as_u64().expect("a number"),
            used: count("used"),
        }
    };
    PEERS.map(zone).into()
}

/// Has every peer fail at least once.
fn fill(nginx: &Nginx, peers: usize, path: &'static str) -> Asker {
    // Two peers a request.
    Asker::connect(nginx, "/", 502).ask(RECORDS.max(peers));
    Asker::connect(nginx, path, 200)
}

fn conf(upstreams: &Upstreams, peers: usize) -> Conf {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.peers == Peers::Dead(MANY_PEERS));
    let mut scenario = scenario.cloned().expect("a scenario with many peers");
    scenario.peers = Peers::Dead(peers);
    let mut conf = upstreams
        .conf(&scenario, Way::Module)
        .http(format!("upstream_diag_zone 8m peers={} events={RECORDS};", 2 * MANY_PEERS));
    conf.servers[0].push_str("location = /status { upstream_diag_status; }\n");
    conf
}
