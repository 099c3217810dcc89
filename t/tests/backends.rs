//! Servers that people have behind nginx, failing in the ways they are known for. Each test says
//! what the operator is to be told, and looks whether the summary and the advice do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "backends/distance.rs"]
mod distance;
#[path = "backends/gunicorn.rs"]
mod gunicorn;
#[path = "backends/node.rs"]
mod node;
#[path = "backends/php.rs"]
mod php;
#[path = "backends/tls.rs"]
mod tls;
#[path = "backends/uwsgi.rs"]
mod uwsgi;

use std::thread::sleep;
use std::time::{Duration, Instant};

use t::diag::{Seen, assert_in};
use t::{Client, Nginx, Response};

/// How long something may take that takes no time.
const SOON: Duration = Duration::from_secs(5);

/// How long a server may take to give up a request or a connection.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a request on a connection of its own, to read the response later.
fn ask(nginx: &Nginx, method: &str, path: &str) -> Client {
    ask_with(nginx, method, path, "")
}

fn ask_with(nginx: &Nginx, method: &str, path: &str, body: &str) -> Client {
    let mut client = nginx.connect();
    client.set_timeout(PATIENCE);
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    client.send(request.as_bytes()).expect("sent");
    client
}

/// Has these many requests given up by a server; returns when the first was sent. They are sent one
/// after the other, so that they are not of one age when the server next looks at its clock.
fn give_up(nginx: &Nginx, requests: usize) -> Instant {
    let sent = Instant::now();
    let mut asked = Vec::new();
    for _ in 0..requests {
        asked.push(ask(nginx, "GET", "/stuck"));
        sleep(Duration::from_millis(120));
    }
    for client in &mut asked {
        assert_eq!(answer(client).status, 502);
    }
    sent
}

fn answer(asked: &mut Client) -> Response {
    asked.read_response(false).expect("a response")
}

/// Checks that these words are in what the operator reads first.
fn told(seen: &Seen, summary: &[&str], advice: &[&str]) {
    for (name, wanted) in [("summary", summary), ("advice", advice)] {
        let text = seen.variable(name);
        for words in wanted {
            assert!(text.contains(words), "no {words:?} in the {name}: {text}");
        }
    }
}

/// The same of a request that a server gave up. That it is a timeout is told from several on, or
/// where all were given up in one look, not at all: until then by what it can be.
fn told_of_timeout(seen: &Seen, summary: &[&str]) {
    let timeout = "Raise the upstream's own timeout of";
    let known = seen.variable("advice").starts_with(timeout);
    told(seen, summary, &[if known { timeout } else { "a timeout of its own" }]);
}

/// Checks how old requests were when they failed: at least so many seconds, and no more than have
/// passed since they were sent.
fn expect_age(seen: &Seen, least: f64, sent: Instant) {
    let attempt = seen.attempt(0);
    // nginx's clock stands still while it works.
    let possible = least..sent.elapsed().as_secs_f64() + 0.1;
    assert_in(&attempt["elapsed"], possible.clone());
    // Only TCP says when it last sent something. What is sent to a unix socket is sent at once.
    if !attempt["peer"].as_str().is_some_and(|peer| peer.starts_with("unix:")) {
        assert_in(&attempt["tcp"]["since_sent"], possible);
    }
}
