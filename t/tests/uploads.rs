//! Requests with a body, which upstreams may fail in the middle of: nginx hands it on as it comes,
//! or has all of it before it asks anybody.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use t::diag;
use t::{Client, Conf, Conn, Nginx, Upstream, script};

const UNBUFFERED: &str = "proxy_request_buffering off; proxy_http_version 1.1;";

/// A proxy in front of these servers, asked in this order.
fn proxy(servers: &[&str], more: &str) -> Conf {
    let mut list = String::new();
    for (n, server) in servers.iter().enumerate() {
        let backup = if n > 0 { "backup" } else { "" };
        list.push_str(&format!("server {server} max_fails=0 {backup};"));
    }
    diag::conf(format!("location / {{ {more} proxy_pass http://u; }}"))
        .http(format!("client_max_body_size 0; upstream u {{ {list} }}"))
}

/// The start of a request, of whose body half has been sent.
const HALF: &[u8] = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf";
const HALF_CHUNKED: &[u8] =
    b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

/// An upstream that reads half of the body, says so, and goes on like this.
fn halfway(then: impl Fn(&mut Conn) + Send + Sync + 'static) -> (Upstream, Receiver<()>) {
    let (send, receive) = channel();
    let up = Upstream::tcp(move |_, conn| {
        conn.read_until(|bytes| bytes.windows(4).any(|w| w == b"half"));
        let _ = send.send(());
        then(conn);
    });
    (up, receive)
}

/// Sends half of a body and waits until the upstream has it.
fn send_half(nginx: &Nginx, request: &[u8], there: &Receiver<()>) -> Client {
    let mut client = nginx.connect();
    client.send(request).expect("sent");
    there.recv_timeout(Duration::from_secs(5)).expect("half of the body");
    client
}

/// Guards against an upstream that goes away while it is being sent to having gone away at
/// another time, and against a request that it may have acted on being shown as repeated.
#[test]
fn the_upstream_leaves_halfway() {
    type End = fn(&mut Conn);
    let good = Upstream::tcp(script::ok("good"));
    for request in [HALF, HALF_CHUNKED] {
        let cases: [(End, _, _, _); 3] = [
            (Conn::close, "closed_before_response", json!("send"), Value::Null),
            (Conn::reset, "connection_reset", json!("send"), json!(104)),
            (
                |conn| {
                    conn.write("HTTP/1.1 200 OK\r\nConte");
                    conn.close();
                },
                "closed_in_header",
                json!("send"),
                Value::Null,
            ),
        ];
        for (end, cause, phase, errno) in cases {
            let (up, there) = halfway(end);
            let nginx = Nginx::start(proxy(&[&up.addr(), &good.addr()], UNBUFFERED));
            let mut client = send_half(&nginx, request, &there);
            let response = client.read_response(false).expect("a response");
            assert_eq!(response.status, 502, "{cause}");
            // nginx waits for the rest of the body, and only then ends the request.
            drop(client);
            diag::seen(&nginx, 0)
                .expect(
                    cause,
                    &json!({
                        "status": 502, "outcome": "failed", "phase": phase, "method": "PUT",
                        "attempts": [{"peer": up.addr(), "cause": cause, "errno": errno,
                                      "reused": false}],
                    }),
                )
                .in_header(&response);
            diag::finish(&nginx);
        }
    }
    assert_eq!(good.connections(), 0);
}

/// Guards against an answer that comes before the whole request being an error, or its end being
/// one: the client has it.
#[test]
fn the_upstream_answers_halfway() {
    for (answer, status) in [
        (script::response_with(413, "no"), 413),
        (script::response_with(200, "yes"), 200),
        (script::response_with(500, "own"), 500),
        (script::response_with(503, "own"), 503),
    ] {
        let (up, there) = halfway(move |conn| {
            conn.write(&answer);
            conn.wait_peer_close();
        });
        let nginx = Nginx::start(proxy(&[&up.addr()], UNBUFFERED));
        let mut client = send_half(&nginx, HALF, &there);
        let response = client.read_response(false).expect("a response");
        assert_eq!((response.status, response.truncated), (status, false));
        drop(client);
        if status == 503 {
            diag::seen(&nginx, 0)
                .expect("upstream_response", &json!({"status": 503, "outcome": "passed"}))
                .in_header(&response);
        } else {
            diag::assert_empty(&nginx.wait_json_lines("access.log", 1)[0]);
            assert_eq!(nginx.lines("diag.json"), [""; 0]);
        }
        diag::finish(&nginx);
    }
}

/// Guards against an upstream that does not take a body being the client that does not send one.
#[test]
fn the_upstream_does_not_read() {
    let up = Upstream::tcp(|_, conn| conn.hold());
    let nginx = Nginx::start(proxy(&[&up.addr()], UNBUFFERED).http("proxy_send_timeout 150ms;"));
    let size = 16 << 20;
    let mut request =
        format!("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.resize(request.len() + size, b'b');
    let response = nginx.request(&request);
    assert_eq!(response.status, 504);
    diag::seen(&nginx, 0)
        .expect(
            "send_timed_out",
            &json!({"phase": "send", "status": 504, "outcome": "failed",
                    "attempts": [{"peer": up.addr(), "errno": 110}]}),
        )
        .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against a body that was there for the first attempt only, and against that attempt
/// being lost: nginx can go on to another as long as nothing was sent, or when it has kept all.
#[test]
fn the_next_one_gets_the_body() {
    let dead = t::refused_port();
    let closing = Upstream::tcp(script::close_at_once());
    let good = Upstream::tcp(script::ok("good"));
    let size = 100_000;
    let mut body = vec![b'b'; size];
    body.extend(b"end");
    let mut request =
        format!("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend(&body);
    for (first, more, cause) in [
        (dead.addr(), UNBUFFERED, "connection_refused"),
        (dead.addr(), "", "connection_refused"),
        (closing.addr(), "", "closed_before_response"),
        (closing.addr(), "client_body_in_file_only on;", "closed_before_response"),
    ] {
        let nginx = Nginx::start(proxy(&[&first, &good.addr()], more));
        let asked = good.requests().len();
        let response = nginx.request(&request);
        assert_eq!((response.status, response.text().as_str()), (200, "good"), "{cause}");
        assert!(good.requests()[asked].ends_with(&body), "{cause}");
        diag::seen(&nginx, 0)
            .expect(
                cause,
                &json!({
                    "status": 200, "outcome": "masked",
                    "attempts": [{"peer": first, "cause": cause},
                                 {"peer": good.addr(), "cause": null, "status": 200}],
                }),
            )
            .in_header(&response);
        diag::finish(&nginx);
    }
}

/// Guards against requests that nginx refuses for their body being the upstream's failure.
#[test]
fn bodies_that_are_refused() {
    let dead = t::refused_port();
    let waiting = Upstream::tcp(|_, conn| conn.wait_peer_close());
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\nno chunk\r\n");
    let large = format!("{head}Content-Length: 1000\r\n\r\n");
    for (addr, more, request, status) in [
        (dead.addr(), "", &chunked, 400),
        (dead.addr(), "client_max_body_size 10;", &large, 413),
        (waiting.addr(), UNBUFFERED, &chunked, 400),
    ] {
        let nginx = Nginx::start(proxy(&[&addr], more));
        assert_eq!(nginx.request(request.as_bytes()).status, status);
        diag::assert_empty(&nginx.wait_json_lines("access.log", 1)[0]);
        assert_eq!(nginx.lines("diag.json"), [""; 0]);
        diag::finish(&nginx);
    }
}
