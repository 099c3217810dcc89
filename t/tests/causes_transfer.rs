//! Each cause of the phases "send" and "body", those without a phase, and what becomes of a
//! request in which several attempts were made.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::script::{self, End};
use t::{Conf, Nginx, Upstream};

/// A proxy in front of these servers.
fn proxy(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {servers} }}"))
}

/// More than the buffers of a socket hold when nobody reads, on a unix socket and on TCP.
const LARGE: [usize; 2] = [2 << 20, 16 << 20];

/// A request with a body of this size.
fn post(size: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + size, b'b');
    request
}

/// Guards against an upstream that does not read being taken for one that does not answer.
#[test]
fn send_timed_out() {
    let dir = t::temp_dir();
    let ups = [
        Upstream::unix(dir.path().join("up.sock"), |_, conn| conn.hold()),
        Upstream::tcp(|_, conn| conn.hold()),
    ];
    for (up, size) in ups.iter().zip(LARGE) {
        let conf = proxy(&format!("server {};", up.addr()))
            .http("client_max_body_size 0; proxy_send_timeout 150ms;");
        let nginx = Nginx::start(conf);
        let response = nginx.request(&post(size));
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "send_timed_out",
            &json!({
                "phase": "send", "outcome": "failed", "origin": "nginx", "status": 504,
                "proxy_error": "connection_write_timeout", "method": "POST",
                "attempts": [{
                    "peer": up.addr(), "cause": "send_timed_out", "phase": "send", "status": 504,
                    "errno": 110, "errname": "ETIMEDOUT", "reused": false, "header": null,
                    "message": "upstream timed out (110: Connection timed out)",
                    "bytes_received": 0,
                }],
            }),
        )
        .in_header(&response);
        assert_eq!((response.status, seen.variable("addr")), (504, up.addr().as_str()));
        assert_in(&seen.attempt(0)["elapsed"], 0.15..5.0);
        assert_in(&seen.attempt(0)["bytes_sent"], 1.0..f64::from(u32::try_from(size).unwrap_or(0)));
        diag::finish(&nginx);
    }
}

/// Guards against the phase being taken from nginx's words: it says "reading response header"
/// while the body is still being sent.
#[test]
fn connection_reset_while_sending() {
    let dir = t::temp_dir();
    let unix = Upstream::unix(dir.path().join("up.sock"), |_, conn| {
        conn.wait_readable();
        conn.reset();
    });
    let tcp = Upstream::tcp(|_, conn| {
        conn.read_some();
        conn.reset();
    });
    for (up, size, http) in [
        (&unix, LARGE[0], ""),
        (&tcp, LARGE[1], ""),
        (&tcp, LARGE[1], "sendfile on;"),
        (&tcp, LARGE[1], "proxy_request_buffering off;"),
    ] {
        let conf = proxy(&format!("server {};", up.addr())).http("client_max_body_size 0;");
        let nginx = Nginx::start(conf.http(http));
        let response = nginx.request(&post(size));
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "connection_reset",
            &json!({
                "phase": "send", "outcome": "failed", "origin": "nginx", "status": 502,
                "proxy_error": "connection_terminated",
                "attempts": [{
                    "peer": up.addr(), "cause": "connection_reset", "phase": "send",
                    "status": 502, "reused": false, "header": null, "bytes_received": 0,
                }],
            }),
        )
        .in_header(&response);
        assert_eq!((response.status, seen.variable("addr")), (502, up.addr().as_str()));
        // Writing gives EPIPE on a unix socket and from sendfile(), reading never does.
        let errname = seen.variable("errname");
        let may_be_epipe = up.port() == 0 || http.starts_with("sendfile");
        assert!(errname == "ECONNRESET" || (may_be_epipe && errname == "EPIPE"), "{errname}");
        diag::finish(&nginx);
    }
}

/// Guards against a response that was cut off counting as good, as the client's status does.
#[test]
fn response_truncated() {
    const RESET: &str = "recv() failed (104: Connection reset by peer)";
    const CLOSED: &str = "upstream prematurely closed connection";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    for (up, http, message) in [
        (Upstream::tcp(script::partial_body(100, "part", End::Fin)), "", CLOSED),
        (Upstream::tcp6(script::partial_body(100, "part", End::Fin)), "", CLOSED),
        (Upstream::tcp(script::raw(chunked)), "proxy_http_version 1.1;", CLOSED),
        (
            Upstream::tcp(script::partial_body(100, "part", End::Fin)),
            "proxy_buffering off;",
            CLOSED,
        ),
        (Upstream::tcp(script::partial_body(100, "part", End::Rst)), "proxy_buffering off;", RESET),
        (Upstream::tcp(script::partial_body(100, "part", End::Rst)), "", RESET),
    ] {
        let errno = if message == RESET { 104.into() } else { Value::Null };
        let nginx = Nginx::start(proxy(&format!("server {};", up.addr())).http(http));
        let response = nginx.get("/");
        assert_eq!((response.status, response.truncated), (200, true), "{http}");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "response_truncated",
            &json!({
                "phase": "body", "outcome": "truncated", "origin": "nginx", "status": 200,
                "proxy_error": "http_response_incomplete",
                "attempts": [{
                    "peer": up.addr(), "cause": "response_truncated", "phase": "body",
                    "status": 200, "errno": errno, "reused": false, "header": null,
                }],
            }),
        );
        let said = seen.attempt(0)["message"].as_str().unwrap_or_default();
        // Read with readv() where nginx buffers.
        assert!(said == message || said == message.replace("recv", "readv"), "{said}");
        assert_eq!(seen.variable("addr"), up.addr());
        diag::finish(&nginx);
    }
}

/// Guards against a response that stops being taken for one that never came.
#[test]
fn body_timed_out() {
    for http in ["", "proxy_buffering off;"] {
        let up = Upstream::tcp(|_, conn| {
            conn.read_request();
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
            conn.wait_peer_close();
        });
        let conf = proxy(&format!("server {};", up.addr())).http("proxy_read_timeout 150ms;");
        let nginx = Nginx::start(conf.http(http));
        let response = nginx.get("/");
        assert_eq!((response.status, response.truncated), (200, true), "{http}");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "body_timed_out",
            &json!({
                "phase": "body", "outcome": "truncated", "origin": "nginx", "status": 200,
                "proxy_error": "connection_read_timeout",
                "attempts": [{
                    "peer": up.addr(), "cause": "body_timed_out", "phase": "body", "status": 200,
                    "errno": 110, "errname": "ETIMEDOUT", "reused": false, "header": null,
                    "message": "upstream timed out (110: Connection timed out)",
                    "tcp": {"state": "ESTABLISHED"},
                }],
            }),
        );
        assert_in(&seen.attempt(0)["elapsed"], 0.15..5.0);
        assert_eq!(seen.variable("addr"), up.addr());
        diag::finish(&nginx);
    }
}

/// Guards against an error of the upstream's own being taken for one of nginx's, of which nginx
/// logs nothing.
#[test]
fn upstream_response() {
    let good = Upstream::tcp(script::ok("good"));
    for status in [502, 503, 504] {
        let up = Upstream::tcp(script::status(status));
        let own = json!({
            "peer": up.addr(), "cause": "upstream_response", "phase": null, "status": status,
            "errno": null, "errname": null, "message": null,
        });
        let nginx = Nginx::start(proxy(&format!("server {};", up.addr())));
        let response = nginx.get("/");
        assert_eq!((response.status, response.text()), (status, "scripted".to_owned()));
        diag::seen(&nginx, 0)
            .expect(
                "upstream_response",
                &json!({"outcome": "passed", "origin": "upstream", "status": status,
                        "phase": null, "proxy_error": "destination_unavailable",
                        "upstream": "u", "module": "proxy", "attempts": [own]}),
            )
            .in_header(&response);
        diag::finish(&nginx);

        let conf = proxy(&format!("server {}; server {};", up.addr(), good.addr()));
        let nginx = Nginx::start(conf.http(format!("proxy_next_upstream http_{status};")));
        let response = nginx.get("/");
        assert_eq!(response.text(), "good");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "upstream_response",
            &json!({
                "outcome": "masked", "origin": "upstream", "status": 200,
                "attempts": [own, {"peer": good.addr(), "cause": null, "status": 200}],
            }),
        )
        .in_header(&response);
        assert_eq!(seen.variable("causes"), "upstream_response, -");
        diag::finish(&nginx);
    }
}
