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

use t::diag::{self, Seen, assert_in};
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
/// after the other, in as much time as passes between two looks of most servers at their clocks: so
/// not all are given up in one.
fn give_up(nginx: &Nginx, requests: usize) -> Instant {
    let sent = Instant::now();
    let mut asked = Vec::new();
    for _ in 0..requests {
        asked.push(ask(nginx, "GET", "/stuck"));
        sleep(Duration::from_millis(260));
    }
    for client in &mut asked {
        assert_eq!(answer(client).status, 502);
    }
    sent
}

/// How often requests are given up until that is told as a timeout. Of what a supervisor closes in
/// one look nothing shows that it closes what is too old; few rounds are within one.
const ROUNDS: usize = 4;

/// How often that begins anew: a look that came late, on a busy host, closes what is older and leaves
/// what is no younger, and what that tells is believed for some time.
const TIMES: usize = 4;

/// Has requests given up, round by round when the server is ready, until the operator is told that
/// it has a timeout for them, which is this one. Before that he is told that it may.
fn give_up_until_told(
    start: impl Fn() -> Nginx,
    requests: usize,
    which: &str,
    ready: impl Fn(usize),
    check: impl Fn(&Seen, Instant),
) {
    let mut ages = Vec::new();
    for time in 0..TIMES {
        let nginx = start();
        let mut known = false;
        for round in 0..ROUNDS {
            ready(time * ROUNDS + round);
            let sent = give_up(&nginx, requests);
            for n in round * requests..(round + 1) * requests {
                let seen = diag::seen(&nginx, n);
                check(&seen, sent);
                ages.push(seen.attempt(0)["elapsed"].as_f64().expect("a time"));
                if seen.codes().first() == Some(&"request_timeout") {
                    let likely = seen.finding("request_timeout")["confidence"] == "likely";
                    let has = if likely { "has" } else { "may have" };
                    told(
                        &seen,
                        &["closes without a response happened", &format!("it {has} a timeout of")],
                        &["Raise the upstream's own timeout of", which],
                    );
                    known |= likely;
                } else {
                    told(&seen, &[], &["in the upstream's log"]);
                }
            }
            if known {
                break;
            }
        }
        diag::finish(&nginx);
        if known {
            return;
        }
    }
    panic!("nobody is told of a timeout; ages: {ages:?}");
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
