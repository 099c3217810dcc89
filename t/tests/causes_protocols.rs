//! The protocols beside HTTP. `faults` has the table of what can fail in all of them; what only
//! one has is in `fastcgi`, `grpc` and `lines`.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "causes_protocols/fastcgi.rs"]
mod fastcgi;
#[path = "causes_protocols/faults.rs"]
mod faults;
#[path = "causes_protocols/grpc.rs"]
mod grpc;
#[path = "causes_protocols/lines.rs"]
mod lines;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use t::client::Response;
use t::diag::{self, Seen};
use t::{Conf, Conn, Nginx, Upstream};

/// nginx's words for a FIN.
const CLOSED: &str = "upstream prematurely closed connection";

/// Bytes of a header that is too big, framing aside.
const BIG: usize = 13_000;

/// A protocol as its upstream speaks it.
struct Protocol {
    /// The module's name, and the start of its directives.
    name: &'static str,
    /// Directives beside the one that passes the request on.
    location: &'static str,
    /// Reads a request.
    read: fn(&mut Conn) -> bool,
    /// A response with the body "good".
    good: Vec<u8>,
    /// The application's own 503, in protocols that have one.
    unavailable: Option<Vec<u8>>,
    /// A part of a header.
    half_header: Vec<u8>,
    /// A header of about so many bytes, and its exact length in this protocol.
    big_header: fn(usize) -> (Vec<u8>, usize),
    /// A header and a part of the body it promises.
    half_body: Vec<u8>,
    /// What else makes nginx notice that a body was cut by FIN.
    sees_fin: &'static str,
}

/// How a connection ends.
#[derive(Clone, Copy)]
enum End {
    Fin,
    Rst,
    /// By nginx.
    Wait,
}

/// A row of the table.
struct Row {
    /// What the upstream does when it has the request.
    sends: Vec<u8>,
    end: End,
    /// Directives.
    http: String,
    cause: &'static str,
    rest: Value,
}

impl Row {
    fn new(sends: impl Into<Vec<u8>>, end: End, cause: &'static str, rest: Value) -> Self {
        Self { sends: sends.into(), end, http: String::new(), cause, rest }
    }

    fn with(mut self, http: impl Into<String>) -> Self {
        self.http = http.into();
        self
    }
}

/// What a failure before the header's end has in common.
fn failed(status: u16, attempt: Value) -> Value {
    rest("header", "failed", status, attempt)
}

/// The same for one behind it.
fn truncated(attempt: Value) -> Value {
    rest("body", "truncated", 200, attempt)
}

fn rest(phase: &str, outcome: &str, status: u16, attempt: Value) -> Value {
    json!({"phase": phase, "outcome": outcome, "status": status, "attempts": [attempt]})
}

/// Evidence of bytes that are no header: they are shown.
fn shown(bytes: &[u8], message: &str) -> Value {
    let first = bytes[..bytes.len().min(32)].escape_ascii().to_string();
    failed(502, json!({"message": message, "first_bytes": first, "bytes_received": bytes.len()}))
}

impl Protocol {
    fn upstream(&self, sends: &[u8], end: End) -> Upstream {
        let (read, sends) = (self.read, sends.to_vec());
        Upstream::tcp(move |_, conn| {
            if read(conn) && conn.write(&sends) {
                match end {
                    End::Fin => {}
                    End::Rst => conn.reset(),
                    End::Wait => conn.wait_peer_close(),
                }
            }
        })
    }

    /// Sends what there is of a response at once, so that the client gets it in any case.
    fn conf(&self, addr: &str) -> Conf {
        let Self { name, location, .. } = self;
        diag::conf(format!(
            "location / {{ {location} {name}_pass {addr}; }} location /own {{ return 200 page; }}"
        ))
        .http(format!("postpone_output 0; {name}_buffer_size 4k;"))
    }

    /// Runs every row with an nginx of its own. One that fails does not hide the next.
    fn run(&self, rows: impl IntoIterator<Item = (&'static str, Row)>) {
        let wrong: Vec<&str> = rows
            .into_iter()
            .filter(|(_, row)| catch_unwind(AssertUnwindSafe(|| self.check(row))).is_err())
            .map(|(what, _)| what)
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.name);
    }

    fn check(&self, row: &Row) {
        let up = self.upstream(&row.sends, row.end);
        self.check_at(&up.addr(), row);
    }

    fn check_at(&self, addr: &str, row: &Row) -> Seen {
        let nginx = Nginx::start(self.conf(addr).http(&row.http));
        // Stays: a client that leaves when it has what it was promised ends the request.
        let mut client = nginx.connect();
        let response = client.get("/");
        let seen = diag::seen(&nginx, 0);
        let cause = row.cause;
        seen.expect(cause, &row.rest).expect(
            cause,
            &json!({
                "module": self.name,
                "origin": if cause == "upstream_response" { "upstream" } else { "nginx" },
                "attempts": [{"peer": addr, "cause": cause, "reused": null_or_false(&seen)}],
            }),
        );
        if seen.variable("phase") != "body" {
            seen.in_header(&response);
        }
        assert_eq!(response.status, seen.record["status"], "{response:?}");
        // A value of memcached is whole, as far as its client can tell, before its last line.
        let truncated = seen.variable("outcome") == "truncated" && self.name != "memcached";
        assert!(response.truncated || !truncated, "{response:?}");
        self.check_words(&seen);
        diag::finish(&nginx);
        seen
    }

    /// Directives are named as this protocol has them: what its user can set.
    fn check_words(&self, seen: &Seen) {
        for name in ["summary", "advice"] {
            // What to use instead, and one of the schemes for TLS that are listed.
            let text = seen.variable(name).replace("Use proxy_pass", "");
            let text = text.replace("(https:// in proxy_pass, grpcs:// in grpc_pass", "");
            assert!(!text.contains("proxy_"), "{}, {name}: {text}", self.name);
        }
    }

    /// A response that is none of the module's business.
    fn no_trace(&self, sends: &[u8], end: End, http: &str, status: u16) -> Response {
        let up = self.upstream(sends, end);
        let nginx = Nginx::start(self.conf(&up.addr()).http(http));
        let mut client = nginx.connect();
        let response = client.get("/");
        assert_eq!((response.status, response.truncated), (status, false), "{response:?}");
        nginx.wait_lines("access.log", 1);
        assert_eq!(nginx.lines("diag.json"), [""; 0], "{}", self.name);
        diag::finish(&nginx);
        response
    }

    /// Bytes that come before the first of the response's own.
    fn greeting(&self) -> usize {
        if self.name == "grpc" { t::h2::settings().len() } else { 0 }
    }
}

/// `reused` is told with nginx's words; without a line nobody has looked at the connection.
fn null_or_false(seen: &Seen) -> Value {
    if seen.attempt(0)["message"].is_null() { Value::Null } else { false.into() }
}

fn protocols() -> [Protocol; 5] {
    [fastcgi::protocol(), lines::uwsgi(), lines::scgi(), grpc::protocol(), lines::memcached()]
}

/// Guards against a healthy response of any protocol leaving a trace: framing behind it, trailers.
#[test]
fn a_good_response_leaves_no_trace() {
    for protocol in protocols() {
        let good = &protocol.good;
        assert_eq!(protocol.no_trace(good, End::Fin, "", 200).text(), "good", "{}", protocol.name);
    }
}

/// Guards against the protocol deciding what a failed connection is called.
#[test]
fn refused() {
    for protocol in protocols() {
        let port = t::refused_port();
        let row = Row::new(
            "",
            End::Fin,
            "connection_refused",
            rest("connect", "failed", 502, json!({"errno": 111, "errname": "ECONNREFUSED"})),
        );
        protocol.check_at(&port.addr(), &row);
    }
}

/// Guards against directives that the protocol does not have, against framing and the body being
/// counted as header, and against advice that does not help: it is taken, and must.
#[test]
fn header_too_big() {
    let wrong = protocols()
        .into_iter()
        .filter(|protocol| catch_unwind(AssertUnwindSafe(|| header_too_big_in(protocol))).is_err());
    let wrong: Vec<&str> = wrong.map(|protocol| protocol.name).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn header_too_big_in(protocol: &Protocol) {
    let name = protocol.name;
    let (sends, whole) = (protocol.big_header)(BIG);
    let directive = format!("{name}_buffer_size");
    let up = protocol.upstream(&sends, End::Fin);
    let known = json!({
        "message": "upstream sent too big header", "errno": null,
        "header": {"limit": 4096, "directive": directive},
    });
    let row = Row::new("", End::Fin, "header_too_big", failed(502, known));
    let seen = protocol.check_at(&up.addr(), &row);
    let advice = seen.variable("advice");
    assert!(advice.starts_with(&format!("Set {directive} ")), "{advice}");
    assert!(seen.variable("summary").contains(&directive), "{seen:?}");
    let has_buffers = matches!(name, "fastcgi" | "uwsgi" | "scgi");
    assert_eq!(advice.contains("_buffers"), has_buffers, "{advice}");

    // A size that is called exact is, and a lower bound is one.
    let header = &seen.attempt(0)["header"];
    let size = header["size"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a size");
    if header["exact"] == true {
        assert_eq!(size, whole, "{name}: {header}");
        let set = advice.split("; ").filter_map(|part| {
            let part = part.trim_start_matches("Set ").trim_start_matches("with it ");
            part.starts_with(name).then(|| format!("{part};"))
        });
        let body = advised(protocol, &sends, &set.collect::<String>());
        assert!(body.ends_with("good"), "{advice}: {body}");
    } else {
        assert!(matches!(name, "grpc" | "memcached"), "{name}: {header}");
        assert!((4096..=whole).contains(&size), "{name}: {header}, of {whole}");
        assert!(advice.contains("at least"), "{advice}");
    }
}

/// The body of the same upstream's response with other sizes.
fn advised(protocol: &Protocol, sends: &[u8], set: &str) -> String {
    let up = protocol.upstream(sends, End::Fin);
    let mut conf = protocol.conf(&up.addr());
    conf.http = conf.http.replace(&format!("{}_buffer_size 4k;", protocol.name), set);
    let nginx = Nginx::start(conf);
    let body = nginx.get("/").text();
    diag::finish(&nginx);
    body
}
