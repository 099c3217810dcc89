//! `request_timeout`: connections that are closed when a request has taken a certain time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use t::{Client, Conn, Gate, Nginx, Upstream, diag, span};

use crate::{Ages, group, pass};

/// Closes that make a timeout likely.
const LIKELY: usize = 6;

/// What takes longer than one event takes, and so is another.
const APART: u64 = 120;

/// Closes a connection after as many milliseconds as the path says.
fn script(_: usize, conn: &mut Conn) {
    let Some(request) = conn.read_request() else { return };
    let line = String::from_utf8_lossy(&request[..20]).into_owned();
    let path = line.split(' ').nth(1).expect("a path");
    conn.pause(Duration::from_millis(path[1..].parse().expect("a number")));
}

fn ask(nginx: &Nginx, path: &str) -> Client {
    let mut client = nginx.connect();
    client.send(format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    client
}

fn failed(client: &mut Client, status: u16) {
    assert_eq!(client.read_response(false).expect("a response").status, status);
}

fn age(seen: &diag::Seen) -> f64 {
    let attempt = seen.attempt(0);
    // Of a unix socket only nginx's own clock tells.
    let tcp = attempt["tcp"]["since_sent"].as_f64();
    tcp.or(attempt["elapsed"].as_f64()).expect("a time")
}

/// Guards against requests that a server gives up after 1.5 s being laid to crashes. A few of them
/// are no rule.
#[test]
fn given_up_at_one_age() {
    // Once is enough if the machine has nothing else to do.
    let done = (0..4).any(|_| gives_up(&Upstream::tcp(script)));
    assert!(done, "the ages of closes were not near to each other");
}

/// Guards against the same on a unix socket, of which the kernel tells no times, being told as if
/// nothing were known.
#[test]
fn given_up_on_a_socket() {
    let done = (0..4).any(|_| {
        let dir = t::temp_dir();
        gives_up(&Upstream::unix(dir.path().join("up.sock"), script))
    });
    assert!(done, "the ages of closes were not near to each other");
}

/// Guards against times that are not those of the server: a body that is larger than what a socket
/// takes at once can have waited for the server, and nginx's clock does not tell from when on.
#[test]
fn sent_piece_by_piece() {
    let dir = t::temp_dir();
    let up = Upstream::unix(dir.path().join("up.sock"), script);
    let nginx = Nginx::start(group(&format!("server {};", up.addr()), ""));
    let body = "b".repeat(200_000);
    let request =
        format!("POST /1200 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut asked = Vec::new();
    for _ in 0..LIKELY {
        let mut client = nginx.connect();
        client.send(request.as_bytes()).expect("sent");
        asked.push(client);
        pass(APART);
    }
    asked.iter_mut().for_each(|client| failed(client, 502));
    for n in 0..LIKELY {
        diag::seen(&nginx, n).is_silent("request_timeout");
    }
    diag::finish(&nginx);
}

/// Whether the ages were as near to each other as it takes.
fn gives_up(up: &Upstream) -> bool {
    let addr = up.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    let mut asked = Vec::new();
    for _ in 0..LIKELY {
        asked.push(ask(&nginx, "1500"));
        pass(APART);
    }
    asked.iter_mut().for_each(|client| failed(client, 502));
    let mut ages = Ages::default();
    for n in 0..LIKELY {
        let seen = diag::seen(&nginx, n);
        seen.expect("closed_before_response", &json!({"outcome": "failed"}));
        ages.add(age(&seen));
        if ages.count() < 4 {
            seen.is_silent("request_timeout");
        } else if ages.are_within(95) {
            expect(&seen, &addr, &ages, n + 1 == LIKELY);
        }
    }
    diag::finish(&nginx);
    ages.are_within(95)
}

fn expect(seen: &diag::Seen, addr: &str, ages: &Ages, likely: bool) {
    let (confidence, has) = if likely { ("likely", "has") } else { ("possible", "may have") };
    let count = ages.count();
    let (at, timeout) = ages.words();
    seen.finds(
        "request_timeout",
        confidence,
        &format!("{count} of {count} closes without a response happened {at} s after the request was sent: {addr} {has} a timeout of {timeout} for requests."),
        &json!({
            "age": [1.4, 2.0], "from": [1.4, 2.0], "to": [1.4, 2.0], "at_age": count,
            "closes": count, "latest": count, "latest_at_age": count,
        }),
    );
    seen.advises(
        "request_timeout",
        &format!("Raise the upstream's own timeout of {timeout} (a write timeout, or one of the supervisor that kills workers), or find what takes a request so long."),
    );
    let clause = format!(
        "; {count} of {count} closes without a response happened at {at} s: it {has} a timeout of {timeout} for requests."
    );
    assert!(seen.variable("summary").ends_with(&clause), "{}", seen.variable("summary"));
}

/// A server that holds requests until it is told to close them, and nginx with so many of them, each
/// some time after the one before.
struct Held {
    _up: Upstream,
    addr: String,
    nginx: Nginx,
    gates: Vec<Gate>,
    asked: Vec<Client>,
}

impl Held {
    fn new(count: usize) -> Self {
        let gates: Vec<Gate> = (0..count).map(|_| Gate::new()).collect();
        let up = {
            let gates = gates.clone();
            Upstream::tcp(move |index, conn| {
                let _ = conn.read_request();
                conn.wait(&gates[index]);
            })
        };
        let nginx = Nginx::start(group(&format!("server {};", up.addr()), ""));
        let mut asked = Vec::new();
        for n in 0..count {
            asked.push(ask(&nginx, ""));
            up.wait_requests(n + 1);
            pass(APART);
        }
        Self { addr: up.addr(), _up: up, nginx, gates, asked }
    }

    /// Closes these at once; whether that was so soon that it is one event.
    fn close(&mut self, which: std::ops::Range<usize>) -> bool {
        let began = Instant::now();
        self.gates[which.clone()].iter().for_each(Gate::open);
        self.asked[which].iter_mut().for_each(|client| failed(client, 502));
        began.elapsed() < Duration::from_millis(90)
    }
}

/// Guards against a supervisor that looks once a second, as gunicorn's and uWSGI's do, being taken
/// for crashes: it closes at ages that are spread, and what shows it is that it closes the oldest.
#[test]
fn given_up_by_a_supervisor() {
    // Once is enough if the machine has nothing else to do.
    assert!((0..6).any(|_| supervisor_closes()), "the ages of closes were too far apart");
}

/// Whether the looks came in time, and the ages were as near to each other as it takes.
fn supervisor_closes() -> bool {
    const COUNT: usize = 8;
    let mut held = Held::new(COUNT);
    // The first is older than a second by 0.3 s now, the fourth is not yet.
    pass(340);
    let look = Instant::now();
    let mut near = held.close(0..3);
    sleep(Duration::from_secs(1).saturating_sub(look.elapsed()));
    near &= look.elapsed() < Duration::from_millis(1_100);
    near &= held.close(3..COUNT);
    let ages: Vec<f64> = (0..COUNT).map(|n| age(&diag::seen(&held.nginx, n))).collect();
    let least = ages.iter().copied().fold(f64::MAX, f64::min);
    let most = ages.iter().copied().fold(0.0, f64::max);
    near &= least >= 0.91 && most - least < 1.1;
    if near {
        for n in 0..3 {
            diag::seen(&held.nginx, n).is_silent("request_timeout");
        }
        let seen = diag::seen(&held.nginx, COUNT - 1);
        let evidence = &seen.finding("request_timeout")["evidence"];
        let [from, to] = ["from", "to"].map(|end| span(&evidence[end]));
        // "0.97 s", where it is below one.
        let from = from.strip_suffix(" s").expect("seconds").to_owned();
        seen.finds(
            "request_timeout",
            "likely",
            &format!("8 of 8 closes without a response happened {from} to {to} after the request was sent: {} has a timeout of about 1 s for requests, which it checks only once in a while.", held.addr),
            &json!({
                "age": [0.9, 3.0], "from": least, "to": most, "at_age": COUNT, "closes": COUNT,
                "latest": 6, "latest_at_age": 6,
            }),
        );
        seen.advises(
            "request_timeout",
            "Raise the upstream's own timeout of about 1 s (a write timeout, or one of the supervisor that kills workers), or find what takes a request so long.",
        );
        let clause = format!(
            "; 8 of 8 closes without a response happened {from} to {to}: it has a timeout of about 1 s for requests."
        );
        assert!(seen.variable("summary").ends_with(&clause), "{}", seen.variable("summary"));
    }
    diag::finish(&held.nginx);
    near
}

/// Guards against ages that are as near to each other being enough for that: here younger requests
/// are closed while older ones live on.
#[test]
fn younger_ones_first() {
    const COUNT: usize = 8;
    let mut held = Held::new(COUNT);
    pass(950);
    held.close(5..COUNT);
    pass(200);
    held.close(0..5);
    for n in 0..COUNT {
        diag::seen(&held.nginx, n).is_silent("request_timeout");
    }
    diag::finish(&held.nginx);
}

/// Guards against requests that crash, each after some work of its own, being told as given up.
#[test]
fn given_up_at_any_age() {
    let up = Upstream::tcp(script);
    let nginx = Nginx::start(group(&format!("server {};", up.addr()), ""));
    let paths = ["1000", "1300", "1650", "2100", "2600", "3200"];
    let mut asked = paths.map(|path| ask(&nginx, path));
    asked.iter_mut().for_each(|client| failed(client, 502));
    for n in 0..paths.len() {
        diag::seen(&nginx, n).is_silent("request_timeout");
    }
    diag::finish(&nginx);
}

/// Guards against the end of a process being told as a timeout: it closes all its requests at one
/// time, and those that came together have one age.
#[test]
fn process_ends() {
    const COUNT: usize = 12;
    let gate = Gate::new();
    let up = {
        let gate = gate.clone();
        Upstream::tcp(move |_, conn| {
            let _ = conn.read_request();
            conn.wait(&gate);
        })
    };
    let nginx = Nginx::start(group(&format!("server {};", up.addr()), ""));
    let mut asked: Vec<Client> = (0..COUNT).map(|_| ask(&nginx, "")).collect();
    up.wait_requests(COUNT);
    pass(1_000);
    gate.open();
    asked.iter_mut().for_each(|client| failed(client, 502));
    for n in 0..COUNT {
        let seen = diag::seen(&nginx, n);
        seen.expect("closed_before_response", &json!({})).is_silent("request_timeout");
    }
    diag::finish(&nginx);
}

/// Guards against nginx's own timeout being told as one of the upstream's.
#[test]
fn given_up_by_nginx() {
    const COUNT: usize = 8;
    let up = Upstream::tcp(t::script::silent());
    let conf = group(&format!("server {};", up.addr()), "proxy_read_timeout 1s;");
    let nginx = Nginx::start(conf);
    let mut asked = Vec::new();
    for _ in 0..COUNT {
        asked.push(ask(&nginx, ""));
        pass(APART);
    }
    asked.iter_mut().for_each(|client| failed(client, 504));
    for n in 0..COUNT {
        let seen = diag::seen(&nginx, n);
        seen.expect("response_timed_out", &json!({})).is_silent("request_timeout");
        let summary = seen.variable("summary");
        let host = " s, though its host has received the whole request.";
        assert!(summary.ends_with(host), "{summary}");
    }
    diag::finish(&nginx);
}
