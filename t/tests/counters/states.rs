//! What nginx thinks of a peer, beside what is counted.

use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::{Gate, Nginx, Upstream, script};

use super::group;

/// Guards against states that are another peer's, or those of the past.
#[test]
fn each_state() {
    for zone in ["", "zone u 64k;"] {
        let gate = Gate::new();
        let held = gate.clone();
        let slow = Upstream::tcp(move |_, conn| {
            while conn.read_request().is_some() {
                conn.wait(&held);
                conn.write(script::response("slow"));
            }
        });
        let (dead, down) = (t::refused_port(), t::refused_port());
        let spare = Upstream::tcp(script::ok("spare"));
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} max_conns=1; server {} max_fails=2 fail_timeout=60s;
             server {} down; server {} backup;",
            slow.addr(),
            dead.addr(),
            down.addr(),
            spare.addr()
        )));
        let state = |addr: &str| {
            let peer = diag::peer(&diag::status(&nginx), "u", addr).clone();
            let [state, left, backup] =
                ["state", "unavailable_for", "backup"].map(|key| peer[key].clone());
            assert_eq!(left.is_null(), state != "unavailable", "{peer:#}");
            (state, backup)
        };
        let plain = |name: &str| (json!(name), Value::Null);
        let all = || [slow.addr(), dead.addr(), down.addr(), spare.addr()].map(|addr| state(&addr));
        let backup = (json!("up"), json!(true));
        assert_eq!(all(), [plain("up"), plain("up"), plain("down"), backup.clone()]);

        let mut first = nginx.connect();
        first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        slow.wait_requests(1);
        assert_eq!(all(), [plain("busy"), plain("up"), plain("down"), backup.clone()]);
        // One failure is allowed, two are not.
        assert_eq!(nginx.get("/").text(), "spare");
        assert_eq!(all(), [plain("busy"), plain("up"), plain("down"), backup.clone()]);
        assert_eq!(nginx.get("/").text(), "spare");
        assert_eq!(all(), [plain("busy"), plain("unavailable"), plain("down"), backup.clone()]);
        let status = diag::status(&nginx);
        assert_in(&diag::peer(&status, "u", &dead.addr())["unavailable_for"], 30.0..61.0);

        gate.open();
        assert_eq!(first.read_response(false).expect("a response").text(), "slow");
        assert_eq!(all(), [plain("up"), plain("unavailable"), plain("down"), backup]);
        let [_, wanted_dead, _, wanted_spare] = [[1, 0, 0], [0, 2, 0], [0, 0, 0], [2, 0, 0]];
        let status = diag::status(&nginx);
        assert_eq!(diag::counts(diag::peer(&status, "u", &dead.addr())), wanted_dead);
        assert_eq!(diag::counts(diag::peer(&status, "u", &spare.addr())), wanted_spare);
        diag::finish(&nginx);
    }
}

/// Guards against a peer that is back being shown as out, or as taken out by what is over.
#[test]
fn a_peer_that_is_back() {
    for zone in ["", "zone u 64k;"] {
        let port = t::refused_port();
        let other = Upstream::tcp(script::ok("other"));
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} max_fails=1 fail_timeout=1s; server {} backup;",
            port.addr(),
            other.addr()
        )));
        let peer = || diag::peer(&diag::status(&nginx), "u", &port.addr()).clone();
        assert_eq!(nginx.get("/").text(), "other");
        let out = peer();
        assert_eq!(out["taken_out"]["cause"], "connection_refused", "{out:#}");
        let _back = Upstream::tcp_at(&port, script::ok("back"));
        // nginx asks it again when the time is over.
        let within = Duration::from_secs(10);
        t::eventually("the peer is asked again", within, || {
            (nginx.get("/").text() == "back").then_some(())
        });
        let now = peer();
        let wanted = json!({"state": "up", "unavailable_for": null, "taken_out": null,
                            "consecutive_failures": 0, "last_cause": "connection_refused"});
        assert_eq!(diag::differences(&wanted, &now), [""; 0], "{now:#}");
        assert_eq!(diag::counts(&now), [1, 1, 0]);
        diag::finish(&nginx);
    }
}

/// Guards against a failed peer that is shown with the numbers of another one that failed for the
/// same request.
#[test]
fn each_failed_peer_has_its_own_numbers() {
    for zone in ["", "zone u 64k;"] {
        let ports: Vec<_> = (0..40).map(|_| t::refused_port()).collect();
        let server = |(n, port): (usize, &t::RefusedPort)| {
            let backup = if n % 4 == 3 { " backup" } else { "" };
            format!("server {} weight={}{backup};", port.addr(), n + 1)
        };
        let servers: String = ports.iter().enumerate().map(server).collect();
        let nginx = Nginx::start(group(&format!("{zone} {servers}")));
        assert_eq!(nginx.get("/").status, 502);
        let record = &nginx.wait_json_lines("diag.json", 1)[0];
        let attempts = record["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), ports.len());
        for (n, port) in ports.iter().enumerate() {
            let of_peer = |attempt: &&Value| attempt["peer"] == port.addr();
            let state = &attempts.iter().find(of_peer).expect("an attempt")["peer_state"];
            let numbers = [&state["weight"], &state["backup"], &state["fails"]];
            assert_eq!(numbers, [&json!(n + 1), &json!(n % 4 == 3), &json!(1)], "{zone} {state}");
        }
        diag::finish(&nginx);
    }
}
