//! Responses from nginx's cache: errors that it holds, and those that it hides.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::json;
use t::diag;
use t::script;
use t::{Conf, Gate, Nginx, Upstream};

#[path = "cache/stale.rs"]
mod stale;

/// A caching server; the response says whether it came from there.
fn caching(server: &str) -> Conf {
    diag::conf(server).http(
        "proxy_cache_path {prefix}/cache keys_zone=c:1m; proxy_cache c;
         proxy_cache_key $uri; add_header X-Cache $upstream_cache_status always;",
    )
}

/// What a request was that nobody's attempt served.
const CACHED: &str = "cached_error";

/// Guards against an error from the cache being reported as a failure that just happened, or not
/// at all; and against the first request, which the error is from, losing its cause by being
/// cached.
#[test]
fn errors_are_cached() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let cut = Upstream::tcp(script::partial_header_then_close());
    let [own502, own503, own504] =
        [502, 503, 504].map(|status| Upstream::tcp(script::status(status)));
    // nginx keeps its own errors as nothing but a number, an upstream's as a response.
    for (addr, status, cause, outcome, body) in [
        (dead.addr(), 502, "connection_refused", "failed", "502 Bad Gateway"),
        (cut.addr(), 502, "closed_in_header", "failed", "502 Bad Gateway"),
        (silent.addr(), 504, "response_timed_out", "failed", "504 Gateway Time-out"),
        (own502.addr(), 502, "upstream_response", "passed", "scripted"),
        (own503.addr(), 503, "upstream_response", "passed", "scripted"),
        (own504.addr(), 504, "upstream_response", "passed", "scripted"),
    ] {
        let timeout = if addr == silent.addr() { "proxy_read_timeout 150ms;" } else { "" };
        let nginx = Nginx::start(caching(&format!(
            "location /l {{ {timeout} proxy_cache_valid 502 503 504 1m; proxy_pass http://{addr}; }}"
        )));
        let first = nginx.get("/l/first");
        assert_eq!((first.status, first.header("X-Cache")), (status, Some("MISS")), "{addr}");
        diag::seen(&nginx, 0)
            .expect(
                cause,
                &json!({"status": status, "outcome": outcome,
                        "attempts": [{"peer": addr, "status": status}]}),
            )
            .in_header(&first);
        for n in 1..3 {
            let again = nginx.get("/l/first?again");
            assert_eq!((again.status, again.header("X-Cache")), (status, Some("HIT")), "{addr}");
            assert!(again.text().contains(body), "{}", again.text());
            let seen = diag::seen(&nginx, n);
            seen.expect(
                CACHED,
                &json!({
                    "status": status, "outcome": "failed", "origin": "cache", "phase": null,
                    "uri": "/l/first", "location": "/l", "attempts": [], "peers": null,
                }),
            )
            .in_header(&again);
            assert_eq!(seen.variable("addr"), "");
        }
        diag::finish(&nginx);
    }
}

/// Guards against an error from the cache being taken for a failure of the attempts before it,
/// or hiding their number.
#[test]
fn errors_of_several_attempts_are_cached() {
    let dead = [(); 2].map(|()| t::refused_port());
    let nginx = Nginx::start(
        caching("location / { proxy_cache_valid 502 1m; proxy_pass http://u; }").http(format!(
            "upstream u {{ server {}; server {}; }}",
            dead[0].addr(),
            dead[1].addr()
        )),
    );
    assert_eq!(nginx.get("/").status, 502);
    let first = diag::seen(&nginx, 0);
    assert_eq!(first.variable("causes"), "connection_refused, connection_refused");
    assert_eq!(nginx.get("/").status, 502);
    diag::seen(&nginx, 1)
        .expect(CACHED, &json!({"origin": "cache", "outcome": "failed", "attempts": []}));
    // Another key: nobody is left.
    assert_eq!(nginx.get("/other").status, 502);
    diag::seen(&nginx, 2)
        .expect("no_live_upstreams", &json!({"attempts": [{"cause": "no_live_upstreams"}]}));
    diag::finish(&nginx);
}

/// Guards against an error page hiding where the error came from, or whose it was.
#[test]
fn cached_errors_behind_error_pages() {
    let dead = t::refused_port();
    let own = Upstream::tcp(script::status(502));
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(caching(&format!(
        "proxy_cache_valid 502 1m;
         location /kept {{ proxy_pass http://{dead}; error_page 502 @kept; }}
         location @kept {{ return 200 kept; }}
         location /masked {{ proxy_pass http://{dead}; error_page 502 =200 @masked; }}
         location @masked {{ return 200 masked; }}
         location /good {{ proxy_pass http://{dead}; error_page 502 = @good; }}
         location @good {{ proxy_cache off; proxy_pass http://{}; }}
         location /own {{ proxy_intercept_errors on; proxy_pass http://{}; error_page 502 @kept; }}",
        good.addr(),
        own.addr(),
        dead = dead.addr(),
    )));
    let mut records = 0;
    for (n, (path, status, body, cause, outcome, again)) in [
        ("/kept", 502, "kept", "connection_refused", "failed", true),
        ("/masked", 200, "masked", "connection_refused", "masked", false),
        ("/good", 200, "good", "connection_refused", "masked", false),
        ("/own", 502, "kept", "upstream_response", "passed", true),
    ]
    .into_iter()
    .enumerate()
    {
        let first = nginx.get(path);
        assert_eq!((first.status, first.text().as_str()), (status, body), "{path}");
        let wanted = json!({"status": status, "outcome": outcome, "uri": path, "location": path});
        diag::seen(&nginx, records).expect(cause, &wanted).in_header(&first);
        records += 1;

        let second = nginx.get(path);
        assert_eq!((second.status, second.text().as_str()), (status, body), "{path}");
        if again {
            let wanted = json!({"status": status, "outcome": "failed", "origin": "cache",
                                "uri": path, "attempts": []});
            diag::seen(&nginx, records).expect(CACHED, &wanted).in_header(&second);
            records += 1;
        } else {
            // Nobody saw an error, and no upstream failed for it.
            let line = nginx.wait_json_lines("access.log", 2 * n + 2).swap_remove(2 * n + 1);
            diag::assert_empty(&line);
        }
        assert_eq!(nginx.lines("diag.json").len(), records, "{path}");
    }
    diag::finish(&nginx);
}

/// Guards against an error that a subrequest found in the cache being the main request's, or
/// being lost.
#[test]
fn cached_errors_of_subrequests() {
    let dead = t::refused_port();
    let nginx = Nginx::start(caching(&format!(
        "location /page {{ auth_request /check; proxy_cache off; proxy_pass http://{dead}; }}
         location = /check {{ proxy_cache_valid 502 1m; proxy_pass http://{dead}; }}",
        dead = dead.addr()
    )));
    let first = nginx.get("/page");
    assert_eq!(first.status, 500);
    diag::subrequest(&nginx, 0)
        .expect("connection_refused", &json!({"uri": "/check", "status": 502}))
        .explains()
        .in_header(&first);
    let second = nginx.get("/page");
    assert_eq!(second.status, 500);
    diag::subrequest(&nginx, 1)
        .expect(
            CACHED,
            &json!({"uri": "/check", "status": 502, "outcome": "failed", "origin": "cache",
                    "attempts": []}),
        )
        .explains()
        .in_header(&second);
    diag::finish(&nginx);
}

/// Guards against a request that waited for another's answer getting that one's failure, and
/// against its own being lost.
#[test]
fn locked() {
    for (valid, status) in [("", 200), ("proxy_cache_valid 502 1m;", 502)] {
        let gate = Gate::new();
        let held = gate.clone();
        let up = Upstream::tcp(move |n, conn| {
            conn.read_request();
            if n == 0 {
                conn.wait(&held);
                conn.write("HTTP/1.1 200 OK\r\nContent-");
            } else {
                conn.write(script::response("good"));
            }
        });
        let nginx = Nginx::start(
            caching(&format!("location / {{ {valid} proxy_pass http://{}; }}", up.addr()))
                .http(
                    "proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s;",
                )
                .http("proxy_read_timeout 60s;")
                .log_level("debug"),
        );
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut clients = [(); 2].map(|()| nginx.connect());
        clients[0].send(request).expect("a request");
        up.wait_requests(1);
        clients[1].send(request).expect("a request");
        // It is not the one that updates.
        nginx.wait_for_log("http file cache lock u:0", Duration::from_secs(5));
        gate.open();
        assert_eq!(clients[0].read_response(false).expect("a response").status, 502);
        let second = clients[1].read_response(false).expect("a response");
        assert_eq!(second.status, status, "{valid}");
        diag::seen(&nginx, 0).expect(
            "closed_in_header",
            &json!({"outcome": "failed", "attempts": [{"peer": up.addr()}]}),
        );
        if status == 200 {
            nginx.wait_lines("access.log", 2);
        } else {
            let wanted = json!({"origin": "cache", "outcome": "failed", "attempts": []});
            diag::seen(&nginx, 1).expect(CACHED, &wanted).in_header(&second);
        }
        assert_eq!(up.connections(), if status == 200 { 2 } else { 1 });
        diag::finish(&nginx);
    }
}
