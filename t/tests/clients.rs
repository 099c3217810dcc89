//! What clients do: leave in every phase, send requests without waiting, have several at once.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::{Value, json};
use t::diag;
use t::script::{self, End};
use t::{Conf, Gate, Nginx, Upstream};

#[path = "clients/http2.rs"]
mod http2;
#[path = "clients/leaving.rs"]
mod leaving;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const REFUSED: &str = "connection_refused";

/// A proxy in front of these servers.
fn proxy(servers: &[&str], more: &str) -> Conf {
    let servers: String = servers.iter().map(|server| format!("server {server};")).collect();
    diag::conf(format!("location / {{ {more} proxy_pass http://u; }}"))
        .http(format!("upstream u {{ {servers} }}"))
}

/// The line of the only request.
fn line(nginx: &Nginx) -> Value {
    nginx.wait_json_lines("access.log", 1).remove(0)
}

/// Checks that nothing is said of a request that ended with this status.
fn assert_silence(nginx: &Nginx, status: &str) {
    let line = line(nginx);
    assert_eq!(line["status"], status);
    diag::assert_empty(&line);
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    diag::finish(nginx);
}

/// Guards against a failure that nobody waited for being lost. nginx goes on without the client
/// where it is told to, and where the cache wants the response.
#[test]
fn failures_behind_a_client_that_left() {
    let cache = "proxy_cache c; proxy_cache_key k; proxy_cache_valid 1m;";
    for (more, end, cause, status, outcome) in [
        ("proxy_ignore_client_abort on;", Some(End::Fin), "closed_in_header", 502, "failed"),
        ("proxy_ignore_client_abort on;", None, "", 200, ""),
        (cache, Some(End::Fin), "closed_in_header", 499, "aborted"),
        (cache, Some(End::Rst), "connection_reset", 499, "aborted"),
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        let up = Upstream::tcp(move |_, conn| {
            conn.read_request();
            conn.wait(&held);
            match end {
                Some(End::Fin) => drop(conn.write("HTTP/1.1 200 OK\r\nConte")),
                Some(End::Rst) => conn.reset(),
                None => drop(conn.write(script::response("good"))),
            }
        });
        let nginx = Nginx::start(
            proxy(&[&up.addr()], more)
                .http("proxy_cache_path {prefix}/cache keys_zone=c:1m;")
                .log_level("debug"),
        );
        let mut client = nginx.connect();
        client.send(GET).expect("sent");
        up.wait_requests(1);
        drop(client);
        if more == cache {
            nginx.wait_for_log("client prematurely closed", Duration::from_secs(5));
        }
        gate.open();
        if cause.is_empty() {
            assert_silence(&nginx, "200");
            continue;
        }
        diag::seen(&nginx, 0).expect(
            cause,
            &json!({"status": status, "outcome": outcome,
                    "attempts": [{"peer": up.addr(), "cause": cause}]}),
        );
        diag::finish(&nginx);
    }
}

/// A client that does nothing more once its request is sent, alone and behind a failure.
fn check_slow(up: &Upstream, more: &str, request: &[u8], status: u16) {
    let dead = t::refused_port();
    for behind in [false, true] {
        let both = [dead.addr(), up.addr()];
        let servers: Vec<&str> =
            both.iter().skip(usize::from(!behind)).map(String::as_str).collect();
        let nginx = Nginx::start(proxy(&servers, more));
        let mut client = nginx.connect();
        client.send(request).expect("sent");
        if behind {
            diag::seen(&nginx, 0).expect(
                REFUSED,
                &json!({
                    "status": status, "outcome": "aborted",
                    "attempts": [{"peer": dead.addr()}, {"peer": up.addr(), "cause": null}],
                }),
            );
            diag::finish(&nginx);
        } else {
            assert_silence(&nginx, &status.to_string());
        }
    }
}

/// Guards against a client that is too slow to send being one that was served, or the upstream's
/// failure.
#[test]
fn too_slow_to_send() {
    let up = Upstream::tcp(|_, conn| conn.wait_peer_close());
    let half = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf";
    check_slow(&up, "proxy_request_buffering off; client_body_timeout 150ms;", half, 408);
}

/// Guards against a client that does not take its response being one that was served, or the
/// upstream's failure.
#[test]
fn too_slow_to_receive() {
    let up = Upstream::tcp(script::ok(vec![b'x'; 16 << 20]));
    for more in ["proxy_max_temp_file_size 0;", "proxy_buffering off;"] {
        check_slow(&up, &format!("{more} send_timeout 150ms;"), GET, 200);
    }
}

/// Guards against requests of old kinds, without a host or even a header in the response, having
/// no record.
#[test]
fn old_clients() {
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(diag::conf(format!(
        "location /dead {{ proxy_pass http://{}; }} location /good {{ proxy_pass http://{}; }}",
        dead.addr(),
        good.addr()
    )));
    for (n, request) in
        ["GET /dead\r\n", "GET /dead HTTP/1.0\r\n\r\n", "HEAD /dead HTTP/1.0\r\n\r\n"]
            .into_iter()
            .enumerate()
    {
        nginx.request(request.as_bytes());
        nginx.request(request.replace("dead", "good").as_bytes());
        diag::seen(&nginx, n)
            .expect(REFUSED, &json!({"status": 502, "outcome": "failed", "uri": "/dead"}));
        assert_eq!(nginx.wait_lines("access.log", 2 * n + 2).len(), 2 * n + 2);
    }
    assert_eq!(nginx.lines("diag.json").len(), 3);
    diag::finish(&nginx);
}

/// Guards against the record of one request reaching those behind it on the connection, where
/// bodies, subrequests that outlive the response, and a client that has gone are between them.
#[test]
fn requests_that_do_not_wait() {
    let dead = [(); 2].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let own = Upstream::tcp(script::status(503));
    let silent = Upstream::tcp(script::silent());
    let nginx = Nginx::start(
        diag::conf(format!(
            "location /dead {{ proxy_pass http://{dead}; }}
             location /good {{ proxy_pass http://{good}; }}
             location /own {{ proxy_pass http://{}; }}
             location /masked {{ proxy_pass http://u; }}
             location /mirrored {{ mirror /copy; proxy_pass http://{good}; }}
             location = /copy {{ proxy_pass http://{dead}/; }}
             location /silent {{ proxy_pass http://{}; }}",
            own.addr(),
            silent.addr(),
            dead = dead[0].addr(),
            good = good.addr(),
        ))
        .http(format!(
            "upstream u {{ server {} max_fails=0; server {} backup; }}",
            dead[1].addr(),
            good.addr()
        )),
    );
    let body = "GET /dead HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = |path: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let wanted = [
        ("/masked", 200, REFUSED),
        ("/dead", 502, REFUSED),
        ("/good", 200, ""),
        ("/mirrored", 200, ""),
        ("/own", 503, "upstream_response"),
        ("/good", 200, ""),
        ("/masked", 200, REFUSED),
        ("/mirrored", 200, ""),
        ("/dead", 502, REFUSED),
    ];
    let mut requests: String = wanted.iter().map(|(path, ..)| post(path)).collect();
    requests.push_str("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = nginx.connect();
    client.send(requests.as_bytes()).expect("sent");
    for (path, status, cause) in wanted {
        let response = client.read_response(false).expect("a response");
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("X-Cause").unwrap_or_default(), cause, "{path}");
    }
    silent.wait_requests(1);
    drop(client);
    let lines = nginx.wait_json_lines("access.log", wanted.len() + 1);
    for (line, (path, _, cause)) in lines.iter().zip(wanted) {
        assert_eq!((&line["uri"], &line["cause"]), (&path.into(), &cause.into()), "{path}");
    }
    assert_eq!(lines[wanted.len()]["status"], "499");
    let records = nginx.json_log("diag.json");
    let found: Vec<_> = records
        .iter()
        .map(|r| {
            let attempts = r["attempts"].as_array().map_or(0, Vec::len);
            (r["uri"].as_str().unwrap_or_default(), r["subrequest"] == true, attempts)
        })
        .collect();
    let own = [("/masked", 2), ("/dead", 1), ("/own", 1), ("/masked", 2), ("/dead", 1)];
    assert_eq!(
        found.iter().filter(|r| !r.1).copied().collect::<Vec<_>>(),
        own.map(|(uri, attempts)| (uri, false, attempts))
    );
    assert_eq!(found.iter().filter(|r| r.1).copied().collect::<Vec<_>>(), [("/copy", true, 1); 2]);
    diag::finish(&nginx);
}
