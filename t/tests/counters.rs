//! What is counted for each peer: every attempt once, with the peer it was made on.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::{Value, json};
use t::{Conf, Gate, Nginx, Upstream, diag, script};

#[path = "counters/attempts.rs"]
mod attempts;
#[path = "counters/histograms.rs"]
mod histograms;
#[path = "counters/hooks.rs"]
mod hooks;
#[path = "counters/runtime.rs"]
mod runtime;
#[path = "counters/states.rs"]
mod states;
#[path = "counters/subrequests.rs"]
mod subrequests;
#[path = "counters/taken_out.rs"]
mod taken_out;
#[path = "counters/workers.rs"]
mod workers;

const SOON: Duration = Duration::from_secs(5);

/// A proxy in front of a group `u` of these servers.
fn group(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {servers} }}"))
}

/// Good, failed and aborted attempts on a peer.
fn counts(nginx: &Nginx, upstream: &str, peer: &str) -> [u64; 3] {
    diag::counts(diag::peer(&diag::status(nginx), upstream, peer))
}

/// Waits until the attempts on a peer are so many.
fn wait_counts(nginx: &Nginx, upstream: &str, peer: &str, wanted: [u64; 3]) -> Value {
    let mut last = [0; 3];
    let found = t::poll(SOON, || {
        let status = diag::status(nginx);
        last = diag::counts(diag::peer(&status, upstream, peer));
        (last == wanted).then_some(status)
    });
    found.unwrap_or_else(|| panic!("{peer} in {upstream}: {last:?}, wanted {wanted:?}"))
}

/// The names of the peers of an upstream, in the order of the document.
fn names<'a>(status: &'a Value, upstream: &str) -> Vec<&'a str> {
    let peers = status["upstreams"][upstream]["peers"].as_array();
    let peers = peers.unwrap_or_else(|| panic!("no {upstream:?}: {:#}", status["upstreams"]));
    peers.iter().map(|peer| peer["peer"].as_str().unwrap_or_default()).collect()
}

/// Guards against a peer that is not there until its first failure, when nobody can tell any more
/// whether its counter began with zero.
#[test]
fn every_configured_peer_is_there_from_the_start() {
    for zone in ["", "zone ZONE 64k;"] {
        let groups: String = [
            ("weighted", "", "server 127.0.0.1:1 weight=3; server 127.0.0.1:2;"),
            ("spare", "", "server 127.0.0.1:1; server 127.0.0.1:2 backup;"),
            ("parted", "", "server 127.0.0.1:1; server 127.0.0.1:2 down;"),
            ("sockets", "", "server unix:/nowhere/a.sock; server unix:/nowhere/b.sock;"),
            ("six", "", "server [::1]:1; server [::1]:2;"),
            ("least", "least_conn;", "server 127.0.0.1:1;"),
            ("hashed", "hash $uri consistent;", "server 127.0.0.1:1;"),
            ("iphash", "ip_hash;", "server 127.0.0.1:1;"),
            ("dice", "random two;", "server 127.0.0.1:1;"),
            ("kept", "", "server 127.0.0.1:1; keepalive 4;"),
            ("unused", "", "server 127.0.0.1:1;"),
        ]
        .iter()
        .map(|(name, balancer, servers)| {
            let zone = zone.replace("ZONE", name);
            format!("upstream {name} {{ {zone} {balancer} {servers} }}\n")
        })
        .collect();
        let nginx = Nginx::start(
            diag::conf(
                "location /a { proxy_pass http://127.0.0.1:3; }
                 location /b { proxy_pass http://unix:/nowhere/c.sock:/uri; }
                 location /c { proxy_pass http://[::1]:3; }
                 location /d { fastcgi_pass 127.0.0.1:4; }
                 location /e { uwsgi_pass 127.0.0.1:5; }
                 location /f { scgi_pass 127.0.0.1:6; }
                 location /g { grpc_pass 127.0.0.1:7; }
                 location /h { set $memcached_key k; memcached_pass 127.0.0.1:8; }
                 location /i { proxy_pass http://spare; }
                 location /j { proxy_pass http://127.0.0.1; }",
            )
            .http(groups),
        );
        let document = diag::status(&nginx);
        for (upstream, peers) in [
            ("weighted", &["127.0.0.1:1", "127.0.0.1:2"][..]),
            ("spare", &["127.0.0.1:1", "127.0.0.1:2"]),
            ("parted", &["127.0.0.1:1", "127.0.0.1:2"]),
            ("sockets", &["unix:/nowhere/a.sock", "unix:/nowhere/b.sock"]),
            ("six", &["[::1]:1", "[::1]:2"]),
            ("least", &["127.0.0.1:1"]),
            ("hashed", &["127.0.0.1:1"]),
            ("iphash", &["127.0.0.1:1"]),
            ("dice", &["127.0.0.1:1"]),
            ("kept", &["127.0.0.1:1"]),
            ("unused", &["127.0.0.1:1"]),
            ("127.0.0.1:3", &["127.0.0.1:3"]),
            // nginx's own name of it.
            ("/nowhere/c.sock", &["unix:/nowhere/c.sock"]),
            ("[::1]:3", &["[::1]:3"]),
            ("127.0.0.1:4", &["127.0.0.1:4"]),
            ("127.0.0.1:5", &["127.0.0.1:5"]),
            ("127.0.0.1:6", &["127.0.0.1:6"]),
            ("127.0.0.1:7", &["127.0.0.1:7"]),
            ("127.0.0.1:8", &["127.0.0.1:8"]),
            ("127.0.0.1:80", &["127.0.0.1:80"]),
        ] {
            assert_eq!(names(&document, upstream), peers, "{upstream} {zone}");
            for name in peers {
                let peer = diag::peer(&document, upstream, name);
                let (down, backup) = (upstream == "parted", upstream == "spare");
                let second = name.ends_with(":2");
                let wanted = json!({
                    "peer": name,
                    "state": if down && second { "down" } else { "up" },
                    "backup": if backup && second { json!(true) } else { Value::Null },
                    "requests": 0, "ok": 0, "failed": 0, "aborted": 0, "causes": {},
                    "consecutive_failures": 0, "unavailable_for": null, "last_ok": null,
                    "last_failed": null, "last_cause": null, "taken_out": null,
                });
                assert_eq!(diag::differences(&wanted, peer), [""; 0], "{upstream}");
                assert_eq!(peer["causes"], json!({}));
            }
            let zeros = json!({
                "failed": 0, "masked": 0, "truncated": 0, "passed": 0, "aborted": 0,
                "connect_seconds": {"count": 0, "sum": 0.0},
                "header_bytes": {"count": 0, "sum": 0},
            });
            let found = &document["upstreams"][upstream];
            assert_eq!(diag::differences(&zeros, found), [""; 0], "{upstream}");
        }
        assert_eq!(document["upstreams"].as_object().map(|all| all.len()), Some(20));
        let used = &document["zone"];
        assert_eq!((&used["peers"]["used"], &used["upstreams"]["used"]), (&25.into(), &20.into()));
        nginx.stop();
    }
}

/// Guards against servers of one address hiding each other: they are one peer, which can be chosen
/// as long as one of them can.
#[test]
fn servers_of_one_address_are_one_peer() {
    let good = Upstream::tcp(script::ok("good"));
    for zone in ["", "zone u 64k;"] {
        for (first, second, state) in
            [("", "", "up"), ("down", "", "up"), ("", "down", "up"), ("down", "down", "down")]
        {
            let nginx = Nginx::start(group(&format!(
                "{zone} server {addr} {first}; server {addr} {second};",
                addr = good.addr()
            )));
            let status = diag::status(&nginx);
            assert_eq!(names(&status, "u"), [good.addr()]);
            let peer = diag::peer(&status, "u", &good.addr());
            assert_eq!(peer["state"], state, "{zone} {first}, {second}");
            let wanted = if state == "up" { 200 } else { 502 };
            for _ in 0..3 {
                assert_eq!(nginx.get("/").status, wanted);
            }
            let ok = if state == "up" { 3 } else { 0 };
            assert_eq!(counts(&nginx, "u", &good.addr()), [ok, 0, 0]);
            assert_eq!(diag::status(&nginx)["totals"]["requests"], 3);
            nginx.stop();
        }
    }
}

/// Guards against a request that was not to be diagnosed being counted, whatever became of it, and
/// against one that no upstream was asked for.
#[test]
fn what_is_not_counted() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let gate = Gate::new();
    let held = gate.clone();
    let slow = Upstream::tcp(move |_, conn| {
        conn.read_request();
        conn.wait(&held);
        conn.write(script::response("late"));
    });
    let nginx = Nginx::start(
        diag::conf(format!(
            "location /on {{ proxy_pass http://u; }}
             location /off {{ upstream_diag off; proxy_pass http://u; }}
             location /dead {{ upstream_diag off; proxy_pass http://{}; }}
             location /slow {{ upstream_diag off; proxy_pass http://{}; }}
             location /if {{ if ($arg_off) {{ upstream_diag off; }} proxy_pass http://u; }}
             location /file {{ root {{prefix}}; }}
             location /return {{ return 204; }}",
            dead.addr(),
            slow.addr()
        ))
        .http(format!("upstream u {{ server {}; }}", good.addr())),
    );
    for (path, status) in [
        ("/off", 200),
        ("/dead", 502),
        ("/if?off=1", 200),
        ("/file", 404),
        ("/return", 204),
        ("/on", 200),
        ("/if", 200),
    ] {
        assert_eq!(nginx.get(path).status, status, "{path}");
    }
    let mut leaving = nginx.connect();
    leaving.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    slow.wait_requests(1);
    drop(leaving);
    slow.wait_connections(1);
    gate.open();
    slow.wait_all_closed();
    nginx.wait_lines("access.log", 8);
    let status = diag::status(&nginx);
    assert_eq!(status["totals"]["requests"], 2);
    assert_eq!(diag::counts(diag::peer(&status, "u", &good.addr())), [2, 0, 0]);
    assert_eq!(status["upstreams"]["u"]["header_bytes"]["count"], 2);
    assert_eq!(diag::counts(diag::peer(&status, &dead.addr(), &dead.addr())), [0, 0, 0]);
    assert_eq!(diag::counts(diag::peer(&status, &slow.addr(), &slow.addr())), [0, 0, 0]);
    assert_eq!(status["totals"]["failed"], 0);
    nginx.stop();
}

/// Guards against a response from the cache counting as one of the upstream's.
#[test]
fn cache_hits_count_nothing() {
    let good = Upstream::tcp(script::ok("good"));
    let own = Upstream::tcp(script::status(503));
    let header = script::response("good").len() - 4;
    let nginx = Nginx::start(
        diag::conf(format!(
            "proxy_cache c; proxy_cache_key $uri; proxy_cache_valid 200 503 1h;
             location / {{ proxy_pass http://{}; }}
             location /own {{ proxy_pass http://{}; }}",
            good.addr(),
            own.addr()
        ))
        .http("proxy_cache_path {prefix}/cache keys_zone=c:1m;"),
    );
    for path in ["/a", "/a", "/b", "/a", "/b", "/own", "/own", "/own"] {
        nginx.get(path);
    }
    let status = diag::status(&nginx);
    assert_eq!(diag::counts(diag::peer(&status, &good.addr(), &good.addr())), [2, 0, 0]);
    // Behind the place that nginx leaves for the file's own header.
    let sizes = json!({"count": 2, "sum": 2 * header});
    assert_eq!(
        diag::differences(&sizes, &status["upstreams"][good.addr()]["header_bytes"]),
        [""; 0]
    );
    let peer = diag::peer(&status, &own.addr(), &own.addr());
    assert_eq!(
        (diag::counts(peer), &peer["causes"]),
        ([0, 1, 0], &json!({"upstream_response": 1}))
    );
    // Records are another matter: the client did get an error.
    assert_eq!(status["totals"]["causes"]["cached_error"], 2);
    assert_eq!(status["totals"]["requests"], 3);
    nginx.stop();
}
