//! Connections that are upgraded, as WebSocket's are: which ends are failures.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, assert_in};
use t::script::{self, End};
use t::{Conf, Conn, Gate, Nginx, Upstream};

const ASK: &[u8] = b"GET /chat?a=b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
const ACCEPT: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";

/// A server that lets connections be upgraded, in front of these servers.
fn tunnels(servers: &[&str]) -> Conf {
    let servers: String = servers.iter().map(|server| format!("server {server};")).collect();
    diag::conf(
        "location / { proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                      proxy_set_header Connection $http_connection; proxy_pass http://u; }",
    )
    .http(format!("upstream u {{ {servers} }}"))
}

/// Accepts the upgrade and sends back what comes first.
fn accept(conn: &mut Conn) {
    conn.read_request();
    conn.write(ACCEPT);
    let first = conn.read_some();
    conn.write(first.unwrap_or_default());
}

/// A client whose connection was upgraded and works.
struct Tunnel(TcpStream);

impl Tunnel {
    fn open(nginx: &Nginx) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", nginx.port())).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.write_all(ASK).expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a whole header");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream.write_all(b"ping").expect("sent");
        let mut pong = [0; 4];
        stream.read_exact(&mut pong).expect("what was sent");
        assert_eq!(&pong, b"ping");
        Self(stream)
    }

    /// Waits until nginx closes.
    fn wait_closed(mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

/// The only line of the access log, of a request that nothing is wrong with.
fn assert_good(nginx: &Nginx, status: &str) {
    let line = nginx.wait_json_lines("access.log", 1).remove(0);
    assert_eq!(line["status"], status);
    diag::assert_empty(&line);
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    diag::finish(nginx);
}

/// Guards against a request for an upgrade being diagnosed otherwise than any other before it is
/// granted, and against an answer that does not grant it being a failure.
#[test]
fn not_upgraded() {
    let dead = t::refused_port();
    let reset = Upstream::tcp(script::reset_at_once());
    let half = Upstream::tcp(script::raw("HTTP/1.1 101 Switching Protocols\r\nUpgr"));
    let silent = Upstream::tcp(script::silent());
    let [ok, no, found, own] =
        [200, 403, 302, 503].map(|status| Upstream::tcp(script::status(status)));
    for (addr, status, cause, phase, outcome) in [
        (dead.addr(), 502, "connection_refused", json!("connect"), "failed"),
        (reset.addr(), 502, "connection_reset", json!("header"), "failed"),
        (half.addr(), 502, "closed_in_header", json!("header"), "failed"),
        (silent.addr(), 504, "response_timed_out", json!("header"), "failed"),
        (own.addr(), 503, "upstream_response", Value::Null, "passed"),
        (ok.addr(), 200, "", Value::Null, ""),
        (no.addr(), 403, "", Value::Null, ""),
        (found.addr(), 302, "", Value::Null, ""),
    ] {
        let timeout = if addr == silent.addr() { "proxy_read_timeout 150ms;" } else { "" };
        let nginx = Nginx::start(tunnels(&[&addr]).http(timeout));
        let response = nginx.request(ASK);
        assert_eq!(response.status, status, "{cause}");
        if cause.is_empty() {
            assert_good(&nginx, &status.to_string());
            continue;
        }
        diag::seen(&nginx, 0)
            .expect(
                cause,
                &json!({"status": status, "phase": phase, "outcome": outcome, "uri": "/chat",
                        "attempts": [{"peer": addr, "cause": cause, "status": status}]}),
            )
            .in_header(&response);
        diag::finish(&nginx);
    }
}

/// Guards against the end of a session, by whichever side and however long after the upgrade,
/// being a failure.
#[test]
fn sessions_end() {
    let closing = Upstream::tcp(|_, conn| accept(conn));
    let at_once = Upstream::tcp(script::raw(ACCEPT));
    let open = Upstream::tcp(|_, conn| {
        accept(conn);
        conn.wait_peer_close();
    });

    let nginx = Nginx::start(tunnels(&[&closing.addr()]));
    Tunnel::open(&nginx).wait_closed();
    assert_good(&nginx, "101");

    let nginx = Nginx::start(tunnels(&[&at_once.addr()]));
    let mut client = nginx.connect();
    assert_eq!(client.request(ASK).status, 101);
    assert!(client.wait_closed());
    assert_good(&nginx, "101");

    for leave in [
        |tunnel: Tunnel| drop(tunnel),
        |tunnel: Tunnel| {
            tunnel.0.shutdown(Shutdown::Write).expect("shutdown");
            tunnel.wait_closed();
        },
        |tunnel: Tunnel| {
            let socket = socket2::SockRef::from(&tunnel.0);
            socket.set_linger(Some(Duration::ZERO)).expect("to be closed with RST");
            drop(tunnel);
        },
    ] {
        let nginx = Nginx::start(tunnels(&[&open.addr()]));
        leave(Tunnel::open(&nginx));
        assert_good(&nginx, "101");
    }
}

/// Guards against a session that the upstream broke off counting as one that ended.
#[test]
fn sessions_are_reset() {
    let up = Upstream::tcp(|_, conn| {
        accept(conn);
        // What follows is unread, or not sent yet: either way it is the reset that ends it.
        conn.wait_readable();
        conn.reset();
    });
    let nginx = Nginx::start(tunnels(&[&up.addr()]));
    let mut tunnel = Tunnel::open(&nginx);
    tunnel.0.write_all(b"more").expect("sent");
    tunnel.wait_closed();
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "response_truncated",
        &json!({
            "status": 101, "phase": "body", "outcome": "truncated", "origin": "nginx",
            "attempts": [{
                "peer": up.addr(), "cause": "response_truncated", "phase": "body", "status": 101,
                "errno": 104, "errname": "ECONNRESET", "reused": false,
                "message": "recv() failed (104: Connection reset by peer)",
            }],
        }),
    );
    diag::finish(&nginx);
}

/// Guards against a session that the upstream let stall ending unexplained: nginx says so at
/// level info only, whatever the level of its log.
#[test]
fn sessions_stall() {
    for level in ["info", "crit"] {
        let up = Upstream::tcp(|_, conn| {
            accept(conn);
            conn.wait_peer_close();
        });
        let nginx =
            Nginx::start(tunnels(&[&up.addr()]).http("proxy_read_timeout 1s;").log_level(level));
        Tunnel::open(&nginx).wait_closed();
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "body_timed_out",
            &json!({
                "status": 101, "phase": "body", "outcome": "truncated", "origin": "nginx",
                "attempts": [{
                    "peer": up.addr(), "cause": "body_timed_out", "phase": "body", "status": 101,
                    "errno": 110, "errname": "ETIMEDOUT", "reused": false,
                    "tcp": {"state": "ESTABLISHED"},
                }],
            }),
        );
        assert_in(&seen.attempt(0)["elapsed"], 1.0..5.0);
        diag::finish(&nginx);
    }
}

/// Guards against an upstream that does not read being one that does not send, with advice about
/// the wrong timeout: nginx has the same words for both.
#[test]
fn sessions_back_up() {
    let up = Upstream::tcp(|_, conn| {
        accept(conn);
        conn.hold();
    });
    let nginx = Nginx::start(tunnels(&[&up.addr()]).http("proxy_send_timeout 200ms;"));
    let tunnel = Tunnel::open(&nginx);
    tunnel.0.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    // More than all buffers on the way hold. nginx takes the rest when it has given up.
    let send = std::thread::spawn(move || {
        let _ = (0..64).all(|_| (&tunnel.0).write_all(&[0; 1 << 20]).is_ok());
    });
    nginx.wait_for_log("upstream timed out", Duration::from_secs(5));
    send.join().expect("no panic");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "send_timed_out",
        &json!({
            "status": 101, "outcome": "truncated", "origin": "nginx",
            "attempts": [{"peer": up.addr(), "cause": "send_timed_out", "status": 101,
                          "errno": 110}],
        }),
    );
    diag::finish(&nginx);
}

/// Guards against an attempt before the upgrade being lost in a session that ends well, or
/// becoming its verdict in one that does not.
#[test]
fn sessions_after_a_failed_attempt() {
    let dead = t::refused_port();
    for (end, cause, outcome, second) in [
        (None, "connection_refused", "masked", Value::Null),
        (Some(End::Fin), "connection_refused", "masked", Value::Null),
        (Some(End::Rst), "response_truncated", "truncated", json!("response_truncated")),
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        let up = Upstream::tcp(move |_, conn| {
            accept(conn);
            match end {
                Some(End::Fin) => conn.close(),
                Some(End::Rst) => {
                    conn.wait(&held);
                    conn.reset();
                }
                None => conn.wait_peer_close(),
            }
        });
        let nginx = Nginx::start(tunnels(&[&dead.addr(), &up.addr()]));
        let tunnel = Tunnel::open(&nginx);
        gate.open();
        if end.is_some() {
            tunnel.wait_closed();
        } else {
            drop(tunnel);
        }
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            cause,
            &json!({
                "status": 101, "outcome": outcome,
                "attempts": [
                    {"peer": dead.addr(), "cause": "connection_refused", "status": 502},
                    {"peer": up.addr(), "cause": second, "status": 101},
                ],
            }),
        );
        diag::finish(&nginx);
    }
}

/// Guards against an upgrade where there is nobody to be upgraded bringing nginx down, or leaving
/// no trace of why the page lacks a part.
#[test]
fn subrequests_cannot_be_upgraded() {
    let up = Upstream::tcp(script::raw(ACCEPT));
    let nginx = Nginx::start(diag::conf(format!(
        "location = /page.html {{ ssi on; root {{prefix}}/tmp; }}
         location /part {{ proxy_http_version 1.1; proxy_set_header Upgrade websocket;
                           proxy_set_header Connection upgrade; proxy_pass http://{}; }}",
        up.addr()
    )));
    let page = nginx.path("tmp/page.html");
    std::fs::write(page, "a<!--#include virtual=\"/part\" -->b").expect("page.html");
    // It is the client's header that nginx goes by.
    nginx.get_with("/page.html", "Upgrade: websocket\r\n");
    diag::subrequest(&nginx, 0).expect(
        "unknown",
        &json!({"uri": "/part", "outcome": "truncated",
                "attempts": [{"message": "connection upgrade in subrequest"}]}),
    );
    diag::finish(&nginx);
}
