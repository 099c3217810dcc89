//! Groups of servers of which none can be chosen, after what happened in them before. The causes
//! of the phases "resolve" and "select" are rows of `faults`.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::diag::{self, Seen, assert_in};
use t::{Conf, Gate, Nginx, Upstream, script};

/// A group of these servers.
fn group(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {servers} }}"))
}

/// What there is to say when none of the group could be chosen.
fn none_chosen(nginx: &Nginx, n: usize, cause: &str, peers: &Value) -> Seen {
    let response = nginx.get("/");
    let seen = diag::seen(nginx, n);
    seen.expect(
        cause,
        &json!({
            "phase": "select", "status": 502, "outcome": "failed", "upstream": "u", "peers": peers,
            "attempts": [{"cause": cause, "message": "no live upstreams"}],
        }),
    )
    .in_header(&response);
    // nginx gives the group's name for an address here.
    assert_eq!((seen.variable("addr"), seen.variable("causes")), ("u", cause));
    assert!(seen.variable("summary").starts_with("Upstream \"u\": "), "{seen:?}");
    seen
}

/// Guards against peers that were taken out being listed without for how long, and against the
/// failures that did it being lost.
#[test]
fn no_live_upstreams_after_failures() {
    let (a, b, spare) = (t::refused_port(), t::refused_port(), t::refused_port());
    for zone in ["", "zone u 64k;"] {
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} fail_timeout=30; server {} fail_timeout=60 max_fails=1;
             server {} backup max_fails=1 fail_timeout=90;",
            a.addr(),
            b.addr(),
            spare.addr()
        )));
        let response = nginx.get("/");
        let refused = |addr: String, timeout: u64, backup: bool| {
            json!({
                "peer": addr, "cause": "connection_refused", "phase": "connect", "status": 502,
                "errno": 111,
                "peer_state": {"state": "unavailable", "fails": 1, "max_fails": 1,
                               "fail_timeout": timeout, "down": false, "backup": backup},
            })
        };
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "connection_refused",
            &json!({
                "outcome": "failed", "status": 502, "peers": null,
                "attempts": [refused(a.addr(), 30, false), refused(b.addr(), 60, false),
                             refused(spare.addr(), 90, true)],
            }),
        )
        .in_header(&response);
        for (n, timeout) in [30.0, 60.0, 90.0].into_iter().enumerate() {
            let state = &seen.attempt(n)["peer_state"];
            assert_in(&state["unavailable_for"], timeout - 10.0..timeout + 1.0);
        }
        let none = none_chosen(
            &nginx,
            1,
            "no_live_upstreams",
            &json!([
                {"peer": a.addr(), "state": "unavailable", "backup": null},
                {"peer": b.addr(), "state": "unavailable", "backup": null},
                {"peer": spare.addr(), "state": "unavailable", "backup": true},
            ]),
        );
        for (n, timeout) in [30.0, 60.0, 90.0].into_iter().enumerate() {
            let peer = &none.record["peers"][n];
            assert_in(&peer["unavailable_for"], timeout - 10.0..timeout + 1.0);
        }
        diag::finish(&nginx);
    }
}

/// Guards against a group that is full being taken for one that is dead, with the connections
/// counted by each worker and by all of them.
#[test]
fn max_conns_reached() {
    for zone in ["", "zone u 64k;"] {
        let gate = Gate::new();
        let held = gate.clone();
        let up = Upstream::tcp(move |_, conn| {
            conn.read_request();
            conn.wait(&held);
            conn.write(script::response("at last"));
        });
        let dead = t::refused_port();
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} max_conns=1; server {} down;",
            up.addr(),
            dead.addr()
        )));
        let mut first = nginx.connect();
        first.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        up.wait_requests(1);
        none_chosen(
            &nginx,
            0,
            "max_conns_reached",
            &json!([
                {"peer": up.addr(), "state": "busy", "unavailable_for": null},
                {"peer": dead.addr(), "state": "down"},
            ]),
        );
        gate.open();
        assert_eq!(first.read_response(false).expect("a response").text(), "at last");
        // With the connection given back the same server is chosen again.
        assert_eq!(nginx.get("/").status, 200);
        nginx.wait_lines("access.log", 3);
        diag::finish(&nginx);
    }
}
