//! What can fail in every protocol, as a table of which each has its own.

use serde_json::{Value, json};

use crate::{CLOSED, End, Protocol, Row, failed, fastcgi, grpc, lines, truncated};

/// nginx's words for a timer that ran out.
const TIMED_OUT: &str = "upstream timed out (110: Connection timed out)";

impl Protocol {
    /// The rows that all protocols have.
    fn faults(&self) -> Vec<(&'static str, Row)> {
        let greeting = self.greeting();
        // HTTP/2 servers have greeted before they fail.
        let nothing = if greeting == 0 { "closed_before_response" } else { "closed_in_header" };
        let row = |sends: &[u8], end, cause, rest| Row::new(sends, end, cause, rest);
        let slow = |sends: &[u8], cause, rest| {
            row(sends, End::Wait, cause, rest).with(format!("{}_read_timeout 150ms;", self.name))
        };
        let (header, body) = (&self.half_header, &self.half_body);
        let at_once = |known: Value| with_bytes(known, greeting);
        let later = |known: Value| with_bytes(known, greeting + header.len());
        let closed = || json!({"errno": null, "message": CLOSED});
        let reset = || json!({"errno": 104, "errname": "ECONNRESET"});
        let silent = || json!({"errno": 110, "errname": "ETIMEDOUT", "message": TIMED_OUT});
        let none: &[u8] = b"";
        let mut rows = vec![
            ("closed at once", row(none, End::Fin, nothing, failed(502, at_once(closed())))),
            (
                "closed in header",
                row(header, End::Fin, "closed_in_header", failed(502, later(closed()))),
            ),
            ("reset", row(none, End::Rst, "connection_reset", failed(502, at_once(reset())))),
            ("silent", slow(none, "response_timed_out", failed(504, at_once(silent())))),
            (
                "silent in the header",
                slow(header, "response_timed_out", failed(504, later(silent()))),
            ),
            (
                "body cut by FIN",
                row(body, End::Fin, "response_truncated", truncated(closed())).with(self.sees_fin),
            ),
            ("body cut by RST", row(body, End::Rst, "response_truncated", truncated(reset()))),
            ("silent in the body", slow(body, "body_timed_out", truncated(silent()))),
        ];
        if let Some(unavailable) = &self.unavailable {
            let rest = json!({"phase": null, "outcome": "passed", "status": 503,
                              "attempts": [{"status": 503, "message": null}]});
            let row = Row::new(unavailable.clone(), End::Fin, "upstream_response", rest);
            rows.push(("the application's own 503", row));
        }
        rows
    }
}

/// The same evidence after so many bytes.
fn with_bytes(mut known: Value, received: usize) -> Value {
    known["bytes_received"] = received.into();
    known
}

/// Guards against a fault being told otherwise in one protocol than in the others.
#[test]
fn faults_of_fastcgi() {
    let protocol = fastcgi::protocol();
    protocol.run(protocol.faults());
}

/// As above.
#[test]
fn faults_of_uwsgi() {
    let protocol = lines::uwsgi();
    protocol.run(protocol.faults());
}

/// As above.
#[test]
fn faults_of_scgi() {
    let protocol = lines::scgi();
    protocol.run(protocol.faults());
}

/// As above.
#[test]
fn faults_of_grpc() {
    let protocol = grpc::protocol();
    protocol.run(protocol.faults());
}

/// As above. A value without the line that ends it is cut, too: nobody knows that it is whole.
#[test]
fn faults_of_memcached() {
    let protocol = lines::memcached();
    protocol.run(protocol.faults());
}
