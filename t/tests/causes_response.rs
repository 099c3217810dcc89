//! Each cause of the phase "header", in front of upstreams that fail that way.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, Seen, assert_in};
use t::script::{self, End};
use t::{Conf, Nginx, Upstream};

/// A proxy in front of these servers, which speaks HTTP/1.1 and keeps connections.
fn proxy(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }")
        .http(format!("upstream u {{ {servers} keepalive 4; }}"))
        .http("proxy_http_version 1.1; proxy_set_header Connection '';")
}

/// One request in which `up` fails on a fresh connection after the request was sent, with this in
/// the record.
fn fails(up: &Upstream, conf: Conf, cause: &str, rest: &Value) -> Seen {
    let nginx = Nginx::start(conf);
    let response = nginx.get("/");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        cause,
        &json!({
            "phase": "header", "outcome": "failed", "origin": "nginx", "peers": null,
            "attempts": [{"peer": up.addr(), "cause": cause, "phase": "header", "reused": false,
                          "peer_state": {"state": "up"}}],
        }),
    )
    .expect(cause, rest)
    .in_header(&response);
    let attempt = seen.attempt(0);
    assert_eq!(attempt["bytes_sent"], up.requests().first().map_or(0, Vec::len), "{attempt:#}");
    assert_eq!(attempt["tcp"].is_null(), up.port() == 0, "{attempt:#}");
    assert_in(&attempt["connect_time"], 0.0..5.0);
    assert_eq!((u64::from(response.status), up.connections()), (status(&seen), 1));
    assert_eq!(seen.variable("addr"), up.addr());
    diag::finish(&nginx);
    seen
}

fn status(seen: &Seen) -> u64 {
    seen.record["status"].as_u64().unwrap_or(0)
}

/// The same script behind TCP, IPv6 and a unix socket.
fn everywhere<S: Fn(usize, &mut t::Conn) + Send + Sync + 'static>(
    script: impl Fn() -> S,
    test: impl Fn(&Upstream),
) {
    let dir = t::temp_dir();
    test(&Upstream::tcp(script()));
    test(&Upstream::tcp6(script()));
    test(&Upstream::unix(dir.path().join("up.sock"), script()));
}

/// Guards against a fresh connection that is closed being taken for a reused one, or for a reset.
#[test]
fn closed_before_response() {
    everywhere(script::close_at_once, |up| {
        fails(
            up,
            proxy(&format!("server {};", up.addr())),
            "closed_before_response",
            &json!({
                "status": 502, "proxy_error": "connection_terminated",
                "attempts": [{"status": 502, "errno": null, "errname": null, "header": null,
                              "bytes_received": 0,
                              "message": "upstream prematurely closed connection"}],
            }),
        );
    });
}

/// Guards against a part of a header being reported as a whole one, or as none.
#[test]
fn closed_in_header() {
    const PART: &str = "HTTP/1.1 200 OK\r\nContent-Ty";
    everywhere(script::partial_header_then_close, |up| {
        let seen = fails(
            up,
            proxy(&format!("server {};", up.addr())).http("proxy_buffer_size 8k;"),
            "closed_in_header",
            &json!({
                "status": 502, "proxy_error": "http_response_incomplete",
                "attempts": [{
                    "status": 502, "errno": null, "bytes_received": PART.len(),
                    "header": {"size": PART.len(), "exact": false, "limit": 8192},
                    "message": "upstream prematurely closed connection",
                }],
            }),
        );
        assert!(seen.variable("summary").contains(&format!("after {} bytes", PART.len())));
    });
}

/// Guards against a reset being taken for a close, and against the bytes before it being lost.
#[test]
fn connection_reset() {
    const RESET: &str = "recv() failed (104: Connection reset by peer)";
    let reset = json!({
        "status": 502, "proxy_error": "connection_terminated",
        "attempts": [{"status": 502, "errno": 104, "errname": "ECONNRESET", "header": null,
                      "bytes_received": 0, "message": RESET}],
    });
    let tcp = Upstream::tcp(script::reset_at_once());
    fails(&tcp, proxy(&format!("server {};", tcp.addr())), "connection_reset", &reset);
    let dir = t::temp_dir();
    let unix = Upstream::unix(dir.path().join("up.sock"), |_, conn| {
        conn.wait_readable();
        conn.reset();
    });
    let nginx = Nginx::start(proxy(&format!("server {};", unix.addr())));
    nginx.get("/");
    diag::seen(&nginx, 0)
        .expect("connection_reset", &reset)
        .expect("connection_reset", &json!({"attempts": [{"tcp": null, "phase": "header"}]}));
    diag::finish(&nginx);

    let part = b"HTTP/1.1 200 OK\r\nX-";
    let cut = Upstream::tcp(move |_, conn| {
        conn.read_request();
        conn.write(part);
        conn.reset();
    });
    fails(
        &cut,
        proxy(&format!("server {};", cut.addr())),
        "connection_reset",
        &json!({
            "status": 502,
            "attempts": [{
                "errno": 104, "errname": "ECONNRESET", "message": RESET,
                "bytes_received": part.len(), "header": {"size": part.len(), "exact": false},
            }],
        }),
    );
}

/// Guards against a connection that is closed on reuse being blamed on the upstream, and against
/// the attempt that followed it being lost.
#[test]
fn keepalive_race() {
    for (end, errno, message) in [
        (End::Fin, Value::Null, "upstream prematurely closed connection"),
        (End::Rst, 104.into(), "recv() failed (104: Connection reset by peer)"),
    ] {
        let race = json!({
            "cause": "keepalive_race", "phase": "header", "reused": true, "status": 502,
            "errno": errno, "message": message, "header": null, "bytes_received": 0,
        });
        for retried in [true, false] {
            let up = Upstream::tcp(script::keepalive_then_close_on_next(end));
            let next = if retried { "" } else { "proxy_next_upstream off;" };
            let nginx = Nginx::start(proxy(&format!("server {};", up.addr())).http(next));
            assert_eq!(nginx.get("/1").status, 200);
            let response = nginx.get("/2");
            let seen = diag::seen(&nginx, 0);
            let mut attempts = vec![race.clone()];
            if retried {
                attempts.push(json!({"cause": null, "phase": null, "status": 200}));
            }
            seen.expect(
                "keepalive_race",
                &json!({
                    "phase": "header", "outcome": if retried { "masked" } else { "failed" },
                    "status": if retried { 200 } else { 502 }, "origin": "nginx", "uri": "/2",
                    "proxy_error": "connection_terminated", "attempts": attempts,
                }),
            )
            .in_header(&response);
            assert_eq!(u64::from(response.status), status(&seen));
            let causes = if retried { "keepalive_race, -" } else { "keepalive_race" };
            assert_eq!(seen.variable("causes"), causes);
            let attempt = seen.attempt(0);
            assert_in(&attempt["tcp"]["idle"], 0.0..5.0);
            // Per request, not per connection.
            assert_eq!(attempt["bytes_sent"], up.requests()[0].len(), "{attempt:#}");
            assert_eq!(up.connections(), if retried { 2 } else { 1 });
            diag::finish(&nginx);
        }
    }
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

/// Guards against a size that is a guess: the exact one is in nginx's buffer and the kernel's.
#[test]
fn header_too_big() {
    everywhere(
        || script::big_header(9043),
        |up| {
            let seen = fails(
                up,
                proxy(&format!("server {};", up.addr())).http("proxy_buffer_size 4k;"),
                "header_too_big",
                &json!({
                    "status": 502, "proxy_error": "http_response_header_section_size",
                    "attempts": [{
                        "status": 502, "errno": null, "bytes_received": 4096,
                        "header": {"size": 9043, "exact": true, "limit": 4096,
                                   "directive": "proxy_buffer_size"},
                        "message": "upstream sent too big header",
                    }],
                }),
            );
            assert_eq!(seen.variable("header_size"), "9043");
            let advice = seen.variable("advice");
            assert!(advice.starts_with("Set proxy_buffer_size 12k; or "), "{advice}");
            assert!(seen.variable("summary").contains("9043 bytes"), "{seen:?}");
        },
    );
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
    let seen = fails(
        &up,
        proxy(&format!("server {};", up.addr())).http(cache).http("proxy_buffer_size 4k;"),
        "header_too_big",
        &json!({"attempts": [{"header": {"size": 9043, "exact": true,
                                         "directive": "proxy_buffer_size"}}]}),
    );
    assert_in(&seen.attempt(0)["header"]["limit"], 3500.0..4097.0);
    let summary = seen.variable("summary");
    let value = summary.split_once("proxy_buffer_size is ").map(|(_, rest)| rest);
    assert!(value.is_none_or(|value| value.starts_with("4096")), "{summary}");
}

/// Guards against a header whose end is not in sight being given an exact size.
#[test]
fn header_too_big_without_an_end() {
    let endless = format!("HTTP/1.1 200 OK\r\nX-Pad: {}", "p".repeat(5000));
    let size = endless.len();
    let up = Upstream::tcp(move |_, conn| {
        conn.read_request();
        conn.write(&endless);
        conn.wait_peer_close();
    });
    let seen = fails(
        &up,
        proxy(&format!("server {};", up.addr())).http("proxy_buffer_size 4k;"),
        "header_too_big",
        &json!({"status": 502,
                "attempts": [{"header": {"size": size, "exact": false, "limit": 4096}}]}),
    );
    assert!(seen.variable("summary").contains(&format!("at least {size} bytes")), "{seen:?}");
    assert!(seen.variable("advice").contains("to at least 8k"), "{seen:?}");
}

/// Guards against a silent upstream being taken for one that cannot be reached.
#[test]
fn response_timed_out() {
    everywhere(script::silent, |up| {
        let seen = fails(
            up,
            proxy(&format!("server {};", up.addr())).http("proxy_read_timeout 150ms;"),
            "response_timed_out",
            &json!({
                "status": 504, "proxy_error": "http_response_timeout",
                "attempts": [{
                    "status": 504, "errno": 110, "errname": "ETIMEDOUT", "header": null,
                    "bytes_received": 0,
                    "message": "upstream timed out (110: Connection timed out)",
                }],
            }),
        );
        let attempt = seen.attempt(0);
        assert_in(&attempt["elapsed"], 0.15..5.0);
        // The time to wait begins with the connection.
        let most = attempt["elapsed"].as_f64().unwrap_or_default() - 0.149;
        assert_in(&attempt["connect_time"], 0.0..most);
        if !attempt["tcp"].is_null() {
            assert_eq!(attempt["tcp"]["state"], "ESTABLISHED");
            assert_in(&attempt["tcp"]["since_sent"], 0.1..5.0);
        }
    });
}
