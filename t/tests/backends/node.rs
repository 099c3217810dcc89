//! Node's http server. It closes a connection on which nothing has come for 5 s
//! (`server.keepAliveTimeout`), and nginx keeps such a connection for 60 s.

use std::fs;
use std::ops::Range;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use t::client::Addr;
use t::diag::{self, assert_in};
use t::ports::Reservation;
use t::{Backend, Client, Conf, Nginx, backend, eventually};

use crate::distance::Distance;
use crate::{SOON, answer, ask, told};

/// `server.keepAliveTimeout` unless it is set, in seconds; some newer versions wait for 1 s more
/// than they announce.
const KEEP_ALIVE: Range<f64> = 5.0..6.1;

/// How many connections are kept and closed: enough for their ages to be told from chance.
const RACES: usize = 12;

const ECONNRESET: i32 = 104;

fn node(port: &Reservation) -> Backend {
    let number = port.port().to_string();
    let files = [("server.js", include_str!("server.js"))];
    let node = Backend::start("node", &["server.js", &number, "{dir}/idle"], &files);
    node.wait_for("listening", 1);
    node
}

/// Keeps connections to these servers.
fn keepalive(addrs: &[String]) -> Conf {
    let servers: String = addrs.iter().map(|addr| format!("server {addr};")).collect();
    diag::conf(
        "location / { proxy_pass http://node; proxy_http_version 1.1;
                      proxy_set_header Connection ''; }",
    )
    .http(format!("upstream node {{ {servers} keepalive 32; keepalive_timeout 60s; }}"))
}

/// Connections that nginx keeps.
struct Kept {
    /// The server's address.
    addr: String,
    /// Nobody was asked before.
    since: Instant,
    /// For how many seconds the server keeps them.
    seconds: f64,
}

/// Has requests served at once, and thus as many connections kept.
fn keep(nginx: &Nginx, node: &Backend, addr: String) -> Kept {
    let since = Instant::now();
    let path = format!("/together/{RACES}");
    let mut asked = [(); RACES].map(|()| ask(nginx, "GET", &path));
    for client in &mut asked {
        assert_eq!(answer(client).text(), "good");
    }
    let said = node.wait_for("closes after", RACES).swap_remove(0);
    let (_, number) = said.rsplit_once(' ').expect("a number");
    let seconds = number.parse::<f64>().expect("a number") / 1000.0;
    assert_in(&seconds.into(), KEEP_ALIVE);
    Kept { addr, since, seconds }
}

/// Asks on each connection that is kept, by GET and by POST in turn.
fn ask_again(nginx: &Nginx) -> Vec<(Client, u16)> {
    let methods = [("GET", 200), ("POST", 502)].into_iter().cycle().take(RACES);
    methods.map(|(method, status)| (ask(nginx, method, "/"), status)).collect()
}

/// Checks the answers, and that each record tells of a race at that age, with these words.
fn expect_races(
    nginx: &Nginx,
    asked: Vec<(Client, u16)>,
    kept: &Kept,
    errno: Option<i32>,
    summary: &str,
) {
    for (mut client, status) in asked {
        assert_eq!(answer(&mut client).status, status);
    }
    let addr = &kept.addr;
    for n in 0..RACES {
        let seen = diag::seen(nginx, n);
        let failed = json!({
            "peer": addr, "cause": "keepalive_race", "phase": "header", "status": 502,
            "reused": true, "errno": errno, "bytes_received": 0,
            // nginx never takes the only server of a group out.
            "peer_state": {"state": "up"},
        });
        // What may change something is not sent twice.
        let (status, outcome, attempts) = match seen.record["method"].as_str() {
            Some("POST") => (502, "failed", json!([failed])),
            _ => (200, "masked", json!([failed, {"peer": addr, "cause": null, "status": 200}])),
        };
        seen.expect(
            "keepalive_race",
            &json!({"status": status, "outcome": outcome, "phase": "header", "upstream": "node",
                    "attempts": attempts}),
        );
        // Node's clock and the kernel's are read in steps of some milliseconds.
        let possible = kept.seconds - 0.1..kept.since.elapsed().as_secs_f64() + 0.1;
        assert_in(&seen.attempt(0)["tcp"]["idle"], possible);
        told(&seen, &[addr, summary], &[]);
    }
    assert_eq!(nginx.lines("diag.json").len(), RACES);
}

/// Guards against 502s that come now and then, and only to what nginx does not send twice, being
/// laid to a server that works. The operator is to be told that the server closes connections 5 s
/// after it was last asked, and that nginx has to be the first to do so.
#[test]
fn closes_what_nginx_keeps() {
    let port = Reservation::v4().expect("a port");
    let far = Distance::to(&port, RACES);
    let node = node(&port);
    let nginx = Nginx::start(keepalive(&[far.addr()]));
    let kept = keep(&nginx, &node, far.addr());
    far.wait_ends(RACES);
    let asked = ask_again(&nginx);
    far.arrive_after(2 * RACES);
    expect_races(&nginx, asked, &kept, None, "closed a reused connection");
    for n in 0..RACES {
        let seen = diag::seen(&nginx, n);
        told(&seen, &["s after its last response"], &["keepalive_timeout"]);
    }
    diag::finish(&nginx);
}

/// Guards against an operator who has to guess which timeout it is: nginx sees the same age again
/// and again. The operator is to be told the value to set, and the server's.
#[test]
fn is_told_its_timeout() {
    const LIKELY: usize = 6;
    let port = Reservation::v4().expect("a port");
    let far = Distance::to(&port, RACES);
    let node = node(&port);
    let addr = far.addr();
    let nginx = Nginx::start(keepalive(std::slice::from_ref(&addr)));
    let kept = keep(&nginx, &node, addr.clone());
    far.wait_ends(RACES);
    // Each request finds the server's end of the connection on its way.
    far.arrive_after(RACES);
    let seconds = kept.seconds.round();
    let (mut races, mut late, mut told_of) = (0, 0, 0);
    for n in 0..RACES {
        assert_eq!(answer(&mut ask(&nginx, "POST", "/")).status, 502);
        // Before the next one: a record tells of what its peer has done until it is written.
        let seen = diag::seen(&nginx, n);
        seen.expect("keepalive_race", &json!({"outcome": "failed"}));
        let time = |name: &str| seen.attempt(0)["tcp"][name].as_f64().expect("a time");
        let soon = 0.020 + 3.0 * (time("rtt") * 1000.0).floor() / 1000.0;
        // On a machine that has other things to do it can be late, and look like something else.
        if time("since_sent") > soon {
            late += 1;
            continue;
        }
        races += 1;
        if races < LIKELY || late * 2 > races {
            continue;
        }
        told_of += 1;
        let advice = format!(
            "Set keepalive_timeout {}s in upstream \"node\", or raise the backend's.",
            seconds - 1.0
        );
        told(&seen, &["its keep-alive timeout is "], &[&advice]);
        // What is seen is when nginx asked again, which is a little later.
        let timeout = seen.variable("summary").rsplit(' ').nth(1).expect("a number");
        let timeout: f64 = timeout.parse().expect("a number");
        assert_in(&timeout.into(), seconds..seconds + 0.3);
        let finding = seen.finding("idle_timeout");
        assert_eq!(finding["confidence"], "likely");
        let ends = format!(
            "the keep-alive timeout of {addr} is {timeout} s, and nginx keeps idle connections for 60 s."
        );
        assert!(finding["text"].as_str().expect("a text").ends_with(&ends), "{finding}");
        assert_eq!(finding["evidence"]["closes"], races, "{finding}");
        assert_in(&finding["evidence"]["age"], kept.seconds - 0.1..kept.seconds + 2.0);
    }
    assert!(told_of > 0, "{races} races of {RACES}");
    diag::finish(&nginx);
}

/// Guards against the same being taken for something else where work holds up the server's event
/// loop: when that comes to its timers, the requests wait in the sockets that it closes, which
/// resets them. The operator is to be told the same, in spite of the time they have waited.
#[test]
fn resets_what_it_had_no_time_to_read() {
    let port = Reservation::v4().expect("a port");
    let node = node(&port);
    let nginx = Nginx::start(keepalive(&[port.addr().to_string()]));
    let kept = keep(&nginx, &node, port.addr().to_string());
    let over = Instant::now() + Duration::from_secs_f64(kept.seconds);
    let mut busy = Client::connect(&Addr::Tcp(port.port())).expect("connected");
    busy.send(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    node.wait_for("busy", 1);
    // While the server still would serve them, had it nothing else to do.
    let wait = Duration::from_millis(300);
    sleep((over - wait).saturating_duration_since(Instant::now()));
    let asked = ask_again(&nginx);
    let all = || (unread(port.port()) == RACES).then_some(());
    eventually("requests in the sockets", SOON, all);
    sleep(wait.max(over.saturating_duration_since(Instant::now())));
    fs::write(node.path("idle"), "").expect("a file");
    expect_races(&nginx, asked, &kept, Some(ECONNRESET), "reset a reused connection");
    for n in 0..RACES {
        // That age is the server's own work, and no timeout's.
        diag::seen(&nginx, n).is_silent("idle_timeout").is_silent("request_timeout");
    }
    diag::finish(&nginx);
}

/// How many connections to this port hold what the server has not read.
fn unread(port: u16) -> usize {
    // Not from /proc/net/tcp, which takes its time where there are many connections.
    let args = ["-Htn", "state", "established", &format!("sport = :{port}")];
    let output = Command::new("ss").args(args).env("PATH", backend::path()).output();
    let text = String::from_utf8(output.expect("the package iproute2").stdout).expect("text");
    // The length of the receive queue comes first.
    let lengths = text.lines().filter_map(|line| line.split_whitespace().next());
    lengths.filter(|length| *length != "0").count()
}

/// Guards against a failure that nobody can follow: a close of each of two servers that work takes
/// both out for 10 s, and then there is none. The operator is to be told which closes took them
/// out.
#[test]
fn two_closes_leave_no_server() {
    let ports = [(); 2].map(|()| Reservation::v4().expect("a port"));
    let far = ports.each_ref().map(|port| Distance::to(port, 1));
    let _nodes = ports.each_ref().map(node);
    let addrs = far.each_ref().map(Distance::addr);
    let nginx = Nginx::start(keepalive(&addrs));
    for _ in &far {
        assert_eq!(nginx.get("/").text(), "good");
    }
    far.iter().for_each(|far| far.wait_ends(1));
    let closed = |addr: &str| {
        json!({
            "peer": addr, "cause": "keepalive_race", "reused": true, "status": 502,
            "history": {"ok": 1, "failed": 1},
            "peer_state": {"state": "unavailable", "fails": 1, "max_fails": 1, "fail_timeout": 10},
        })
    };
    let mut asked = ask(&nginx, "POST", "/");
    let has_it = |far: &Distance| far.network.requests().len() == 2;
    let first = eventually("the request", SOON, || far.iter().position(has_it));
    far[first].arrive_after(2);
    assert_eq!(answer(&mut asked).status, 502);
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "keepalive_race",
        &json!({"outcome": "failed", "attempts": [closed(&addrs[first])]}),
    );
    told(&seen, &["s after its last response"], &["keepalive_timeout"]);

    let mut asked = ask(&nginx, "GET", "/");
    far[1 - first].arrive_after(2);
    assert_eq!(answer(&mut asked).status, 502);
    let seen = diag::seen(&nginx, 1);
    let taken_out =
        addrs.each_ref().map(|addr| json!({"peer": addr, "last_cause": "keepalive_race"}));
    seen.expect(
        "no_live_upstreams",
        &json!({
            "outcome": "failed", "phase": "select", "status": 502, "peers": taken_out,
            "attempts": [closed(&addrs[1 - first]), {"peer": "node", "cause": "no_live_upstreams"}],
        }),
    );
    told(&seen, &["Upstream \"node\"", "taken out after failures"], &["the failures just before"]);
    let finding = seen.finding("ejected_healthy");
    assert_eq!(finding["confidence"], "possible");
    assert_eq!(
        finding["text"],
        format!(
            "nginx took {} and {} out because a reused connection of each was closed, which need not be a failure.",
            addrs[0], addrs[1]
        )
    );
    assert_eq!(finding["evidence"], json!({"peers": addrs, "ejected": 2}));
    diag::finish(&nginx);
}
