//! `ejected_healthy`: a close of one reused connection takes a peer out.

use serde_json::json;
use t::script::{self, End};
use t::{Nginx, Upstream, diag};

use crate::idle::{POST, Server, age_of_race, closes};
use crate::{Ages, keepalive, pass};

/// How often a race is tried to be made: one that takes longer than the network does, on a machine
/// that has other things to do, is none.
const TRIES: usize = 6;

/// Closes at one age: enough for a timeout to be likely.
const CLOSES: usize = 6;

/// Keeps a connection to the first of these servers, and has it closed when it is used again, which
/// nginx does not repeat.
fn race(nginx: &Nginx) -> diag::Seen {
    let asked = nginx.get("/");
    assert_eq!(asked.text(), "first");
    assert_eq!(nginx.request(POST.as_bytes()).status, 502);
    diag::seen(nginx, 0)
}

/// Another server of the group, which is asked only if the first is out.
fn backup() -> Upstream {
    Upstream::tcp(script::close_at_once())
}

/// Guards against a server that works being out for ten seconds, and nobody who says why. The next
/// request finds nobody, and is to say it too.
#[test]
fn out_for_one_close() {
    for _ in 0..TRIES {
        let up = Upstream::tcp(script::keepalive_then_close_on_next(End::Fin));
        let backup = backup();
        let (addr, other) = (up.addr(), backup.addr());
        let nginx = Nginx::start(keepalive(&format!("server {addr}; server {other} backup;"), ""));
        let seen = race(&nginx);
        seen.expect(
            "keepalive_race",
            &json!({"outcome": "failed", "attempts": [
                {"peer": addr, "peer_state": {"state": "unavailable"}},
            ]}),
        );
        if age_of_race(&seen).is_none() {
            seen.is_silent("ejected_healthy");
            continue;
        }
        seen.finds(
            "ejected_healthy",
            "possible",
            &format!("nginx took {addr} out for 10 s because one reused connection was closed (max_fails=1), although its last good answer was <last_ok> ago."),
            &json!({"peer": addr, "max_fails": 1, "fail_timeout": 10, "last_ok": [0.0, 5.0]}),
        );
        seen.advises(
            "ejected_healthy",
            "Set keepalive_timeout in upstream \"u\" below the upstream's own keep-alive timeout; until then set max_fails=3 for its servers, so that one close takes none of them out.",
        );

        // Takes the other one out, and then there is none.
        assert_eq!(nginx.request(POST.as_bytes()).status, 502);
        diag::seen(&nginx, 1).expect("closed_before_response", &json!({}));
        assert_eq!(nginx.get("/").status, 502);
        let seen = diag::seen(&nginx, 2);
        seen.expect("no_live_upstreams", &json!({})).finds(
            "ejected_healthy",
            "possible",
            &format!("nginx took {addr} out because a reused connection was closed, which need not be a failure."),
            &json!({"peers": [addr], "ejected": 1}),
        );
        seen.advises(
            "ejected_healthy",
            "Set keepalive_timeout in upstream \"u\" below the upstream's own: the failures just before were closes of idle connections. Until then set max_fails=3 for its servers.",
        );
        diag::finish(&nginx);
        return;
    }
    panic!("no race in {TRIES} tries");
}

/// Guards against a guess where more is known: all the closes before had one age, so that it was the
/// server's timeout that took it out. History is kept when the configuration changes.
#[test]
fn out_for_its_timeout() {
    let done = (0..TRIES).any(|_| {
        let (server, backup) = (Server::new(), backup());
        let (addr, other) = (server.up.addr(), backup.addr());
        let conf = |max_fails| {
            let servers = format!("server {addr} max_fails={max_fails}; server {other} backup;");
            keepalive(&servers, "")
        };
        let nginx = Nginx::start(conf(0));
        server.keep(&nginx, CLOSES);
        pass(1_000);
        let mut ages = Ages::default();
        for n in 0..CLOSES {
            let seen = closes(&nginx, n);
            seen.is_silent("ejected_healthy");
            age_of_race(&seen).into_iter().for_each(|age| ages.add(age));
        }
        nginx.reload_with(conf(1));
        server.keep(&nginx, 1);
        pass(1_000);
        let seen = closes(&nginx, CLOSES);
        age_of_race(&seen).into_iter().for_each(|age| ages.add(age));
        let known = ages.count() == CLOSES + 1 && ages.are_within(95);
        if known {
            seen.finds(
                "ejected_healthy",
                "likely",
                &format!("nginx took {addr} out for 10 s because one reused connection was closed (max_fails=1), although its last good answer was <last_ok> ago."),
                &json!({"peer": addr, "max_fails": 1, "fail_timeout": 10, "last_ok": [1.0, 5.0]}),
            );
            // What to do about it is the stronger one's to say.
            assert_eq!(seen.codes()[..2], ["idle_timeout", "ejected_healthy"]);
            let advice = seen.variable("advice");
            assert!(advice.starts_with("Set keepalive_timeout 5"), "{advice}");
        }
        diag::finish(&nginx);
        known
    });
    assert!(done, "no {CLOSES} races of one age in {TRIES} tries");
}

/// Guards against the finding where nobody is out, or not for that: with more of `max_fails`, with
/// one server alone, after a failure before that.
#[test]
fn not_out_for_that() {
    let backup = backup();
    let other = backup.addr();
    for (parameters, more, state) in [
        ("max_fails=3", format!("server {other} backup;"), "up"),
        ("max_fails=0", format!("server {other} backup;"), "up"),
        ("max_fails=1", String::new(), "up"),
    ] {
        let up = Upstream::tcp(script::keepalive_then_close_on_next(End::Fin));
        let addr = up.addr();
        let nginx = Nginx::start(keepalive(&format!("server {addr} {parameters}; {more}"), ""));
        let seen = race(&nginx);
        seen.expect(
            "keepalive_race",
            &json!({"attempts": [
                {"peer": addr, "peer_state": {"state": state}},
            ]}),
        )
        .is_silent("ejected_healthy");
        diag::finish(&nginx);
    }

    // Out for a fresh connection that was closed.
    let up = Upstream::tcp(script::close_at_once());
    let servers = format!("server {}; server {other} down;", up.addr());
    let nginx = Nginx::start(keepalive(&servers, ""));
    assert_eq!(nginx.request(POST.as_bytes()).status, 502);
    diag::seen(&nginx, 0)
        .expect(
            "closed_before_response",
            &json!({"attempts": [
                {"peer_state": {"state": "unavailable"}},
            ]}),
        )
        .is_silent("ejected_healthy");
    assert_eq!(nginx.get("/").status, 502);
    diag::seen(&nginx, 1).expect("no_live_upstreams", &json!({})).is_silent("ejected_healthy");
    diag::finish(&nginx);
}
