//! `ejected_healthy`: a close of one reused connection takes a peer out.

use serde_json::json;
use t::script::{self, End};
use t::{Nginx, Upstream, diag};

use crate::idle::{POST, age_of_race};
use crate::keepalive;

/// How often a race is tried to be made: one that takes longer than the network does, on a machine
/// that has other things to do, is none.
const TRIES: usize = 10;

/// Keeps a connection to the first of these servers, and has it closed when it is used again, which
/// nginx does not repeat.
fn race(nginx: &Nginx) -> diag::Seen {
    let asked = nginx.get("/");
    assert_eq!(asked.text(), "first");
    assert_eq!(nginx.request(POST.as_bytes()).status, 502);
    let n = nginx.json_log("diag.json").len().max(1) - 1;
    diag::seen(nginx, n)
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
            &format!("nginx took {addr} out for 10 s because one reused connection was closed (max_fails=1), though it had answered <last_ok> ago."),
            &json!({"peer": addr, "max_fails": 1, "fail_timeout": 10, "last_ok": [0.0, 5.0]}),
        );
        // The cause has advice enough.
        seen.advises(
            "ejected_healthy",
            "Set keepalive_timeout in the upstream block below the upstream's own keep-alive timeout, or raise the upstream's.",
        );

        // Takes the other one out, and then there is none.
        assert_eq!(nginx.request(POST.as_bytes()).status, 502);
        assert_eq!(nginx.get("/").status, 502);
        let seen = diag::seen(&nginx, 2);
        seen.expect("no_live_upstreams", &json!({})).finds(
            "ejected_healthy",
            "possible",
            &format!("nginx took {addr} out because reused connections were closed, which need not be a failure."),
            &json!({"peer": addr}),
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
