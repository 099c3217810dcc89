//! What can fail in gRPC only: HTTP/2.

use serde_json::{Value, json};
use t::Conn;
use t::h2::{
    DATA, END_STREAM, STREAM, data, frame, goaway, headers, read_only, read_request, rst_stream,
};

use crate::{End, Protocol, Row, failed, shown, truncated};

const HEADER: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

fn good() -> Vec<u8> {
    [headers(0, &HEADER), data(0, "good"), headers(END_STREAM, &[("grpc-status", "0")])].concat()
}

pub(crate) fn protocol() -> Protocol {
    let header = headers(0, &HEADER);
    Protocol {
        name: "grpc",
        location: "",
        read: read_request,
        good: good(),
        unavailable: Some(headers(END_STREAM, &[(":status", "503")])),
        half_header: header[..header.len() - 5].to_vec(),
        big_header: |n| {
            let header = headers(0, &[(":status", "200"), ("x-pad", &"p".repeat(n))]);
            let size = header.len();
            // What looks like the end of an HTTP/1 header is the body's.
            let body = [data(0, "\r\n\r\n"), data(END_STREAM, "good\r\n\r\n")].concat();
            ([header, body].concat(), size)
        },
        half_body: [header, data(0, "good")].concat(),
        sees_fin: "",
    }
}

/// The rows of this protocol.
type Rows = Vec<(&'static str, Row)>;

fn row(bytes: Vec<u8>, cause: &'static str, rest: Value) -> Row {
    Row::new(bytes, End::Wait, cause, rest)
}

/// Guards against the error code of HTTP/2 being lost, and against a stream that ends in the body
/// being taken for one that never began.
#[test]
fn stream_reset() {
    let part = || [headers(0, &HEADER), data(0, "good")].concat();
    let rejected = |code: u32| format!("upstream rejected request with error {code}");
    let away = |code: u32| format!("upstream sent goaway with error {code}");
    let before = |bytes, message| {
        row(bytes, "stream_reset", failed(502, json!({"message": message, "errno": null})))
    };
    let after = |end: Vec<u8>, message| {
        let known = json!({"message": message, "errno": null, "status": 200});
        row([part(), end].concat(), "stream_reset", truncated(known))
    };
    protocol().run([
        ("RST_STREAM before headers", before(rst_stream(2), rejected(2))),
        ("REFUSED_STREAM", before(rst_stream(7), rejected(7))),
        ("RST_STREAM after headers", after(rst_stream(8), rejected(8))),
        ("RST_STREAM without error", after(rst_stream(0), rejected(0))),
        ("GOAWAY with an error", before(goaway(0, 11), away(11))),
        ("GOAWAY without", before(goaway(0, 0), away(0))),
        ("GOAWAY in the body", after(goaway(0, 2), away(2))),
    ]);
}

/// Guards against what a server may do at the end of a good response being taken for a failure.
#[test]
fn ends_that_are_no_failure() {
    let good_then = |end: Vec<u8>| [good(), end].concat();
    protocol().no_trace(&good_then(rst_stream(0)), End::Wait, "", 200);
    protocol().no_trace(&good_then(goaway(STREAM, 0)), End::Wait, "", 200);
    let first = [goaway(STREAM, 0), good()].concat();
    protocol().no_trace(&first, End::Wait, "", 200);
    // The status that counts for gRPC is none of HTTP's.
    let unavailable = [(":status", "200"), ("grpc-status", "14")];
    protocol().no_trace(&headers(END_STREAM, &unavailable), End::Wait, "", 200);
}

/// Guards against broken frames being `unknown`.
#[test]
fn frames() {
    let invalid = |bytes: Vec<u8>, message: &str| {
        row(bytes, "invalid_response", failed(502, json!({"message": message})))
    };
    let body = |end: Vec<u8>, message: &str| {
        let bytes = [headers(0, &HEADER), data(0, "good"), end].concat();
        row(bytes, "invalid_body", truncated(json!({"message": message, "status": 200})))
    };
    let large = || frame(DATA, 0, STREAM, vec![b'd'; 20_000]);
    let too_large = "upstream sent too large http2 frame: 20000";
    let sized = [(":status", "200"), ("content-length", "2")];
    let longer = [headers(0, &sized), data(END_STREAM, "good")].concat();
    let promised = [(":status", "200"), ("content-length", "9")];
    let shorter = [headers(0, &promised), data(END_STREAM, "good")].concat();
    let rows: Rows = vec![
        ("too large", invalid(large(), too_large)),
        ("DATA first", invalid(data(0, "good"), "upstream sent unexpected http2 frame: 0")),
        (
            "another stream",
            invalid(
                frame(DATA + 1, 4, 3, "\u{8}\u{3}200"),
                "upstream sent frame for unknown stream 3",
            ),
        ),
        ("too large in the body", body(large(), too_large)),
        (
            "trailers without end",
            body(
                headers(0, &[("grpc-status", "0")]),
                "upstream sent trailer without end stream flag",
            ),
        ),
        (
            "a longer body",
            row(
                longer,
                "invalid_body",
                truncated(json!({"message":
                    "upstream sent response body larger than indicated content length"})),
            ),
        ),
        (
            "a shorter body",
            row(
                shorter,
                "response_truncated",
                truncated(json!({"message": "upstream prematurely closed stream"})),
            ),
        ),
    ];
    protocol().run(rows);
}

/// Guards against headers that nginx refuses being `unknown`.
#[test]
fn invalid_header() {
    let refused = |fields: &[(&str, &str)], message: &str| {
        row(headers(0, fields), "invalid_header", failed(502, json!({"message": message})))
    };
    protocol().run([
        ("status", refused(&[(":status", "abc")], "upstream sent invalid :status \"abc\"")),
        ("no status", refused(&[("server", "a")], "upstream sent no :status header")),
        (
            "two of them",
            refused(
                &[(":status", "200"), (":status", "200")],
                "upstream sent duplicate :status header",
            ),
        ),
        (
            "informational",
            refused(&[(":status", "103")], "upstream sent unexpected :status \"103\""),
        ),
        (
            "a pseudo header",
            refused(&[(":path", "/")], "upstream sent invalid header \":path: /\""),
        ),
        (
            "a name",
            refused(&[(":status", "200"), ("A", "b")], "upstream sent invalid header: \"A: b\""),
        ),
    ]);
}

/// Answers without a greeting.
fn silent_server(bytes: &'static [u8]) -> t::Upstream {
    t::Upstream::tcp(move |_, conn: &mut Conn| {
        if read_only(conn) {
            conn.write(bytes);
        }
    })
}

/// Guards against a wrong port being told as a broken frame, and against a server that closes
/// without its greeting being taken for one that had begun to answer.
#[test]
fn other_servers() {
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let tls = b"\x15\x03\x01\x00\x02\x02\x46\x15\x03";
    let nonsense = b"what is this?\r\n";
    for (bytes, cause, summary, message) in [
        (&http[..], "protocol_mismatch", " speaks HTTP, not HTTP/2.", "4740180"),
        (&tls[..], "protocol_mismatch", " speaks TLS, not HTTP/2.", "1377025"),
        (
            &nonsense[..],
            "invalid_response",
            " sent something that is not a valid response.",
            "7825505",
        ),
    ] {
        let up = silent_server(bytes);
        let message = format!("upstream sent too large http2 frame: {message}");
        let row = Row::new("", End::Fin, cause, shown(bytes, &message));
        let seen = protocol().check_at(&up.addr(), &row);
        assert_eq!(seen.variable("summary"), format!("{}{summary}", up.addr()));
    }
    let up = silent_server(b"");
    let rest = failed(502, json!({"message": crate::CLOSED, "bytes_received": 0}));
    protocol().check_at(&up.addr(), &Row::new("", End::Fin, "closed_before_response", rest));
}
