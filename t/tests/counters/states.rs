//! What nginx thinks of a peer, beside what is counted.

use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::dns::Answer;
use t::{Dns, Gate, Nginx, Upstream, script};

use super::{SOON, group};

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
/// same request; at first all are gone through, later each is found where it was.
#[test]
fn each_failed_peer_has_its_own_numbers() {
    for zone in ["", "zone u 64k;"] {
        let ports: Vec<_> = (0..40).map(|_| t::refused_port()).collect();
        let server = |(n, port): (usize, &t::RefusedPort)| {
            let backup = if n % 4 == 3 { " backup" } else { "" };
            format!("server {} max_fails=0 weight={}{backup};", port.addr(), n + 1)
        };
        let servers: String = ports.iter().enumerate().map(server).collect();
        let nginx = Nginx::start(group(&format!("{zone} {servers}")));
        for before in 0..3 {
            assert_eq!(nginx.get("/").status, 502);
            let record = &nginx.wait_json_lines("diag.json", before + 1)[before];
            let attempts = record["attempts"].as_array().expect("attempts");
            assert_eq!(attempts.len(), ports.len());
            for (n, port) in ports.iter().enumerate() {
                let of_peer = |attempt: &&Value| attempt["peer"] == port.addr();
                let state = &attempts.iter().find(of_peer).expect("an attempt")["peer_state"];
                let numbers = [&state["weight"], &state["backup"], &state["fails"]];
                let wanted = [json!(n + 1), json!(n % 4 == 3), json!(before + 1)];
                assert_eq!(numbers, wanted.each_ref(), "{zone} {before} {state}");
            }
        }
        diag::finish(&nginx);
    }
}

/// Guards against a peer that is taken for the one that was where it is now: nginx gives the memory
/// of those that a name does not have any more to those that it has.
#[test]
fn peers_that_come_and_go() {
    let [first, second] = [(); 2].map(|()| t::refused_port());
    let dns = Dns::start([("app.test", Answer::localhost())]);
    let servers = format!(
        "zone u 64k; server app.test:{} resolve weight=3 max_fails=0;
         server {} weight=2 max_fails=0;",
        first.port(),
        second.addr()
    );
    let conf = group(&servers).http(format!("resolver {} valid=1s ipv6=off;", dns.addr()));
    if !Nginx::check(&conf).0 {
        // Before 1.27.3 nginx did not have the parameter.
        return;
    }
    let nginx = Nginx::start(conf);
    let mut lines = 0;
    let mut peers = || {
        assert_eq!(nginx.get("/").status, 502);
        lines += 1;
        let record = nginx.wait_json_lines("diag.json", lines)[lines - 1].clone();
        let attempts = record["attempts"].as_array().cloned().unwrap_or_default();
        attempts.iter().map(|a| (a["peer"].clone(), a["peer_state"]["weight"].clone())).collect()
    };
    for last in [1, 2, 3, 1] {
        let address = format!("127.0.0.{last}");
        dns.set("app.test", Answer::A(vec![address.parse().expect("an address")]));
        let here = (json!(format!("{address}:{}", first.port())), json!(3));
        t::eventually("nginx asks again", SOON, || {
            let peers: Vec<(Value, Value)> = peers();
            for (peer, weight) in &peers {
                let wanted = if *peer == second.addr() { 2 } else { 3 };
                assert_eq!(*weight, wanted, "{peer}");
            }
            peers.contains(&here).then_some(())
        });
    }
    diag::finish(&nginx);
}
