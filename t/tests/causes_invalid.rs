//! Answers that are no valid HTTP: each with the cause and the first bytes as evidence.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::client::Response;
use t::diag::{self, Seen};
use t::script;
use t::{Nginx, Upstream};

/// nginx in front of an upstream that answers with these bytes and closes, and what it made of it.
fn ask(bytes: &[u8]) -> (Upstream, Nginx, Response) {
    let up = Upstream::tcp(script::raw(bytes.to_vec()));
    let nginx = Nginx::start(diag::conf(format!(
        "location / {{ proxy_http_version 1.1; proxy_pass http://{}; }}",
        up.addr()
    )));
    let response = nginx.get("/");
    (up, nginx, response)
}

/// What the module says of such an upstream.
fn answered(bytes: &[u8]) -> (Response, Seen) {
    let (_up, nginx, response) = ask(bytes);
    let seen = diag::seen(&nginx, 0);
    diag::finish(&nginx);
    (response, seen)
}

/// A header that nginx refuses ends in a 502. Guards against these being `unknown`, and against
/// what the upstream wrote into them deciding anything.
#[test]
fn invalid_header() {
    let rows: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\nno live upstreams\0: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ];
    for (row, bytes) in rows.iter().enumerate() {
        let (_up, nginx, response) = ask(bytes);
        // nginx 1.22 lets all but the first pass. What it lets pass must leave no trace.
        if row > 0 && response.status != 502 {
            diag::finish(&nginx);
            continue;
        }
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "invalid_header",
            &json!({
                "phase": "header", "status": 502, "outcome": "failed", "origin": "nginx",
                "proxy_error": "http_protocol_error",
                "attempts": [{"first_bytes": bytes[..32].escape_ascii().to_string(),
                              "bytes_received": bytes.len(), "reused": false}],
            }),
        );
    }
}

/// nginx passes bytes without a status line on as HTTP/0.9: the client gets a response of which
/// nobody can tell what it is. Guards against that being counted as a good one.
#[test]
fn invalid_response() {
    let (response, seen) = answered(b"this is no \"status\" line\r\n\r\n");
    assert_eq!(response.status, 9, "{response:?}");
    seen.expect("invalid_response", &truncated());
    assert_eq!(seen.attempt(0)["first_bytes"], "this is no \\\"status\\\" line\\r\\n\\r\\n");
}

fn truncated() -> Value {
    json!({
        "phase": "header", "status": 9, "outcome": "truncated", "origin": "nginx",
        "proxy_error": "http_protocol_error",
        "attempts": [{"message": "upstream sent no valid HTTP/1.0 header"}],
    })
}

/// Guards against a wrong port or a wrong scheme being reported as nonsense: the protocol that
/// answered is named, and what to do about it.
#[test]
fn protocol_mismatch() {
    let rows: [(&[u8], &str, &str); 5] = [
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS", "Use https:// in proxy_pass"),
        (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", "HTTP/2", "Use grpc_pass"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH", "Correct the address or port"),
        (b"\x01\x06\0\x01\0\x02\0\0ok", "FastCGI", "Use fastcgi_pass"),
        (b"-ERR unknown command 'Host:'\r\n", "Redis", "Correct the address or port"),
    ];
    for (bytes, name, advice) in rows {
        let (_, seen) = answered(bytes);
        seen.expect("protocol_mismatch", &truncated());
        let peer = seen.attempt(0)["peer"].as_str().unwrap_or_default().to_owned();
        assert_eq!(seen.variable("summary"), format!("{peer} speaks {name}, not HTTP."));
        assert!(seen.variable("advice").starts_with(advice), "{}", seen.variable("advice"));
    }
}

/// Guards against a broken chunk being taken for a body that was cut.
#[test]
fn invalid_body() {
    let (response, seen) =
        answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nbroken\r\n");
    assert!(response.truncated, "{response:?}");
    seen.expect(
        "invalid_body",
        &json!({
            "phase": "body", "status": 200, "outcome": "truncated", "origin": "nginx",
            "proxy_error": "http_response_transfer_coding",
            "attempts": [{"message": "upstream sent invalid chunked response"}],
        }),
    );
}
