//! Which failure took a peer out: in the status document, and in the record of a request for which
//! nobody was left.

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::script::{self, Step};
use t::{Gate, Nginx, Upstream};

use super::group;

/// Checks that this peer of `u` was taken out by this, and that the record's list says the same.
fn is_out(nginx: &Nginx, record: &Value, addr: &str, cause: &str) {
    let status = diag::status(nginx);
    let peer = diag::peer(&status, "u", addr);
    assert_eq!(peer["state"], "unavailable", "{addr}: {peer:#}");
    assert_eq!(peer["taken_out"]["cause"], cause, "{addr}: {peer:#}");
    assert_in(&peer["taken_out"]["ago"], 0.0..30.0);
    let listed = record["peers"].as_array().expect("peers").iter().find(|p| p["peer"] == addr);
    let listed = listed.expect("the peer");
    let wanted = json!({"state": "unavailable", "last_cause": cause});
    assert_eq!(diag::differences(&wanted, listed), [""; 0], "{listed:#}");
    assert_in(&listed["last_failed"], 0.0..30.0);
    // The document was asked for later.
    assert!(
        listed["last_failed"].as_f64() <= peer["taken_out"]["ago"].as_f64(),
        "{listed}, {peer}"
    );
}

/// Guards against the reason of each peer being that of the last, or nobody's, and against the
/// request that finds out first knowing nothing of it.
#[test]
fn each_by_its_own_failure() {
    for zone in ["", "zone u 64k;"] {
        let dead = t::refused_port();
        let close = Upstream::tcp(script::close_at_once());
        let down = t::refused_port();
        let nginx = Nginx::start(
            group(&format!(
                "{zone} server {} fail_timeout=60s; server {} fail_timeout=60s; server {} down;",
                dead.addr(),
                close.addr(),
                down.addr()
            ))
            .http("server { listen unix:{prefix}/unused.sock; }"),
        );
        assert_eq!(nginx.get("/").status, 502);
        diag::seen(&nginx, 0).expect("closed_before_response", &json!({"peers": null}));
        assert_eq!(nginx.get("/").status, 502);
        let seen = diag::seen(&nginx, 1);
        seen.expect("no_live_upstreams", &json!({"outcome": "failed"}));
        is_out(&nginx, &seen.record, &dead.addr(), "connection_refused");
        is_out(&nginx, &seen.record, &close.addr(), "closed_before_response");
        let peers = seen.record["peers"].as_array().expect("peers");
        let wanted = json!({"peer": down.addr(), "state": "down", "last_cause": null,
                            "last_failed": null});
        assert_eq!(diag::differences(&wanted, &peers[2]), [""; 0], "{peers:#?}");
        diag::finish(&nginx);
    }
}

/// Guards against the failure that a request made itself being unknown to its own record, which
/// says that nobody is left.
#[test]
fn the_first_to_find_nobody_left() {
    for zone in ["", "zone u 64k;"] {
        let dead = t::refused_port();
        let close = Upstream::tcp(script::close_at_once());
        let mut conf = group(&format!(
            "{zone} server {} fail_timeout=60s; server {} fail_timeout=60s;",
            dead.addr(),
            close.addr()
        ));
        conf.servers[0]
            .push_str("location /once { proxy_next_upstream off; proxy_pass http://u; }");
        let nginx = Nginx::start(conf);
        // Takes the first out, and goes no further.
        assert_eq!(nginx.get("/once").status, 502);
        diag::seen(&nginx, 0).expect("connection_refused", &json!({"outcome": "failed"}));
        // Takes the second out, goes on, and finds nobody.
        assert_eq!(nginx.get("/").status, 502);
        let seen = diag::seen(&nginx, 1);
        seen.expect(
            "no_live_upstreams",
            &json!({"attempts": [
                {"peer": close.addr(), "cause": "closed_before_response"},
                {"cause": "no_live_upstreams"},
            ]}),
        );
        is_out(&nginx, &seen.record, &dead.addr(), "connection_refused");
        is_out(&nginx, &seen.record, &close.addr(), "closed_before_response");
        diag::finish(&nginx);
    }
}

/// Guards against the first of several failures, or one that came when the peer was out already,
/// being named as what took it out.
#[test]
fn the_failure_that_was_one_too_many() {
    for zone in ["", "zone u 64k;"] {
        let gate = Gate::new();
        let read = |then: Vec<Step>| [vec![Step::ReadRequest], then].concat();
        let up = Upstream::tcp(script::steps(vec![
            read(vec![Step::Wait(gate.clone()), Step::Write(b"HTTP/1.1 2".to_vec()), Step::Close]),
            read(vec![Step::Reset]),
            read(vec![Step::Close]),
        ]));
        let down = t::refused_port();
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} max_fails=2 fail_timeout=60s; server {} down;",
            up.addr(),
            down.addr()
        )));
        let mut early = nginx.connect();
        early.send(b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        up.wait_requests(1);
        assert_eq!((nginx.get("/1").status, nginx.get("/2").status), (502, 502));
        // Was under way when the peer was taken out.
        gate.open();
        assert_eq!(early.read_response(false).expect("a response").status, 502);
        assert_eq!(nginx.get("/3").status, 502);
        let seen = diag::seen(&nginx, 3);
        seen.expect("no_live_upstreams", &json!({"uri": "/3"}));
        is_out(&nginx, &seen.record, &up.addr(), "closed_before_response");
        let status = diag::status(&nginx);
        let peer = diag::peer(&status, "u", &up.addr());
        let wanted = json!({"last_cause": "closed_in_header", "consecutive_failures": 3});
        assert_eq!(diag::differences(&wanted, peer), [""; 0], "{peer:#}");
        diag::finish(&nginx);
    }
}

/// Guards against a peer that was never out being called so: it has failed, and may be chosen.
#[test]
fn failures_that_take_nobody_out() {
    let dead = t::refused_port();
    for parameters in ["max_fails=0", "max_fails=3 fail_timeout=60s"] {
        // With one server alone nginx does not count.
        for more in ["", "server 127.0.0.1:1 down;"] {
            let nginx =
                Nginx::start(group(&format!("server {} {parameters}; {more}", dead.addr())));
            for _ in 0..2 {
                assert_eq!(nginx.get("/").status, 502);
            }
            let status = diag::status(&nginx);
            let peer = diag::peer(&status, "u", &dead.addr());
            let wanted = json!({"state": "up", "taken_out": null, "failed": 2,
                                "last_cause": "connection_refused"});
            assert_eq!(diag::differences(&wanted, peer), [""; 0], "{parameters} {more} {peer:#}");
            diag::finish(&nginx);
        }
    }
}

/// Guards against a peer that nginx took out for a 500, which is no failure here, being told as taken
/// out by one that was over long before.
#[test]
fn taken_out_by_a_500() {
    let ports = [t::refused_port(), t::refused_port()];
    let servers = ports.each_ref().map(|port| format!("server {} fail_timeout=2s;", port.addr()));
    let mut conf = group(&servers.concat());
    conf.servers[0].push_str("proxy_next_upstream error http_500;");
    let nginx = Nginx::start(conf);
    assert_eq!(nginx.get("/").status, 502);
    diag::seen(&nginx, 0).expect("connection_refused", &json!({}));
    let _ups = ports.each_ref().map(|port| Upstream::tcp_at(port, script::status(500)));
    // Those failures do not have them out any more.
    t::eventually("the servers are back", std::time::Duration::from_secs(10), || {
        let status = diag::status(&nginx);
        let is_up = |port: &t::RefusedPort| diag::peer(&status, "u", &port.addr())["state"] == "up";
        ports.iter().all(is_up).then_some(())
    });
    // nginx takes the last one's for an answer, and then that one out.
    assert_eq!(nginx.get("/").status, 500);
    assert_eq!(nginx.get("/").status, 502);
    let seen = diag::seen(&nginx, 1);
    let out = json!({"state": "unavailable", "last_cause": null, "last_failed": null});
    seen.expect("no_live_upstreams", &json!({"peers": [out, out]}));
    let advice = seen.record["advice"].as_str().expect("advice");
    assert!(advice.contains("a 500 or 429 where proxy_next_upstream has http_500"), "{advice}");
    let status = diag::status(&nginx);
    for port in &ports {
        assert_eq!(diag::peer(&status, "u", &port.addr())["taken_out"], json!(null));
    }
    diag::finish(&nginx);
}
