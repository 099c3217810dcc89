//! `idle_timeout`: connections that are closed when they are used again, all at one age.

use serde_json::json;
use t::{Client, Nginx, Upstream, diag, script};

use crate::{Ages, Together, keepalive, pass};

/// nginx does not repeat this one on another connection.
pub(crate) const POST: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";

/// Closes that make a timeout likely.
const LIKELY: usize = 6;

/// Keeps connections, and closes the one on which a POST comes.
pub(crate) struct Server {
    pub(crate) up: Upstream,
    together: Together,
}

impl Server {
    pub(crate) fn new() -> Self {
        let together = Together::default();
        let gates = together.clone();
        let up = Upstream::tcp(move |_, conn| {
            loop {
                // Before the request is seen, after which it may be opened.
                let gate = gates.gate();
                let request = conn.read_request();
                let get = request.is_some_and(|request| request.starts_with(b"GET"));
                if !get || !conn.wait(&gate) || !conn.write(script::response("good")) {
                    return;
                }
            }
        });
        Self { up, together }
    }

    fn nginx(&self) -> Nginx {
        Nginx::start(keepalive(&format!("server {};", self.up.addr()), ""))
    }

    /// Has so many connections kept.
    pub(crate) fn keep(&self, nginx: &Nginx, count: usize) {
        let asked = self.up.requests().len();
        let mut clients: Vec<Client> = (0..count).map(|_| nginx.connect()).collect();
        for client in &mut clients {
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        }
        self.up.wait_requests(asked + count);
        self.together.answer();
        for client in &mut clients {
            assert_eq!(client.read_response(false).expect("a response").text(), "good");
        }
    }
}

/// Uses a kept connection, which is closed; record `n` tells of it.
pub(crate) fn closes(nginx: &Nginx, n: usize) -> diag::Seen {
    assert_eq!(nginx.request(POST.as_bytes()).status, 502);
    let seen = diag::seen(nginx, n);
    seen.expect("keepalive_race", &json!({"method": "POST", "outcome": "failed"}));
    seen
}

/// The age of the connection if the close came as soon after the request as it does by a timer, else
/// none: on a machine that has other things to do, the script may be late.
pub(crate) fn age_of_race(seen: &diag::Seen) -> Option<f64> {
    let time = |name: &str| seen.attempt(0)["tcp"][name].as_f64().expect("a time");
    let soon = 0.020 + 3.0 * (time("rtt") * 1000.0).floor() / 1000.0;
    (time("since_sent") <= soon).then(|| time("idle") - time("since_sent"))
}

/// Guards against 502s that come now and then being laid to a server that works: it closes
/// connections that were idle for 2 s. Two of that age can be chance; so can more that are closed
/// for another reason.
#[test]
fn closed_at_one_age() {
    // Once is enough if the machine has nothing else to do.
    assert!((0..5).any(|_| is_told()), "the ages of closes were not near to each other");
}

/// Whether enough closes were on time, and of one age.
fn is_told() -> bool {
    let server = Server::new();
    let (nginx, addr) = (server.nginx(), server.up.addr());
    let (mut ages, mut late) = (Ages::default(), 0);
    let kept = LIKELY + 2;
    server.keep(&nginx, kept);
    pass(2_000);
    for n in 0..kept {
        let seen = closes(&nginx, n);
        let Some(age) = age_of_race(&seen) else {
            seen.is_silent("idle_timeout");
            late += 1;
            continue;
        };
        ages.add(age);
        let count = ages.count();
        if count < 3 {
            seen.is_silent("idle_timeout");
        } else if count < LIKELY && ages.are_within(95) {
            expect(&seen, &addr, &ages, false);
        } else if count == LIKELY && late * 2 <= count && ages.are_within(240) {
            // Many do not have to be as near to each other as a few.
            expect(&seen, &addr, &ages, true);
            diag::finish(&nginx);
            return true;
        }
    }
    nginx.stop();
    false
}

fn expect(seen: &diag::Seen, addr: &str, ages: &Ages, likely: bool) {
    let (confidence, is) = if likely { ("likely", "is") } else { ("possible", "may be") };
    let count = ages.count();
    let (at, timeout) = ages.words();
    // A busy machine asks late.
    let set = format!("{}s", (ages.0.iter().min().expect("ages") - 200) / 1000);
    seen.finds(
        "idle_timeout",
        confidence,
        &format!("{count} of {count} closes of reused connections happened {at} s after the last response: the keep-alive timeout of {addr} {is} {timeout}, and nginx keeps idle connections for 60 s."),
        &json!({
            "age": [1.9, 3.0], "from": [1.9, 3.0], "to": [1.9, 3.0], "at_age": count,
            "closes": count, "latest": count, "latest_at_age": count, "keepalive_timeout": 60.0,
            "set": set,
        }),
    );
    seen.advises(
        "idle_timeout",
        &format!("Set keepalive_timeout {set} in upstream \"u\", or raise the backend's."),
    );
    let clause = format!(
        "; {count} of {count} closes of reused connections happened at {at} s: its keep-alive timeout {is} {timeout}."
    );
    assert!(seen.variable("summary").ends_with(&clause), "{}", seen.variable("summary"));
}

/// Guards against a server that crashes now and then being told to have a timeout, as every
/// connection has some age when its process ends.
#[test]
fn closed_at_any_age() {
    let server = Server::new();
    let nginx = server.nginx();
    let pauses = [1_000, 400, 500, 600, 800];
    server.keep(&nginx, pauses.len());
    for (n, pause) in pauses.into_iter().enumerate() {
        pass(pause);
        closes(&nginx, n).is_silent("idle_timeout");
    }
    diag::finish(&nginx);
}

/// Guards against closes on a busy server, where all connections are young, being told as those of a
/// timeout.
#[test]
fn closed_when_young() {
    let server = Server::new();
    let nginx = server.nginx();
    server.keep(&nginx, 8);
    pass(300);
    for n in 0..8 {
        closes(&nginx, n).is_silent("idle_timeout");
    }
    diag::finish(&nginx);
}

/// Guards against a timeout of 1 s being told of a server that kept another connection for twice as
/// long.
#[test]
fn others_were_kept_for_longer() {
    let server = Server::new();
    let nginx = server.nginx();
    server.keep(&nginx, 1);
    pass(2_000);
    // Alone: what is answered before it hides for how long it was kept.
    server.keep(&nginx, 1);
    assert_eq!(server.up.connections(), 1);
    server.keep(&nginx, 8);
    pass(1_000);
    for n in 0..8 {
        closes(&nginx, n).is_silent("idle_timeout");
    }
    diag::finish(&nginx);
}
