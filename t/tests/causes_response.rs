//! Evidence of the phase "header" that is measured, and advice that is taken. Its causes are rows
//! of `faults`.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::json;
use t::diag::{self, assert_in};
use t::script::{self, End};
use t::{Conf, Nginx, Upstream};

/// A proxy in front of these servers, which speaks HTTP/1.1 and keeps connections.
fn proxy(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }")
        .http(format!("upstream u {{ {servers} keepalive 4; }}"))
        .http("proxy_http_version 1.1; proxy_set_header Connection '';")
}

/// Guards against a connection's idle time being taken from another clock or another time: it
/// lies between what the client knows.
#[test]
fn keepalive_race_knows_the_idle_time() {
    let up = Upstream::tcp(script::keepalive_then_close_on_next(End::Fin));
    let nginx = Nginx::start(proxy(&format!("server {};", up.addr())));
    let asked = std::time::Instant::now();
    assert_eq!(nginx.get("/1").status, 200);
    let answered = std::time::Instant::now();
    // What is measured is time itself: nothing else could be waited for.
    std::thread::sleep(Duration::from_millis(300));
    let least = answered.elapsed().as_secs_f64();
    nginx.get("/2");
    let most = asked.elapsed().as_secs_f64();
    // The kernel counts in ticks of 10 ms at most.
    assert_in(&diag::seen(&nginx, 0).attempt(0)["tcp"]["idle"], least - 0.02..most + 0.02);
    diag::finish(&nginx);
}

/// Guards against advice that does not help: with the size it names, nginx accepts the header.
/// The cache takes a part of the buffer, and a header that fills it to the byte is too large.
#[test]
fn the_advice_on_a_big_header_works() {
    let cache = "proxy_cache_path {prefix}/tmp/cache keys_zone=c:1m; proxy_cache c;";
    for (size, http) in [
        (9043, ""),
        (4097, ""),
        (8191, ""),
        (8192, ""),
        (20_000, ""),
        (9043, cache),
        (4000, cache),
        (8100, cache),
        (12_200, cache),
    ] {
        let up = Upstream::tcp(script::big_header(size));
        let conf =
            |buffers: &str| proxy(&format!("server {};", up.addr())).http(http).http(buffers);
        let nginx = Nginx::start(conf("proxy_buffer_size 4k;"));
        assert_eq!(nginx.get("/").status, 502, "{size} {http}");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "header_too_big",
            &json!({"attempts": [{"header": {"size": size, "exact": true}}]}),
        );
        diag::finish(&nginx);
        let advice = seen.variable("advice");
        let directives: String = advice
            .split("; ")
            .filter_map(|part| part.strip_prefix("Set ").or(part.strip_prefix("with it ")))
            .flat_map(|directive| [directive, ";"])
            .collect();
        let nginx = Nginx::start(conf(&directives));
        assert_eq!(nginx.get("/").status, 200, "{size} {http}: {advice}");
        diag::finish(&nginx);
    }
}

/// Guards against a directive being given another value than it has, where the cache takes a part
/// of the buffer.
#[test]
fn header_too_big_with_a_cache() {
    let up = Upstream::tcp(script::big_header(9043));
    let cache = "proxy_cache_path {prefix}/tmp/cache keys_zone=c:1m; proxy_cache c;";
    let nginx = Nginx::start(
        proxy(&format!("server {};", up.addr())).http(cache).http("proxy_buffer_size 4k;"),
    );
    nginx.get("/");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "header_too_big",
        &json!({"attempts": [{"header": {"size": 9043, "exact": true,
                                         "directive": "proxy_buffer_size"}}]}),
    );
    diag::finish(&nginx);
    assert_in(&seen.attempt(0)["header"]["limit"], 3500.0..4097.0);
    let summary = seen.variable("summary");
    let value = summary.split_once("proxy_buffer_size is ").map(|(_, rest)| rest);
    assert!(value.is_none_or(|value| value.starts_with("4096")), "{summary}");
}
