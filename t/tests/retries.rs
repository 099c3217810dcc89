//! Several attempts of one request: which are made, which of them failed and why, and whether all
//! that is said of each stands where its address does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::diag;
use t::script::{self, End};
use t::{Conf, Nginx, RefusedPort, Upstream};

/// Upstreams that each fail, or do not, in a way of their own.
struct Peers {
    dead: [RefusedPort; 3],
    silent: Upstream,
    closing: Upstream,
    reset: Upstream,
    own500: Upstream,
    own502: Upstream,
    own503: Upstream,
    missing: Upstream,
    good: Upstream,
}

impl Peers {
    fn new() -> Self {
        let [own500, own502, own503, missing] =
            [500, 502, 503, 404].map(|status| Upstream::tcp(script::status(status)));
        Self {
            dead: [(); 3].map(|()| t::refused_port()),
            silent: Upstream::tcp(script::silent()),
            closing: Upstream::tcp(script::close_at_once()),
            reset: Upstream::tcp(script::reset_at_once()),
            own500,
            own502,
            own503,
            missing,
            good: Upstream::tcp(script::ok("good")),
        }
    }

    /// The address of what a letter stands for.
    fn addr(&self, letter: char) -> String {
        match letter {
            'd' => self.dead[0].addr(),
            'e' => self.dead[1].addr(),
            'f' => self.dead[2].addr(),
            's' => self.silent.addr(),
            'c' => self.closing.addr(),
            'r' => self.reset.addr(),
            '0' => self.own500.addr(),
            '2' => self.own502.addr(),
            '3' => self.own503.addr(),
            'm' => self.missing.addr(),
            'g' => self.good.addr(),
            _ => panic!("nobody is {letter}"),
        }
    }

    /// A proxy that tries the letters in this order.
    fn conf(&self, letters: &str, http: &str) -> Conf {
        let servers: String = letters
            .chars()
            .map(|letter| format!("server {} max_fails=0;", self.addr(letter)))
            .collect();
        // With others to be heard, the silent one is given time, so that these have it too.
        let timeout = match (letters.contains('s'), letters.chars().all(|l| "defsg".contains(l))) {
            (true, true) => "proxy_read_timeout 150ms;",
            (true, false) => "proxy_read_timeout 1s;",
            _ => "",
        };
        diag::conf(format!("{timeout} {http} location / {{ proxy_pass http://u; }}"))
            .http(format!("upstream u {{ {servers} }}"))
    }
}

/// The cause and the status of an attempt at the peer with this letter.
fn attempt(letter: char) -> (Value, u16) {
    let (cause, status) = match letter {
        'd' | 'e' | 'f' => ("connection_refused", 502),
        's' => ("response_timed_out", 504),
        'c' => ("closed_before_response", 502),
        'r' => ("connection_reset", 502),
        '0' => return (Value::Null, 500),
        '2' => ("upstream_response", 502),
        '3' => ("upstream_response", 503),
        'm' => return (Value::Null, 404),
        _ => return (Value::Null, 200),
    };
    (cause.into(), status)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const POST: &str =
    "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";

/// Guards against an attempt that was not made being reported, one that was made missing, and
/// what is known of one standing beside another's address.
#[test]
fn attempts_line_up() {
    let peers = Peers::new();
    let all = "proxy_next_upstream error timeout http_500 http_502 http_503 http_404;";
    for (request, letters, http, tried, status, outcome) in [
        (GET, "dg", "proxy_next_upstream off;", "d", 502, "failed"),
        (GET, "sg", "proxy_next_upstream error;", "s", 504, "failed"),
        (GET, "deg", "proxy_next_upstream_tries 2;", "de", 502, "failed"),
        (GET, "deg", "proxy_next_upstream_tries 3;", "deg", 200, "masked"),
        (GET, "def", "proxy_next_upstream_tries 1;", "d", 502, "failed"),
        (GET, "dscg", "proxy_next_upstream_timeout 900ms;", "ds", 504, "failed"),
        (GET, "scrg", "", "scrg", 200, "masked"),
        (GET, "crs", "", "crs", 504, "failed"),
        (GET, "csrd", "", "csrd", 502, "failed"),
        // The body of a request that may have been received is not sent twice.
        (POST, "cg", "", "c", 502, "failed"),
        (POST, "dg", "", "dg", 200, "masked"),
        (POST, "dcg", "", "dc", 502, "failed"),
        (POST, "dcrg", "proxy_next_upstream error non_idempotent;", "dcrg", 200, "masked"),
        (POST, "2g", all, "2", 502, "passed"),
        // Answers of the upstreams' own.
        (GET, "23g", all, "23g", 200, "masked"),
        (GET, "d2", all, "d2", 502, "passed"),
        (GET, "2d", all, "2d", 502, "failed"),
        (GET, "3g", "", "3", 503, "passed"),
        (GET, "0d", all, "0d", 502, "failed"),
        (GET, "d0", all, "d0", 500, "failed"),
        (GET, "mdg", all, "mdg", 200, "masked"),
        (GET, "dm", all, "dm", 404, "masked"),
        (GET, "m2", all, "m2", 502, "passed"),
    ] {
        let nginx = Nginx::start(peers.conf(letters, http));
        let response = nginx.request(request.as_bytes());
        let told = format!("{letters} {http}");
        assert_eq!(response.status, status, "{told}");
        let attempts: Vec<Value> = tried
            .chars()
            .map(|letter| {
                let (cause, status) = attempt(letter);
                json!({"peer": peers.addr(letter), "cause": cause, "status": status})
            })
            .collect();
        let verdict = tried.chars().rev().map(|letter| attempt(letter).0).find(|c| !c.is_null());
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            verdict.as_ref().and_then(Value::as_str).expect("an attempt that failed"),
            &json!({"status": status, "outcome": outcome, "upstream": "u", "attempts": attempts}),
        )
        .in_header(&response);
        let peers: Vec<String> = tried.chars().map(|letter| peers.addr(letter)).collect();
        assert_eq!(seen.variable("addr"), peers.join(", "), "{told}");
        diag::finish(&nginx);
    }
}

/// Guards against requests of which no attempt failed being reported because one was followed by
/// another.
#[test]
fn other_answers_are_no_failures() {
    let peers = Peers::new();
    for (letters, status) in [("mg", 200), ("0g", 200), ("m0", 500), ("0m", 404)] {
        let nginx =
            Nginx::start(peers.conf(letters, "proxy_next_upstream http_404 http_500 error;"));
        assert_eq!(nginx.get("/").status, status, "{letters}");
        let line = nginx.wait_json_lines("access.log", 1).remove(0);
        let both: Vec<String> = letters.chars().map(|letter| peers.addr(letter)).collect();
        assert_eq!(line["addr"], both.join(", "));
        assert_eq!(nginx.lines("diag.json"), [""; 0]);
        diag::finish(&nginx);
    }
}

/// Guards against a kept connection that was closed being lost when nginx repeats the request at
/// the same peer, which counts as no try.
#[test]
fn kept_connections_are_tried_again() {
    for (end, errno) in [(End::Fin, Value::Null), (End::Rst, json!(104))] {
        let up = Upstream::tcp(script::keepalive_then_close_on_next(end));
        let nginx = Nginx::start(
            diag::conf(
                "location / { proxy_http_version 1.1; proxy_set_header Connection '';
                              proxy_pass http://u; }",
            )
            .http(format!("upstream u {{ server {}; keepalive 4; }}", up.addr())),
        );
        assert_eq!(nginx.get("/").text(), "first");
        let response = nginx.get("/again");
        assert_eq!(response.text(), "first");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "keepalive_race",
            &json!({
                "uri": "/again", "status": 200, "outcome": "masked",
                "attempts": [
                    {"peer": up.addr(), "cause": "keepalive_race", "status": 502, "reused": true,
                     "errno": errno},
                    {"peer": up.addr(), "cause": null, "status": 200},
                ],
            }),
        )
        .in_header(&response);
        // It is not repeated if it may have had an effect.
        let response = nginx.request(POST.as_bytes());
        assert_eq!(response.status, 502);
        diag::seen(&nginx, 1).expect(
            "keepalive_race",
            &json!({"method": "POST", "outcome": "failed",
                    "attempts": [{"peer": up.addr(), "reused": true, "errno": errno}]}),
        );
        diag::finish(&nginx);
    }
}

/// Guards against a group of many dead servers costing more than it is worth, or its last
/// attempts being shown as good: what is kept of each is bounded, that it failed is not.
#[test]
fn very_many_attempts() {
    const COUNT: usize = 400;
    let dead: Vec<RefusedPort> = (0..COUNT).map(|_| t::refused_port()).collect();
    let servers: String =
        dead.iter().map(|dead| format!("server {} max_fails=0;", dead.addr())).collect();
    let nginx = Nginx::start(
        diag::conf("location / { proxy_pass http://u; }")
            .http(format!("upstream u {{ {servers} }}")),
    );
    // The response's header, with a value for each, is of no interest.
    let mut client = nginx.connect();
    client.send(GET.as_bytes()).expect("sent");
    let seen = diag::seen(&nginx, 0);
    seen.expect("connection_refused", &json!({"status": 502, "outcome": "failed"}));
    let attempts = seen.record["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), COUNT);
    let peers: std::collections::BTreeSet<_> =
        attempts.iter().map(|a| a["peer"].as_str()).collect();
    assert_eq!(peers.len(), COUNT);
    let good: Vec<usize> = (0..COUNT).filter(|n| attempts[*n]["cause"].is_null()).collect();
    assert_eq!(good, [0; 0], "attempts that failed and have no cause");
    diag::finish(&nginx);
}

/// Guards against a backup, or a server that comes in for one that is out, being taken for the
/// one that failed.
#[test]
fn backups() {
    let peers = Peers::new();
    let servers = format!(
        "server {} max_fails=1; server {} backup;",
        peers.dead[0].addr(),
        peers.good.addr()
    );
    let nginx = Nginx::start(
        diag::conf("location / { proxy_pass http://u; }")
            .http(format!("upstream u {{ {servers} }}")),
    );
    assert_eq!(nginx.get("/").text(), "good");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({"outcome": "masked", "attempts": [
            {"peer": peers.dead[0].addr(), "status": 502,
             "peer_state": {"state": "unavailable", "backup": false}},
            {"peer": peers.good.addr(), "cause": null, "status": 200},
        ]}),
    );
    // It is out by now: only the backup is asked.
    assert_eq!(nginx.get("/").text(), "good");
    let lines = nginx.wait_json_lines("access.log", 2);
    assert_eq!(lines[1]["addr"], peers.good.addr());
    assert_eq!(nginx.lines("diag.json").len(), 1);
    diag::finish(&nginx);
}
