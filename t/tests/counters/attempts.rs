//! How attempts end, one after another.

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::dns;
use t::script::{self, Step};
use t::{Dns, Nginx, Upstream};

use super::{group, wait_counts};

/// One peer, and what should be known of it.
struct Story {
    nginx: Nginx,
    up: Upstream,
    /// Good, failed and aborted attempts.
    counts: [u64; 3],
    causes: Value,
    row: u64,
    last: Value,
}

impl Story {
    /// Tells how the next attempt ended: with a cause, with none, or with the client's leaving.
    fn next(&mut self, cause: Option<&str>, left: bool) {
        match cause {
            None if left => self.counts[2] += 1,
            None => (self.counts[0], self.row) = (self.counts[0] + 1, 0),
            Some(cause) => {
                (self.counts[1], self.row) = (self.counts[1] + 1, self.row + 1);
                self.causes[cause] = (self.causes[cause].as_u64().unwrap_or(0) + 1).into();
                self.last = cause.into();
            }
        }
        let status = wait_counts(&self.nginx, "u", &self.up.addr(), self.counts);
        assert_eq!(status["totals"]["requests"], self.counts.iter().sum::<u64>());
        let peer = diag::peer(&status, "u", &self.up.addr());
        assert_eq!(peer["causes"], self.causes);
        let wanted = json!({"consecutive_failures": self.row, "last_cause": self.last});
        assert_eq!(diag::differences(&wanted, peer), [""; 0], "{peer:#}");
        let (ok, failed) = (peer["last_ok"].as_f64(), peer["last_failed"].as_f64());
        if let (Some(ok), Some(failed), false) = (ok, failed, left) {
            let newer = if cause.is_some() { failed <= ok } else { ok <= failed };
            assert!(newer, "ok {ok} s ago, failed {failed} s ago");
        }
        if cause.is_some() {
            self.check_record();
        }
    }

    /// What the newest record says of the past is what is counted, itself included.
    fn check_record(&self) {
        let n = usize::try_from(self.counts[1]).expect("few");
        let attempt = diag::seen(&self.nginx, n - 1).attempt(0).clone();
        assert_eq!(attempt["cause"], self.last);
        let history = &attempt["history"];
        let wanted = json!({"ok": self.counts[0], "failed": self.counts[1],
                            "consecutive_failures": self.row});
        assert_eq!(diag::differences(&wanted, history), [""; 0], "{attempt:#}");
        match self.counts[0] {
            0 => assert!(history["last_ok"].is_null(), "{history}"),
            _ => assert_in(&history["last_ok"], 0.0..60.0),
        }
    }
}

/// Guards against an attempt that counts as none, as two, or as of the wrong kind, and against
/// times and causes that are of another attempt than they say.
#[test]
fn a_known_sequence() {
    let read = |then: Vec<Step>| [vec![Step::ReadRequest], then].concat();
    let answer = |status| read(vec![Step::Write(script::response_with(status, "own"))]);
    let close = read(vec![Step::Close]);
    let reset = read(vec![Step::Reset]);
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut".to_vec();
    let cut = read(vec![Step::Write(cut)]);
    let hold = read(vec![Step::WaitPeerClose]);
    for zone in ["", "zone u 64k;"] {
        // Status of the response, and the cause of the failure.
        let sequence = [
            (close.clone(), 502, Some("closed_before_response")),
            (answer(200), 200, None),
            (close.clone(), 502, Some("closed_before_response")),
            (reset.clone(), 502, Some("connection_reset")),
            (answer(200), 200, None),
            // An answer is an answer.
            (answer(404), 404, None),
            (answer(500), 500, None),
            (answer(503), 503, Some("upstream_response")),
            (cut.clone(), 200, Some("response_truncated")),
            (hold.clone(), 0, None),
            (reset.clone(), 502, Some("connection_reset")),
            (answer(200), 200, None),
        ];
        let lists = sequence.iter().map(|(steps, ..)| steps.clone()).collect();
        let up = Upstream::tcp(script::steps(lists));
        let nginx = Nginx::start(group(&format!("{zone} server {} max_fails=0;", up.addr())));
        let (counts, causes) = ([0; 3], json!({}));
        let mut story = Story { nginx, up, counts, causes, row: 0, last: Value::Null };
        for (n, (_, status, cause)) in sequence.into_iter().enumerate() {
            if status == 0 {
                let mut leaving = story.nginx.connect();
                leaving.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
                story.up.wait_requests(n + 1);
                drop(leaving);
            } else {
                assert_eq!(story.nginx.get("/").status, status);
            }
            story.next(cause, status == 0);
        }
        diag::finish(&story.nginx);
    }
}

/// Guards against attempts of one request that are counted with each other's peer, and against the
/// last one alone being counted.
#[test]
fn each_attempt_with_its_own_peer() {
    for zone in ["", "zone u 64k;"] {
        let dead = t::refused_port();
        let close = Upstream::tcp(script::close_at_once());
        let own = Upstream::tcp(script::status(503));
        let good = Upstream::tcp(script::ok("good"));
        let spare = Upstream::tcp(script::ok("spare"));
        let nginx = Nginx::start(
            group(&format!(
                "{zone} server {} max_fails=0; server {} max_fails=0; server {} max_fails=0;
                 server {} max_fails=0; server {} backup;",
                dead.addr(),
                close.addr(),
                own.addr(),
                good.addr(),
                spare.addr()
            ))
            .http("proxy_next_upstream error timeout http_503;"),
        );
        assert_eq!(nginx.get("/").text(), "good");
        diag::seen(&nginx, 0).expect("upstream_response", &json!({"outcome": "masked"}));
        let status = diag::status(&nginx);
        for (addr, counts, causes) in [
            (dead.addr(), [0, 1, 0], json!({"connection_refused": 1})),
            (close.addr(), [0, 1, 0], json!({"closed_before_response": 1})),
            (own.addr(), [0, 1, 0], json!({"upstream_response": 1})),
            (good.addr(), [1, 0, 0], json!({})),
            (spare.addr(), [0, 0, 0], json!({})),
        ] {
            let peer = diag::peer(&status, "u", &addr);
            assert_eq!((diag::counts(peer), &peer["causes"]), (counts, &causes), "{addr}");
        }
        // Records are counted by verdict, and once.
        let wanted = json!({
            "totals": {"requests": 1, "failed": 0, "masked": 1,
                       "causes": {"upstream_response": 1, "connection_refused": 0}},
            "upstreams": {"u": {"failed": 0, "masked": 1}},
        });
        assert_eq!(diag::differences(&wanted, &status), [""; 0]);
        diag::finish(&nginx);
    }
}

/// Guards against a request that no peer could be found for being counted nowhere, or with a peer
/// that has no part in it.
#[test]
fn attempts_without_a_peer() {
    let dead = t::refused_port();
    let dns = Dns::start([("gone.test", dns::NXDOMAIN), ("bad.test", dns::SERVFAIL)]);
    let nginx = Nginx::start(
        diag::conf(format!(
            "resolver {} ipv6=off; location /group {{ proxy_pass http://down; }}
             location /name {{ proxy_pass http://$arg_name; }}",
            dns.addr()
        ))
        .http(format!("upstream down {{ server {} down; }}", dead.addr())),
    );
    let unresolved = |name| format!("/name?name={name}");
    for path in ["/group", "/group", &unresolved("gone.test"), &unresolved("bad.test")] {
        assert_eq!(nginx.get(path).status, 502, "{path}");
    }
    let status = diag::status(&nginx);
    for (upstream, count, cause) in [
        ("down", 2, "no_live_upstreams"),
        ("gone.test", 1, "dns_not_found"),
        ("bad.test", 1, "dns_failure"),
    ] {
        let peer = diag::peer(&status, upstream, "");
        assert_eq!(diag::counts(peer), [0, count, 0], "{upstream}");
        let wanted = json!({"peer": null, "state": null, "last_cause": cause, "causes": {cause: count},
                            "consecutive_failures": count, "last_ok": null});
        assert_eq!(diag::differences(&wanted, peer), [""; 0], "{upstream}");
        assert_eq!(status["upstreams"][upstream]["failed"], count);
    }
    assert_eq!(diag::counts(diag::peer(&status, "down", &dead.addr())), [0, 0, 0]);
    assert_eq!(status["totals"]["requests"], 4);
    diag::finish(&nginx);
}

/// Guards against a client that leaves being the peer's failure, or a success, in any phase, and
/// against the attempt before it being lost.
#[test]
fn clients_that_leave() {
    let full = t::full_backlog_tcp();
    let silent = Upstream::tcp(script::silent());
    let dead = t::refused_port();
    let half = Upstream::tcp(|_, conn| {
        conn.read_request();
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nsome");
        conn.wait_peer_close();
    });
    let nginx = Nginx::start(
        group(&format!("server {} max_fails=0; server {} backup;", dead.addr(), silent.addr()))
            .log_level("debug")
            .server(format!(
                "    location /connect {{ proxy_pass http://{}; }}
                     location /header {{ proxy_pass http://{}; }}
                     location /body {{ proxy_buffering off; proxy_pass http://{}; }}
                     location /retry {{ proxy_pass http://u; }}",
                full.addr(),
                silent.addr(),
                half.addr(),
            )),
    );
    let ask = |path: &str| {
        let mut client = nginx.connect_to(2);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
        client
    };
    let client = ask("/connect");
    nginx.wait_for_log(&format!("connect to {},", full.addr()), super::SOON);
    drop(client);
    wait_counts(&nginx, full.addr(), full.addr(), [0, 0, 1]);

    let client = ask("/header");
    silent.wait_requests(1);
    drop(client);
    wait_counts(&nginx, &silent.addr(), &silent.addr(), [0, 0, 1]);

    // The peer had answered by then.
    let mut client = ask("/body");
    client.wait_for(b"some");
    drop(client);
    wait_counts(&nginx, &half.addr(), &half.addr(), [1, 0, 0]);

    let client = ask("/retry");
    silent.wait_requests(2);
    drop(client);
    let status = wait_counts(&nginx, "u", &silent.addr(), [0, 0, 1]);
    assert_eq!(diag::counts(diag::peer(&status, "u", &dead.addr())), [0, 1, 0]);
    diag::seen(&nginx, 0).expect("connection_refused", &json!({"outcome": "aborted"}));
    let wanted = json!({"totals": {"requests": 4, "aborted": 1},
                        "upstreams": {"u": {"aborted": 1}}});
    assert_eq!(diag::differences(&wanted, &diag::status(&nginx)), [""; 0]);
    diag::finish(&nginx);
}

/// Guards against an answer on a kept connection, and the second try that nginx makes when such a
/// connection was closed, being counted otherwise than any other.
#[test]
fn kept_connections() {
    let up = Upstream::tcp(script::keepalive_then_close_on_next(script::End::Fin));
    let nginx = Nginx::start(
        group(&format!("server {} max_fails=0; keepalive 4;", up.addr()))
            .http("proxy_http_version 1.1; proxy_set_header Connection '';"),
    );
    assert_eq!(nginx.get("/").status, 200);
    // Closed on the kept connection; nginx asks the same peer again.
    assert_eq!(nginx.get("/").status, 200);
    diag::seen(&nginx, 0).expect("keepalive_race", &json!({"outcome": "masked"}));
    let status = wait_counts(&nginx, "u", &up.addr(), [2, 1, 0]);
    let peer = diag::peer(&status, "u", &up.addr());
    assert_eq!(peer["causes"], json!({"keepalive_race": 1}));
    diag::finish(&nginx);
}

/// Guards against a name that is resolved when the configuration is read being counted as the
/// peer, in place of its address.
#[test]
fn names_that_are_resolved_when_configured() {
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(group(&format!("server localhost:{} max_fails=0;", good.port())));
    assert_eq!(nginx.get("/").status, 200);
    let status = diag::status(&nginx);
    assert_eq!(diag::counts(diag::peer(&status, "u", &good.addr())), [1, 0, 0]);
    diag::finish(&nginx);
}
