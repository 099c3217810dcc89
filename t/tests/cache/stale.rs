//! Responses that are too old and served all the same, or asked for again.

use serde_json::json;
use t::diag;
use t::{Nginx, Upstream, script};

use crate::caching;

/// A response that is stored and out of date at once.
fn expired(status: u16, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Length: {length}\r\nX-Accel-Expires: @1\r\n{more}\r\n{body}"
    )
    .into_bytes()
}

/// Guards against a failure that the cache made good being lost, or counted as one of the
/// client's; and against the reverse, where the cache was not to be used.
#[test]
fn failures_hidden_by_stale_responses() {
    let dead = [(); 3].map(|()| t::refused_port());
    let silent = Upstream::tcp(script::silent());
    let cut = Upstream::tcp(script::partial_header_then_close());
    let big = Upstream::tcp(script::big_header(9000));
    let own = [502, 503, 504].map(|status| Upstream::tcp(script::status(status)));
    let dir = t::temp_dir();
    let path = dir.path().join("datagram.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a datagram socket");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("chmod");
    let odd = format!("unix:{}", path.display());
    let full = Upstream::tcp(script::ok("old"));
    let none = format!("{} down", dead[2].addr());
    for (servers, stale, status, cause, outcome, attempts) in [
        (vec![dead[0].addr()], "error", 200, "connection_refused", "masked", vec![502]),
        (
            vec![dead[0].addr(), dead[1].addr()],
            "error",
            200,
            "connection_refused",
            "masked",
            vec![502, 502],
        ),
        (vec![silent.addr()], "timeout", 200, "response_timed_out", "masked", vec![504]),
        (vec![cut.addr()], "error", 200, "closed_in_header", "masked", vec![502]),
        (vec![big.addr()], "invalid_header", 200, "header_too_big", "masked", vec![502]),
        (vec![own[0].addr()], "http_502", 200, "upstream_response", "masked", vec![502]),
        (vec![own[1].addr()], "http_503", 200, "upstream_response", "masked", vec![503]),
        (vec![own[2].addr()], "http_504", 200, "upstream_response", "masked", vec![504]),
        (vec![none], "error", 200, "no_live_upstreams", "masked", vec![502]),
        // Of a message that nobody knows only the end tells whether it was a failure.
        (vec![odd], "error", 200, "unknown", "masked", vec![502]),
        // Not to be used for these.
        (vec![dead[0].addr()], "timeout", 502, "connection_refused", "failed", vec![502]),
        (vec![silent.addr()], "error", 504, "response_timed_out", "failed", vec![504]),
        (vec![own[0].addr()], "http_503", 502, "upstream_response", "passed", vec![502]),
    ] {
        let list: String = servers.iter().map(|server| format!("server {server};")).collect();
        let fill = Upstream::tcp(script::raw(expired(200, "", "old")));
        let timeout = if list.contains(&silent.addr()) { "proxy_read_timeout 150ms;" } else { "" };
        let nginx = Nginx::start(
            caching(&format!(
                "proxy_cache_key k; proxy_cache_use_stale {stale}; proxy_buffer_size 4k;
                 location / {{ {timeout} proxy_pass http://u; }}
                 location /fill {{ proxy_pass http://{}; }}",
                fill.addr()
            ))
            .http(format!("upstream u {{ {list} server {} down; }}", full.addr())),
        );
        assert_eq!(nginx.get("/fill").text(), "old");
        let response = nginx.get("/page");
        assert_eq!(response.status, status, "{cause} {stale}");
        let seen = diag::seen(&nginx, 0);
        let attempts: Vec<_> = attempts.iter().map(|status| json!({"status": status})).collect();
        seen.expect(
            cause,
            &json!({"uri": "/page", "status": status, "outcome": outcome, "attempts": attempts}),
        )
        .in_header(&response);
        if cause == "upstream_response" && status == 200 {
            let advice = seen.record["advice"].as_str().expect("advice");
            assert!(advice.ends_with("(proxy_cache_use_stale)."), "{advice}");
        }
        if status == 200 {
            let got = (response.text(), response.header("X-Cache"));
            assert_eq!(got, ("old".to_owned(), Some("STALE")), "{cause}");
        }
        diag::finish(&nginx);
    }
}

/// Guards against an old error from the cache counting as a good answer, or as the failure.
#[test]
fn stale_errors_are_errors() {
    let dead = t::refused_port();
    let fill = Upstream::tcp(script::raw(expired(502, "", "old")));
    let nginx = Nginx::start(caching(&format!(
        "proxy_cache_key k; proxy_cache_use_stale error;
         location / {{ proxy_pass http://{}; }}
         location /fill {{ proxy_pass http://{}; }}",
        dead.addr(),
        fill.addr()
    )));
    assert_eq!(nginx.get("/fill").text(), "old");
    diag::seen(&nginx, 0).expect("upstream_response", &json!({"outcome": "passed"}));
    let response = nginx.get("/page");
    assert_eq!((response.status, response.text().as_str()), (502, "old"));
    diag::seen(&nginx, 1)
        .expect(
            "connection_refused",
            &json!({"status": 502, "outcome": "failed", "origin": "nginx",
                    "attempts": [{"peer": dead.addr(), "cause": "connection_refused"}]}),
        )
        .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against an update in the background being lost or being the main request's, whose
/// client has its response from the cache.
#[test]
fn background_updates() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let own = Upstream::tcp(script::status(503));
    let good = Upstream::tcp(script::ok("new"));
    for (addr, stale, status, cause, outcome) in [
        (dead.addr(), "updating", 502, "connection_refused", "failed"),
        (silent.addr(), "updating", 504, "response_timed_out", "failed"),
        (own.addr(), "updating", 503, "upstream_response", "passed"),
        // The subrequest itself is served what is old.
        (dead.addr(), "updating error", 200, "connection_refused", "masked"),
        (good.addr(), "updating", 0, "", ""),
    ] {
        let fill = Upstream::tcp(script::raw(expired(200, "", "old")));
        let timeout = if addr == silent.addr() { "proxy_read_timeout 150ms;" } else { "" };
        let nginx = Nginx::start(caching(&format!(
            "proxy_cache_key k; proxy_cache_use_stale {stale};
             proxy_cache_background_update on; proxy_cache_valid 200 1m;
             location / {{ {timeout} proxy_pass http://{addr}; }}
             location /fill {{ proxy_pass http://{}; }}",
            fill.addr()
        )));
        assert_eq!(nginx.get("/fill").text(), "old");
        let response = nginx.get("/page?a=b");
        let got = (response.status, response.text(), response.header("X-Cache"));
        assert_eq!(got, (200, "old".to_owned(), Some("STALE")), "{addr}");
        assert_eq!(response.header("X-Cause"), None, "{addr}");
        diag::assert_empty(&nginx.wait_json_lines("access.log", 2)[1]);
        if cause.is_empty() {
            assert_eq!(nginx.lines("diag.json"), [""; 0]);
            assert_eq!(nginx.get("/page").text(), "new");
        } else {
            diag::subrequest(&nginx, 0)
                .expect(
                    cause,
                    &json!({"uri": "/page", "location": "/", "status": status, "outcome": outcome,
                            "attempts": [{"peer": addr, "cause": cause}]}),
                )
                .explains_nothing();
            assert_eq!(nginx.lines("diag.json").len(), 1);
        }
        diag::finish(&nginx);
    }
}

/// Guards against a response that is still good being taken for an error, and a failure to ask
/// whether it is for none.
#[test]
fn revalidation() {
    let modified = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let up = Upstream::tcp(move |n, conn| {
        conn.read_request();
        match n {
            0 => conn.write(expired(200, modified, "old")),
            1 => conn.write("HTTP/1.1 304 Not Modified\r\n\r\n"),
            2 => conn.write(script::response_with(503, "own")),
            _ => conn.write("HTTP/1.1 304 Not"),
        };
    });
    let nginx = Nginx::start(caching(&format!(
        "location / {{ proxy_cache_revalidate on; proxy_cache_use_stale error;
                       proxy_pass http://{}; }}",
        up.addr()
    )));
    for (status, cache, cause, outcome) in [
        (200, "MISS", "", ""),
        (200, "REVALIDATED", "", ""),
        (503, "EXPIRED", "upstream_response", "passed"),
        (200, "STALE", "closed_in_header", "masked"),
    ] {
        let response = nginx.get("/");
        assert_eq!((response.status, response.header("X-Cache")), (status, Some(cache)));
        if cause.is_empty() {
            assert_eq!((response.text().as_str(), response.header("X-Cause")), ("old", None));
        } else {
            diag::seen(&nginx, usize::from(cache == "STALE"))
                .expect(
                    cause,
                    &json!({"status": status, "outcome": outcome,
                            "attempts": [{"peer": up.addr(), "cause": cause}]}),
                )
                .in_header(&response);
        }
    }
    assert!(String::from_utf8_lossy(&up.requests()[1]).contains("If-Modified-Since"));
    diag::finish(&nginx);
}
