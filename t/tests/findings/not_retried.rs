//! `not_retried`, with each of its reasons.

use serde_json::json;
use t::h2::rst_stream;
use t::script::{self, End};
use t::{Nginx, RefusedPort, Upstream, diag, protocol};

use crate::{group, keepalive};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const POST: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";

/// Servers that fail in ways of their own, each by a letter.
struct Servers {
    dead: [RefusedPort; 3],
    closing: Upstream,
    silent: Upstream,
    cut: Upstream,
    large: Upstream,
    busy: Upstream,
    good: Upstream,
}

impl Servers {
    fn new() -> Self {
        Self {
            dead: [(); 3].map(|()| t::refused_port()),
            closing: Upstream::tcp(script::close_at_once()),
            silent: Upstream::tcp(script::silent()),
            cut: Upstream::tcp(script::partial_body(9, "good", End::Fin)),
            large: Upstream::tcp(script::big_header(9043)),
            busy: Upstream::tcp(script::status(503)),
            good: Upstream::tcp(script::ok("good")),
        }
    }

    fn addr(&self, letter: char) -> String {
        match letter {
            'd' => self.dead[0].addr(),
            'e' => self.dead[1].addr(),
            'f' => self.dead[2].addr(),
            'c' => self.closing.addr(),
            's' => self.silent.addr(),
            'b' => self.cut.addr(),
            'l' => self.large.addr(),
            'u' => self.busy.addr(),
            'g' => self.good.addr(),
            _ => panic!("nobody is {letter}"),
        }
    }

    /// nginx with a group that is tried in the order of these letters; one behind a dash is down.
    fn nginx(&self, letters: &str, location: &str) -> Nginx {
        let mut servers = String::new();
        let mut down = "";
        for letter in letters.chars() {
            if letter == '-' {
                down = " down";
                continue;
            }
            servers.push_str(&format!("server {} max_fails=0{down};", self.addr(letter)));
            down = "";
        }
        let timeout =
            if location.contains("read_timeout") { "" } else { "proxy_read_timeout 500ms;" };
        let location = format!("{timeout} {location}");
        Nginx::start(group(&servers, &location))
    }
}

/// Guards against a second server that stood idle by while the client got an error, and nobody who
/// says why; and against a reason that is none, so that what is changed does not help.
#[test]
fn reasons() {
    let servers = Servers::new();
    for (request, letters, location, cause, why, evidence) in [
        (
            GET,
            "dg",
            "proxy_next_upstream off;",
            "connection_refused",
            "proxy_next_upstream is off",
            json!({"reason": "not_configured", "servers": 2}),
        ),
        (
            GET,
            "dg",
            "proxy_next_upstream timeout;",
            "connection_refused",
            "proxy_next_upstream does not name error",
            json!({"reason": "not_configured", "servers": 2}),
        ),
        (
            GET,
            "sg",
            "proxy_next_upstream error;",
            "response_timed_out",
            "proxy_next_upstream does not name timeout",
            json!({"reason": "not_configured", "servers": 2}),
        ),
        (
            GET,
            "lgg",
            "proxy_buffer_size 4k; proxy_next_upstream error;",
            "header_too_big",
            "proxy_next_upstream does not name invalid_header",
            json!({"reason": "not_configured", "servers": 3}),
        ),
        (
            POST,
            "cg",
            "",
            "closed_before_response",
            "the request (POST) may have been carried out, and proxy_next_upstream does not name non_idempotent",
            json!({"reason": "non_idempotent", "servers": 2}),
        ),
        (
            GET,
            "dg",
            "proxy_next_upstream_tries 1;",
            "connection_refused",
            "proxy_next_upstream_tries is 1",
            json!({"reason": "tries", "servers": 2, "tries": 1}),
        ),
        (
            GET,
            "deg",
            "proxy_next_upstream_tries 2;",
            "connection_refused",
            "proxy_next_upstream_tries is 2",
            json!({"reason": "tries", "servers": 3, "tries": 2}),
        ),
        (
            GET,
            "sg",
            "proxy_next_upstream_timeout 300ms;",
            "response_timed_out",
            "proxy_next_upstream_timeout (0.300 s) was over",
            json!({"reason": "timeout", "servers": 2, "timeout": 0.3}),
        ),
        (
            GET,
            "de",
            "",
            "connection_refused",
            "each had been tried, is down or out",
            json!({"reason": "no_server_left", "servers": 2}),
        ),
        // An error of the upstream's own is none to nginx unless it is named.
        (
            GET,
            "ug",
            "",
            "upstream_response",
            "proxy_next_upstream does not name http_503",
            json!({"reason": "not_configured", "servers": 2}),
        ),
        (
            POST,
            "ug",
            "proxy_next_upstream http_503;",
            "upstream_response",
            "the request (POST) may have been carried out, and proxy_next_upstream does not name non_idempotent",
            json!({"reason": "non_idempotent", "servers": 2}),
        ),
        // More tries than servers: it is not their number.
        (
            GET,
            "de",
            "proxy_next_upstream_tries 3;",
            "connection_refused",
            "each had been tried, is down or out",
            json!({"reason": "no_server_left", "servers": 2}),
        ),
        // As many: more would find nobody.
        (
            GET,
            "de",
            "proxy_next_upstream_tries 2;",
            "connection_refused",
            "each had been tried, is down or out",
            json!({"reason": "no_server_left", "servers": 2}),
        ),
        // One that is down is none.
        (
            GET,
            "de-g",
            "proxy_next_upstream_tries 2;",
            "connection_refused",
            "each had been tried, is down or out",
            json!({"reason": "no_server_left", "servers": 3}),
        ),
        (
            GET,
            "bg",
            "",
            "response_truncated",
            "the client had got a part of the response",
            json!({"reason": "response_started", "servers": 2}),
        ),
    ] {
        let nginx = servers.nginx(letters, location);
        let response = nginx.request(request.as_bytes());
        assert!(response.status >= 500 || response.truncated, "{letters} {location}");
        let seen = diag::seen(&nginx, 0);
        seen.expect(cause, &json!({})).finds(
            "not_retried",
            "certain",
            &format!("nginx tried no other server of \"u\": {why}."),
            &evidence,
        );
        diag::finish(&nginx);
    }
}

/// Guards against the same where nginx has nothing left that it could send again: it does not keep a
/// body of which it passes on each piece as it comes.
#[test]
fn body_is_gone() {
    let closing = Upstream::tcp(|_, conn| {
        conn.read_until(|bytes| bytes.ends_with(b"half"));
    });
    let good = Upstream::tcp(script::ok("good"));
    let servers = format!("server {}; server {};", closing.addr(), good.addr());
    let nginx = Nginx::start(group(&servers, "proxy_request_buffering off;"));
    let mut client = nginx.connect();
    let request = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf";
    assert_eq!(client.request(request).status, 502);
    // nginx waits for the rest of the body, and only then ends the request.
    drop(client);
    let seen = diag::seen(&nginx, 0);
    seen.expect("closed_before_response", &json!({"outcome": "failed"})).finds(
        "not_retried",
        "certain",
        "nginx tried no other server of \"u\": a part of the request had been sent, and it is not buffered.",
        &json!({"reason": "request_not_buffered", "servers": 2}),
    );
    diag::finish(&nginx);
}

/// Guards against the finding where another server was tried, where there is none, and where the
/// client noticed nothing or did not wait.
#[test]
fn nothing_to_explain() {
    let servers = Servers::new();
    for (request, letters, location, status) in [
        (GET, "dg", "", 200),
        (POST, "dg", "", 200),
        (POST, "cg", "proxy_next_upstream error non_idempotent;", 200),
        (PUT, "cg", "", 200),
        (GET, "sg", "proxy_next_upstream_timeout 30s;", 200),
        (GET, "d", "proxy_next_upstream off;", 502),
        (
            GET,
            "dg",
            "proxy_next_upstream off; error_page 502 =200 /page; location /page { return 200; }",
            200,
        ),
        // None could be chosen at all: that is what the record says.
        (GET, "-d-e", "", 502),
    ] {
        let nginx = servers.nginx(letters, location);
        assert_eq!(nginx.request(request.as_bytes()).status, status, "{letters} {location}");
        diag::seen(&nginx, 0).is_silent("not_retried");
        diag::finish(&nginx);
    }

    let nginx = servers.nginx("ds", "proxy_read_timeout 30s;");
    let asked = servers.silent.requests().len();
    let mut client = nginx.connect();
    client.send(GET.as_bytes()).expect("sent");
    servers.silent.wait_requests(asked + 1);
    drop(client);
    diag::seen(&nginx, 0)
        .expect("connection_refused", &json!({"status": 499, "outcome": "aborted"}))
        .is_silent("not_retried");
    diag::finish(&nginx);
}

/// Guards against words of the proxy module in front of another, and against a condition that is
/// another to that: a stream of HTTP/2 that is reset is an invalid header to nginx.
#[test]
fn words_of_the_module() {
    let grpc = protocol::grpc();
    let resets = Upstream::tcp(move |_, conn| {
        if (grpc.read)(conn) {
            conn.write(rst_stream(2));
            conn.wait_peer_close();
        }
    });
    let dead = t::refused_port();
    for (module, addr, conditions, cause, why) in [
        ("fastcgi", dead.addr(), "off", "connection_refused", "is off"),
        ("uwsgi", dead.addr(), "timeout", "connection_refused", "does not name error"),
        ("grpc", resets.addr(), "error", "stream_reset", "does not name invalid_header"),
    ] {
        let nginx = Nginx::start(
            diag::conf(format!(
                "location / {{ {module}_next_upstream {conditions}; {module}_pass u; }}"
            ))
            .http(format!("upstream u {{ server {addr}; server 127.0.0.1:1 backup; }}")),
        );
        let seen = crate::fails(&nginx, 0);
        seen.expect(cause, &json!({"module": module})).finds(
            "not_retried",
            "certain",
            &format!("nginx tried no other server of \"u\": {module}_next_upstream {why}."),
            &json!({"reason": "not_configured", "servers": 2}),
        );
        diag::finish(&nginx);
    }
}

/// Guards against 502s to POSTs alone that nobody explains: of a single server, a GET on a reused
/// connection that was closed is answered on a fresh one.
#[test]
fn again_on_a_fresh_connection() {
    for (request, location, why, reason) in [
        (
            POST,
            "",
            "the request (POST) may have been carried out, and proxy_next_upstream does not name non_idempotent",
            "non_idempotent",
        ),
        (GET, "proxy_next_upstream off;", "proxy_next_upstream is off", "not_configured"),
        (
            GET,
            "proxy_next_upstream timeout;",
            "proxy_next_upstream does not name error",
            "not_configured",
        ),
    ] {
        let up = Upstream::tcp(script::keepalive_then_close_on_next(End::Fin));
        let nginx = Nginx::start(keepalive(&format!("server {};", up.addr()), location));
        assert_eq!(nginx.get("/").text(), "first");
        assert_eq!(nginx.request(request.as_bytes()).status, 502);
        let seen = diag::seen(&nginx, 0);
        seen.expect("keepalive_race", &json!({"outcome": "failed"})).finds(
            "not_retried",
            "certain",
            &format!("nginx did not try again on a fresh connection: {why}."),
            &json!({"reason": reason, "servers": 1}),
        );
        assert_eq!(seen.codes(), ["not_retried", "single_server"]);
        diag::finish(&nginx);
    }

    // It is tried again, and fails: there is nothing left to try.
    let up = Upstream::tcp(|index, conn| {
        if conn.read_request().is_some() && index == 0 {
            conn.write(script::response("first"));
            drop(conn.read_request());
        }
    });
    let nginx = Nginx::start(keepalive(&format!("server {};", up.addr()), ""));
    assert_eq!(nginx.get("/").text(), "first");
    let seen = crate::fails(&nginx, 0);
    seen.expect(
        "closed_before_response",
        &json!({"attempts": [
            {"cause": "keepalive_race"}, {"cause": "closed_before_response"},
        ]}),
    );
    assert_eq!(seen.codes(), ["single_server"]);
    diag::finish(&nginx);
}
