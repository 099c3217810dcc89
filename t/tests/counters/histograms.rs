//! How long connecting took, and how large headers were.

use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::tls::{Ca, Server};
use t::{Nginx, Upstream, protocol, script};

use super::group;

/// A histogram of upstream `u`: its counts, and the two sums.
fn histogram(nginx: &Nginx, name: &str) -> (Vec<u64>, u64, Value) {
    let status = diag::status(nginx);
    let found = &status["upstreams"]["u"][name];
    let numbers = |key: &str| -> Vec<f64> {
        let list = found[key].as_array().expect("a list");
        list.iter().map(|n| n.as_f64().expect("a number")).collect()
    };
    let (bounds, counts) = (numbers("bounds"), numbers("counts"));
    assert!(bounds.is_sorted_by(|a, b| a < b), "{found}");
    assert_eq!(counts.len(), bounds.len() + 1, "{found}");
    let counts: Vec<u64> = counts.into_iter().map(|n| n as u64).collect();
    let all = counts.iter().sum::<u64>();
    assert_eq!(found["count"], all, "{found}");
    (counts, all, found["sum"].clone())
}

/// Guards against connections that were there already being counted as made in no time, and
/// against those that were not made being counted at all.
#[test]
fn only_new_connections_are_timed() {
    let kept = "proxy_http_version 1.1; proxy_set_header Connection '';";
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(group(&format!("server {}; keepalive 4;", good.addr())).http(kept));
    for n in 1..=5 {
        assert_eq!(nginx.get("/").status, 200);
        assert_eq!(histogram(&nginx, "connect_seconds").1, 1, "request {n}");
    }
    assert_eq!(histogram(&nginx, "header_bytes").1, 5);
    assert_in(&histogram(&nginx, "connect_seconds").2, 0.0..1.0);
    assert_eq!(good.connections(), 1);

    let nginx = Nginx::start(group(&format!("server {};", good.addr())));
    for n in 1..=5 {
        assert_eq!(nginx.get("/").status, 200);
        assert_eq!(histogram(&nginx, "connect_seconds").1, n);
    }

    // One that was not made, then one on which no header came, then a good one.
    let dead = t::refused_port();
    let close = Upstream::tcp(script::close_at_once());
    let nginx = Nginx::start(group(&format!(
        "server {} max_fails=0; server {} max_fails=0; server {};",
        dead.addr(),
        close.addr(),
        good.addr()
    )));
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(histogram(&nginx, "connect_seconds").1, 2);
    assert_eq!(histogram(&nginx, "header_bytes").1, 1);

    // A kept one after one that was not made.
    let nginx = Nginx::start(
        group(&format!(
            "server {} max_fails=0; server {} backup; keepalive 4;",
            dead.addr(),
            good.addr()
        ))
        .http(kept),
    );
    let before = good.connections();
    for n in 1..=3 {
        assert_eq!(nginx.get("/").status, 200);
        assert_eq!(good.connections(), before + 1);
        assert_eq!(histogram(&nginx, "connect_seconds").1, 1, "request {n}");
    }

    // Nothing of this is a connection.
    let full = t::full_backlog_tcp();
    let nginx = Nginx::start(
        group(&format!("server {} max_fails=0; server {} down;", full.addr(), dead.addr()))
            .http("proxy_connect_timeout 100ms;"),
    );
    assert_eq!(nginx.get("/").status, 504);
    assert_eq!(histogram(&nginx, "connect_seconds").1, 0);
    assert_eq!(histogram(&nginx, "header_bytes").1, 0);
}

/// Guards against sizes that are those of a buffer, or of what came with the header.
#[test]
fn sizes_of_headers_are_exact() {
    let sizes = [256, 257, 512, 1_024, 1_025, 4_000, 8_192, 40_000, 65_536, 65_537, 100_000];
    for more in ["", "proxy_cache c; proxy_cache_key $request_id; proxy_cache_valid 1h;"] {
        let up = Upstream::tcp(move |n, conn| {
            conn.read_request();
            let size = sizes[n % sizes.len()];
            let fixed = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: \r\n\r\n".len();
            let pad = "p".repeat(size - fixed);
            conn.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: {pad}\r\n\r\nbody"));
        });
        let nginx = Nginx::start(
            group(&format!("server {};", up.addr()))
                .http("proxy_cache_path {prefix}/cache keys_zone=c:1m;")
                .http(format!("proxy_buffer_size 256k; proxy_buffers 4 256k; {more}"))
                .http("proxy_busy_buffers_size 512k; proxy_hide_header X;"),
        );
        let mut wanted = [0_u64; 10];
        let mut sum = 0;
        for size in sizes {
            assert_eq!(nginx.get("/").text(), "body");
            let bucket = [256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536]
                .iter()
                .position(|bound| size <= *bound);
            wanted[bucket.unwrap_or(9)] += 1;
            sum += size;
            let (counts, _, got) = histogram(&nginx, "header_bytes");
            assert_eq!((counts, got), (wanted.to_vec(), json!(sum)), "{size} {more}");
        }
        nginx.stop();
    }
}

/// Guards against a header that comes in pieces being counted for each, or by the last of them,
/// and against one that never ends being counted.
#[test]
fn headers_in_pieces() {
    let header = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-One: 1\r\n\r\n";
    let up = Upstream::tcp(move |n, conn| {
        conn.read_request();
        match n {
            0 => drop(conn.write_slowly(header, 7, Duration::from_millis(2))),
            _ => drop(conn.write(&header[..20])),
        }
        if n == 0 {
            conn.write("body");
        }
    });
    let nginx = Nginx::start(group(&format!("server {} max_fails=0;", up.addr())));
    assert_eq!((nginx.get("/").text().as_str(), nginx.get("/").status), ("body", 502));
    let (_, count, sum) = histogram(&nginx, "header_bytes");
    assert_eq!((count, sum), (1, json!(header.len())));
    diag::finish(&nginx);
}

/// Guards against a protocol whose answers nobody counts, or counts by what is around them.
#[test]
fn every_protocol() {
    for protocol in protocol::all() {
        let (name, good, read) = (protocol.name, protocol.good.clone(), protocol.read);
        let length = good.len();
        let up = Upstream::tcp(move |_, conn| {
            if read(conn) {
                conn.write(&good);
            }
        });
        let nginx = Nginx::start(
            diag::conf(
                format!("location / {{ {} {name}_pass u; }}", protocol.location)
                    .replace("proxy_pass u", "proxy_pass http://u"),
            )
            .http(format!("upstream u {{ server {}; }}", up.addr())),
        );
        assert_eq!(nginx.get("/").status, 200, "{name}");
        let status = diag::status(&nginx);
        let peer = diag::peer(&status, "u", &up.addr());
        assert_eq!(diag::counts(peer), [1, 0, 0], "{name}");
        assert_eq!(status["upstreams"]["u"]["connect_seconds"]["count"], 1, "{name}");
        let sizes = &status["upstreams"]["u"]["header_bytes"];
        assert_eq!(sizes["count"], 1, "{name}");
        assert!(
            sizes["sum"].as_u64().is_some_and(|n| n > 0 && n <= length as u64),
            "{name} {sizes}"
        );
        diag::finish(&nginx);
    }
}

/// Guards against a handshake being no part of the time that connecting takes, and against one
/// that failed being a connection.
#[test]
fn with_tls() {
    let ca = Ca::new("ca");
    let serve = Server::new(&ca.identity(&["up.test"])).over(script::ok("good"));
    let slow = Duration::from_millis(120);
    let up = Upstream::tcp(move |n, conn| {
        conn.pause(slow);
        serve(n, conn);
    });
    let plain = Upstream::tcp(|_, conn| {
        conn.wait_readable();
        conn.write("plain");
    });
    let nginx = Nginx::start(
        diag::conf("location / { proxy_pass https://u; }")
            .http(format!(
                "upstream u {{ server {} max_fails=0; server {}; keepalive 4; }}",
                plain.addr(),
                up.addr()
            ))
            .http("proxy_http_version 1.1; proxy_set_header Connection '';"),
    );
    for _ in 0..4 {
        assert_eq!(nginx.get("/").text(), "good");
    }
    let (_, count, sum) = histogram(&nginx, "connect_seconds");
    // Requests may have come to the second server over a kept connection, or not.
    assert_eq!(count, u64::try_from(up.connections()).expect("few"));
    assert_in(&sum, 0.12 * count as f64..5.0);
    assert_eq!(histogram(&nginx, "header_bytes").1, 4);
    assert!(plain.connections() > 0);
    diag::finish(&nginx);
}
