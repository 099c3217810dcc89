//! A peer that worked: `went_away`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;
use t::ports::Reservation;
use t::{Nginx, RefusedPort, Upstream, diag, script};

use crate::{fails, group, pass};

/// How long ago the last good answer can have been.
const LATELY: [f64; 2] = [0.0, 5.0];

/// Guards against a server that worked a moment ago looking like one that never did. Nobody
/// listens any more, says the kernel: that is certain.
#[test]
fn nobody_listens_any_more() {
    let port = t::refused_port();
    let addr = port.addr();
    let up = Upstream::tcp_at(&port, script::ok("good"));
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    for _ in 0..3 {
        assert_eq!(nginx.get("/").text(), "good");
    }
    drop(up);
    for (n, since) in [(0, "the attempt since has failed"), (1, "both attempts since have failed")]
    {
        let seen = fails(&nginx, n);
        seen.expect("connection_refused", &json!({})).finds(
            "went_away",
            "certain",
            &format!("{addr} answered until <last_ok> ago; {since}."),
            &json!({"last_ok": LATELY, "ok": 3, "failures": n + 1, "failing_for": LATELY}),
        );
        assert_eq!(seen.codes(), ["nothing_listening", "went_away", "single_server"]);
    }
    diag::finish(&nginx);
}

/// Guards against the same on a unix socket, and against a file that is gone being told as one that
/// was never there.
#[test]
fn socket_is_gone() {
    let dir = t::temp_dir();
    let file = dir.path().join("up.sock");
    let up = Upstream::unix(&file, script::ok("good"));
    let addr = up.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    assert_eq!(nginx.get("/").text(), "good");
    drop(up);
    let text = |since| format!("{addr} answered until <last_ok> ago; {since}.");
    let seen = fails(&nginx, 0);
    seen.expect("connection_refused", &json!({})).finds(
        "went_away",
        "certain",
        &text("the attempt since has failed"),
        &json!({"last_ok": LATELY, "ok": 1, "failures": 1, "failing_for": LATELY}),
    );
    assert_eq!(seen.codes(), ["nothing_listening", "went_away", "single_server"]);

    fs::remove_file(&file).expect("the file of the socket");
    let seen = fails(&nginx, 1);
    seen.expect("socket_not_found", &json!({})).finds(
        "went_away",
        "certain",
        &text("both attempts since have failed"),
        &json!({"last_ok": LATELY, "ok": 1, "failures": 2, "failing_for": LATELY}),
    );
    seen.advises(
        "went_away",
        &format!("See whether the process runs and listens (ss -lxp), and why it ended: {addr} answered until <last_ok> ago."),
    );
    assert_eq!(seen.codes(), ["went_away", "single_server"]);
    diag::finish(&nginx);
}

/// A port that refuses, while something listens on it at another address: the kernel does not say
/// that nobody does.
fn half_open() -> (RefusedPort, std::net::TcpListener) {
    let port = t::refused_port();
    let other = std::net::TcpListener::bind(("::1", port.port())).expect("a reserved port");
    (port, other)
}

/// Guards against more certainty than there is: one connection that was refused can be a moment in
/// which a process is replaced, two are likely none; unless the server refuses some and takes some
/// all the time, as several behind one address do of which one is down.
#[test]
fn refused_once_and_twice() {
    let (port, _other) = half_open();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!("server {addr} max_fails=0;"), ""));
    let mut records = 0;
    let mut fails = |confidence, ok, failures| {
        let since = match failures {
            1 => "the attempt since has failed".to_owned(),
            2 => "both attempts since have failed".to_owned(),
            n => format!("all {n} attempts since have failed"),
        };
        let seen = fails(&nginx, records);
        records += 1;
        seen.finds(
            "went_away",
            confidence,
            &format!("{addr} answered until <last_ok> ago; {since}."),
            &json!({"last_ok": LATELY, "ok": ok, "failures": failures, "failing_for": LATELY}),
        );
        assert_eq!(seen.codes()[0], "bound_elsewhere");
    };
    let works = || {
        // Of what happens within one of nginx's milliseconds it is not known what came first.
        pass(20);
        let up = Upstream::tcp_at(&port, script::ok("good"));
        assert_eq!(nginx.get("/").text(), "good");
        drop(up);
    };
    works();
    fails("possible", 1, 1);
    fails("likely", 1, 2);
    works();
    fails("possible", 2, 1);
    works();
    fails("possible", 3, 1);
    works();
    fails("possible", 4, 1);
    fails("possible", 4, 2);
    diag::finish(&nginx);
}

/// Guards against a server being told to have gone that is there: connections are made, and fail
/// later. And against one that never worked.
#[test]
fn not_gone() {
    let up = Upstream::tcp(|index, conn| {
        if conn.read_request().is_some() && index == 0 {
            conn.write(script::response("good"));
        }
    });
    let dead = t::refused_port();
    for (addr, works) in [(up.addr(), true), (dead.addr(), false)] {
        let nginx = Nginx::start(group(&format!("server {addr};"), ""));
        if works {
            assert_eq!(nginx.get("/").text(), "good");
        }
        for n in 0..3 {
            fails(&nginx, n).is_silent("went_away");
        }
        diag::finish(&nginx);
    }
}

/// Guards against an answer that does not come being as sure as a refusal: three are to be seen.
#[test]
fn no_answer_any_more() {
    let port = Reservation::v4().expect("a port");
    let addr = port.addr();
    let listener = port.listen(0).expect("a listener");
    let conf = group(&format!("server {addr};"), "proxy_connect_timeout 200ms;");
    let nginx = Nginx::start(conf);
    let mut client = nginx.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut accepted = TcpStream::from(listener.accept().expect("a connection").0);
    let _ = accepted.read(&mut [0; 4096]).expect("a request");
    accepted.write_all(&script::response("good")).expect("sent");
    assert_eq!(client.read_response(false).expect("a response").text(), "good");
    drop(accepted);

    // It accepts nobody any more.
    let _waiting = fill(addr);
    for n in 0..2 {
        let seen = fails(&nginx, n);
        seen.expect("connection_timed_out", &json!({})).is_silent("went_away");
    }
    let seen = fails(&nginx, 2);
    seen.finds(
        "went_away",
        "possible",
        &format!("{addr} answered until <last_ok> ago; all 3 attempts since have failed."),
        &json!({"last_ok": LATELY, "ok": 1, "failures": 3, "failing_for": LATELY}),
    );
    assert_eq!(seen.codes(), ["listen_backlog_full", "single_server", "went_away"]);
    diag::finish(&nginx);
}

/// Connections that wait, until there is no room for more.
fn fill(addr: SocketAddr) -> Vec<TcpStream> {
    let hang = std::time::Duration::from_millis(200);
    std::iter::from_fn(|| TcpStream::connect_timeout(&addr, hang).ok()).take(8).collect()
}
