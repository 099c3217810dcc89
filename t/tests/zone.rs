//! What the zone keeps when configurations, workers and binaries come and go, and when it is full.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::{Value, json};
use t::{Conf, Nginx, Upstream, diag, script};

#[path = "zone/growth.rs"]
mod growth;
#[path = "zone/killed.rs"]
mod killed;
#[path = "zone/reload.rs"]
mod reload;
#[path = "zone/upgrade.rs"]
mod upgrade;

const SOON: Duration = Duration::from_secs(5);

/// What the master says when it begins with an empty zone where there was another.
const EMPTY: &str = "upstream_diag: the sizes of the zone have changed, it starts empty";

/// A server for each of these groups, under its name.
fn groups(groups: &[(&str, &[&str])]) -> Conf {
    let (mut locations, mut blocks) = (String::new(), String::new());
    for (name, servers) in groups {
        let servers: String =
            servers.iter().map(|server| format!("server {server} max_fails=0;")).collect();
        locations.push_str(&format!("location /{name} {{ proxy_pass http://{name}; }}"));
        blocks.push_str(&format!("upstream {name} {{ {servers} }}"));
    }
    diag::conf(locations).http(blocks)
}

/// The counts of every peer of a group, in its order.
fn counts(status: &Value, upstream: &str) -> Vec<(String, [u64; 3])> {
    let peers = status["upstreams"][upstream]["peers"].as_array().cloned().unwrap_or_default();
    let name = |peer: &Value| peer["peer"].as_str().unwrap_or_default().to_owned();
    peers.iter().map(|peer| (name(peer), diag::counts(peer))).collect()
}

/// A configuration with the least zone for these parameters.
fn with_least_zone(conf: &Conf, parameters: &str) -> Conf {
    let with = |size: &str| conf.clone().http(format!("upstream_diag_zone {size} {parameters};"));
    let (_, said) = Nginx::check(&with("1k"));
    let least = said.split("at least ").nth(1).and_then(|rest| rest.split(' ').next());
    with(least.unwrap_or_else(|| panic!("no size: {said}")))
}

/// Guards against a record that does not fit taking the zone, or the log's line, with it.
#[test]
fn a_record_that_is_larger_than_the_ring() {
    let dead: Vec<_> = (0..40).map(|_| t::refused_port()).collect();
    let addrs: Vec<String> = dead.iter().map(t::RefusedPort::addr).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let conf = groups(&[("many", &addrs), ("one", &addrs[..1])]);
    let nginx = Nginx::start(with_least_zone(&conf, "peers=41 events=1"));
    assert_eq!((nginx.get("/one").status, nginx.get("/many").status), (502, 502));
    let lines = nginx.wait_json_lines("diag.json", 2);
    assert_eq!(lines[1]["attempts"].as_array().map(Vec::len), Some(40));
    let status = diag::status(&nginx);
    let room = status["zone"]["records"].as_u64().expect("bytes");
    assert!(room < lines[1].to_string().len() as u64, "{room}");
    let wanted = json!({"dropped": {"records": 1, "lines": 0, "peers": 0},
                        "totals": {"failed": 2, "requests": 2}});
    assert_eq!(diag::differences(&wanted, &status), [""; 0]);
    let recent = status["recent"].as_array().expect("records");
    assert_eq!((recent.len(), &recent[0]["uri"]), (1, &json!("/one")));
    // The next one that fits is kept.
    assert_eq!(nginx.get("/one/again").status, 502);
    assert_eq!(diag::status(&nginx)["recent"][0]["uri"], "/one/again");
    nginx.stop();
}

/// Guards against less room for records than was asked for, and against older ones that go before
/// they have to.
#[test]
fn as_many_records_as_asked_for() {
    let dead = t::refused_port();
    let addr = dead.addr();
    let conf = groups(&[("u", &[addr.as_str()])]);
    for (events, more) in [(20, 10), (200, 100)] {
        let conf = with_least_zone(&conf, &format!("peers=20 events={events}"));
        let nginx = Nginx::start(conf.http("keepalive_requests 10000;"));
        let mut client = nginx.connect();
        let mut asked = 0;
        let mut fail = |n: usize| {
            for _ in 0..n {
                assert_eq!(client.get(&format!("/u/{asked}")).status, 502);
                asked += 1;
            }
            let recent = diag::status(&nginx)["recent"].as_array().cloned().expect("records");
            for (record, n) in recent.iter().zip((0..asked).rev()) {
                assert_eq!(record["uri"], format!("/u/{n}"));
            }
            recent.len()
        };
        assert_eq!(fail(events), events);
        // These are smaller than what is set aside for each.
        let most = fail(events + more);
        assert!(most >= events && most <= 3 * events, "{most} of {events}");
        nginx.stop();
    }
}

/// Guards against an nginx without a master, or without workers, having no zone, or one that it
/// does not begin.
#[test]
fn one_process_for_everything() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let nginx = Nginx::start(
        groups(&[("good", &[good.addr().as_str()]), ("dead", &[dead.addr().as_str()])])
            .main("master_process off;")
            .workers(0),
    );
    assert_eq!((nginx.get("/good").status, nginx.get("/dead").status), (200, 502));
    diag::seen(&nginx, 0).expect("connection_refused", &json!({"pid": nginx.pid()}));
    let check = |ok: u64, failed: u64| {
        let status = diag::status(&nginx);
        assert_eq!(counts(&status, "good"), [(good.addr(), [ok, 0, 0])]);
        assert_eq!(counts(&status, "dead"), [(dead.addr(), [0, failed, 0])]);
        assert_eq!(status["worker"]["pid"], nginx.pid());
    };
    check(1, 1);
    assert_eq!((nginx.get("/good").status, nginx.get("/dead").status), (200, 502));
    check(2, 2);
    nginx.stop();
}
