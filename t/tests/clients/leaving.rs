//! Clients that leave, in every phase: nothing is said of it unless an attempt had failed before.

use std::time::Duration;

use serde_json::json;
use t::dns::Answer;
use t::{Dns, Nginx, Upstream, diag};

use crate::{GET, REFUSED, assert_silence, proxy};

/// A client that leaves at a certain point.
struct Leaving<'a> {
    /// The peer that has no part in it.
    addr: String,
    more: &'a str,
    sent: &'a [u8],
    /// Waits until it is that far.
    there: &'a dyn Fn(&Nginx, &mut t::Client),
    status: u16,
}

impl Leaving<'_> {
    /// Checks that nothing is said of it, unless an attempt had failed before.
    fn check(&self) {
        let dead = t::refused_port();
        for behind in [false, true] {
            for reset in [false, true] {
                let both = [dead.addr(), self.addr.clone()];
                let servers: Vec<&str> =
                    both.iter().skip(usize::from(!behind)).map(String::as_str).collect();
                let nginx = Nginx::start(proxy(&servers, self.more).log_level("debug"));
                let mut client = nginx.connect();
                client.send(self.sent).expect("sent");
                (self.there)(&nginx, &mut client);
                if reset {
                    client.reset().expect("to be closed with RST");
                } else {
                    drop(client);
                }
                if !behind {
                    assert_silence(&nginx, &self.status.to_string());
                    continue;
                }
                diag::seen(&nginx, 0).expect(
                    REFUSED,
                    &json!({
                        "status": self.status, "outcome": "aborted", "phase": "connect",
                        "attempts": [
                            {"peer": dead.addr(), "cause": REFUSED, "status": 502},
                            {"peer": self.addr, "cause": null, "phase": null, "errno": null,
                             "message": null},
                        ],
                    }),
                );
                diag::finish(&nginx);
            }
        }
    }
}

/// Guards against a client that leaves while nginx connects being a connect that failed.
#[test]
fn leaves_while_connecting() {
    let full = t::full_backlog_tcp();
    let connecting = format!("connect to {},", full.addr());
    Leaving {
        addr: full.addr().to_owned(),
        more: "",
        sent: GET,
        there: &|nginx, _| drop(nginx.wait_for_log(&connecting, Duration::from_secs(5))),
        status: 499,
    }
    .check();
}

/// Guards against a client that leaves during the handshake being a handshake that failed.
#[test]
fn leaves_while_shaking_hands() {
    let (send, receive) = std::sync::mpsc::channel();
    let up = Upstream::tcp(move |_, conn| {
        conn.wait_readable();
        let _ = send.send(());
        conn.wait_peer_close();
    });
    Leaving {
        addr: up.addr(),
        // Not reached: the last one counts.
        more: "if ($host) { proxy_pass https://u; break; }",
        sent: GET,
        there: &|_, _| receive.recv_timeout(Duration::from_secs(5)).expect("a handshake"),
        status: 499,
    }
    .check();
}

/// Guards against a body that the client did not finish being one that the upstream did not take.
#[test]
fn leaves_while_uploading() {
    let (send, receive) = std::sync::mpsc::channel();
    let up = Upstream::tcp(move |_, conn| {
        conn.read_until(|bytes| bytes.ends_with(b"half"));
        let _ = send.send(());
        conn.wait_peer_close();
    });
    Leaving {
        addr: up.addr(),
        more: "proxy_request_buffering off;",
        sent: b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf",
        there: &|_, _| receive.recv_timeout(Duration::from_secs(5)).expect("half of the body"),
        status: 400,
    }
    .check();
}

/// Guards against a client that does not wait being an upstream that does not answer.
#[test]
fn leaves_while_waiting() {
    let (send, receive) = std::sync::mpsc::channel();
    let up = Upstream::tcp(move |_, conn| {
        conn.read_request();
        let _ = send.send(());
        conn.wait_peer_close();
    });
    Leaving {
        addr: up.addr(),
        more: "",
        sent: GET,
        there: &|_, _| receive.recv_timeout(Duration::from_secs(5)).expect("a request"),
        status: 499,
    }
    .check();
}

/// Guards against a client that does not take all of a response being a response that was cut.
#[test]
fn leaves_while_receiving() {
    let up = Upstream::tcp(|_, conn| {
        conn.read_request();
        // More than nginx keeps to itself until there is more.
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart");
        conn.write([b'x'; 50_000]);
        conn.wait_peer_close();
    });
    for more in ["", "proxy_buffering off;"] {
        Leaving {
            addr: up.addr(),
            more,
            sent: GET,
            there: &|_, client| client.wait_for(b"\r\n\r\npart"),
            status: 200,
        }
        .check();
    }
}

/// Guards against a client that leaves before there is an upstream being a name that could not
/// be resolved.
#[test]
fn leaves_before_there_is_an_upstream() {
    let dns = Dns::start([("slow.example", Answer::Silent)]);
    let nginx = Nginx::start(diag::conf(format!(
        "resolver {} ipv6=off; location / {{ set $h slow.example; proxy_pass http://$h; }}",
        dns.addr()
    )));
    let mut client = nginx.connect();
    client.send(GET).expect("sent");
    t::eventually("a query", Duration::from_secs(5), || (!dns.queries().is_empty()).then_some(()));
    drop(client);
    assert_silence(&nginx, "499");

    // Nor is one asked before the body is whole.
    let dead = t::refused_port();
    let nginx = Nginx::start(proxy(&[&dead.addr()], ""));
    let mut client = nginx.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf")
        .expect("sent");
    drop(client);
    assert_silence(&nginx, "400");
}
