//! What can fail in gRPC only: HTTP/2.

use serde_json::json;
use t::Conn;
use t::h2::{DATA, END_STREAM, STREAM, data, frame, goaway, headers, read_only, rst_stream};
use t::protocol::{self, GRPC_HEADER};

use crate::http::shown;
use crate::peer::{End, sends, tcp};
use crate::row::{CLOSED, Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let sent =
        |what, bytes: &[u8]| row(what, "grpc", tcp(sends(&protocol::grpc(), bytes, End::Wait)));
    let part = [headers(0, &GRPC_HEADER), data(0, "good")].concat();
    let then = |what, end: &[u8]| sent(what, &[&*part, end].concat());
    // Guards against the error code of HTTP/2 being lost, and against a stream that ends in the
    // body being taken for one that never began.
    let ended = |what, bytes: Vec<u8>, message: &str| {
        sent(what, &bytes).failed("stream_reset", "header", &[]).shows(json!({"message": message}))
    };
    let ended_in_body = |what, bytes: Vec<u8>, message: &str| {
        then(what, &bytes)
            .truncated("stream_reset", "body", &[])
            .shows(json!({"message": message, "status": 200}))
    };
    // Guards against broken frames being `unknown`.
    let invalid = |what, bytes: &[u8], message: &str| {
        sent(what, bytes)
            .failed("invalid_response", "header", &[])
            .shows(json!({"message": message}))
    };
    let in_body = |row: Row, message: &str| {
        row.truncated("invalid_body", "body", &[]).shows(json!({"message": message}))
    };
    let large = frame(DATA, 0, STREAM, vec![b'd'; 20_000]);
    const TOO_LARGE: &str = "upstream sent too large http2 frame: 20000";
    let sized = |length| headers(0, &[(":status", "200"), ("content-length", length)]);
    let end = data(END_STREAM, "good");
    // Guards against headers that nginx refuses being `unknown`.
    let refused = |what, fields: &[(&str, &str)], message: &str| {
        sent(what, &headers(0, fields))
            .failed("invalid_header", "header", &[])
            .shows(json!({"message": message}))
    };
    // Guards against a wrong port being told as a broken frame.
    let other = |what, bytes: &'static [u8], cause, message: &str, summary| {
        let peer = tcp(move |_, conn: &mut Conn| {
            if read_only(conn) {
                conn.write(bytes);
            }
        });
        row(what, "grpc", peer)
            .failed(cause, "header", &[])
            .shows(shown(bytes))
            .shows(json!({"message": message}))
            .says(summary, "")
    };
    let silent = tcp(|_, conn: &mut Conn| {
        read_only(conn);
    });
    vec![
        ended("RST_STREAM", rst_stream(2), "upstream rejected request with error 2"),
        ended("REFUSED_STREAM", rst_stream(7), "upstream rejected request with error 7")
            .says("{addr} reset the HTTP/2 stream (RST_STREAM) with the error code REFUSED_STREAM (7).", ""),
        ended("GOAWAY with an error", goaway(0, 11), "upstream sent goaway with error 11")
            .says("{addr} ended the HTTP/2 connection (GOAWAY) with the error code ENHANCE_YOUR_CALM (11).", ""),
        ended("GOAWAY without", goaway(0, 0), "upstream sent goaway with error 0"),
        ended_in_body(
            "RST_STREAM in the body",
            rst_stream(8),
            "upstream rejected request with error 8",
        ),
        ended_in_body(
            "RST_STREAM without an error in the body",
            rst_stream(0),
            "upstream rejected request with error 0",
        ),
        ended_in_body("GOAWAY in the body", goaway(0, 2), "upstream sent goaway with error 2"),
        invalid("a frame that is too large", &large, TOO_LARGE),
        invalid("DATA first", &data(0, "good"), "upstream sent unexpected http2 frame: 0"),
        invalid(
            "another stream",
            &frame(DATA + 1, 4, 3, "\u{8}\u{3}200"),
            "upstream sent frame for unknown stream 3",
        ),
        in_body(then("a frame that is too large in the body", &large), TOO_LARGE),
        in_body(
            then("trailers without an end", &headers(0, &[("grpc-status", "0")])),
            "upstream sent trailer without end stream flag",
        ),
        in_body(
            sent("a longer body", &[sized("2"), end.clone()].concat()),
            "upstream sent response body larger than indicated content length",
        ),
        sent("a shorter body", &[sized("9"), end.clone()].concat())
            .truncated("response_truncated", "body", &[])
            .shows(json!({"message": "upstream prematurely closed stream"})),
        refused("a status", &[(":status", "abc")], "upstream sent invalid :status \"abc\""),
        refused("no status", &[("server", "a")], "upstream sent no :status header"),
        refused(
            "two of them",
            &[(":status", "200"), (":status", "200")],
            "upstream sent duplicate :status header",
        ),
        refused(
            "an informational status",
            &[(":status", "103")],
            "upstream sent unexpected :status \"103\"",
        ),
        refused("a pseudo header", &[(":path", "/")], "upstream sent invalid header \":path: /\""),
        refused(
            "a name in capitals",
            &[(":status", "200"), ("A", "b")],
            "upstream sent invalid header: \"A: b\"",
        ),
        other(
            "HTTP/1",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            "protocol_mismatch",
            "upstream sent too large http2 frame: 4740180",
            "{addr} speaks HTTP/1, not HTTP/2.",
        )
        .says("{addr} speaks HTTP/1, not HTTP/2.", "Use proxy_pass, or grpcs:// in grpc_pass"),
        other(
            "TLS",
            b"\x15\x03\x01\x00\x02\x02\x46\x15\x03",
            "protocol_mismatch",
            "upstream sent too large http2 frame: 1377025",
            "{addr} speaks TLS, not HTTP/2.",
        )
        .says("{addr} speaks TLS, not HTTP/2.", "Use grpcs:// in grpc_pass, or the upstream's"),
        other(
            "nonsense",
            b"what is this?\r\n",
            "invalid_response",
            "upstream sent too large http2 frame: 7825505",
            "{addr} sent something that is not a valid response.",
        ),
        // Guards against a server that closes without its greeting being taken for one that had
        // begun to answer.
        row("closed without a greeting", "grpc", silent)
            .failed("closed_before_response", "header", &[])
            .shows(json!({"message": CLOSED, "bytes_received": 0})),
    ]
}
