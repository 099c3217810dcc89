//! What can fail in FastCGI only.

use serde_json::{Value, json};
use t::fastcgi::{end_request, record, response, stderr, stdout};
use t::protocol;

use crate::http::shown;
use crate::peer::{End, sends, tcp};
use crate::row::{CLOSED, ECONNRESET, RESET, Row, row};

const GOOD: &str = "Status: 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const PART: &str = "Status: 200 OK\r\nContent-Length: 9\r\n\r\ngood";
/// What an application complains of, without the line feed behind it.
const FATAL: &str = "PHP Fatal error: Allowed memory size exhausted";

pub(crate) fn rows() -> Vec<Row> {
    let sent = |what, bytes: &[u8], end| {
        row(what, "fastcgi", tcp(sends(&protocol::fastcgi(), bytes, end)))
    };
    let good = stdout(GOOD);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    // Guards against broken framing being `unknown`, and its evidence being lost.
    let broken = |what, bytes: &[u8], message: &str| {
        sent(what, bytes, End::Fin)
            .failed("invalid_response", "header", &[])
            .shows(shown(bytes))
            .shows(json!({"message": message}))
    };
    let http: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let tls: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46\x15\x03";
    let ssh: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    let status = stdout("Status: none\r\n\r\n");
    // Guards against a body being taken for whole that ends before its promised length.
    let cut = |what, end: Vec<u8>, message: &str| {
        sent(what, &[stdout(PART), end].concat(), End::Fin)
            .truncated("response_truncated", "body", &[])
            .shows(json!({"message": message, "status": 200}))
    };
    // Guards against the reason being lost that the application itself gave.
    let complaint = stderr(&format!("{FATAL}\n"));
    let complains = |what, rest: &[u8], end| sent(what, &[&*complaint, rest].concat(), end);
    let known = |message: &str| -> Value { json!({"stderr": FATAL, "message": message}) };
    let early = "upstream prematurely closed FastCGI request";
    vec![
        broken(
            "another version",
            &changed(0, 2),
            "upstream sent unsupported FastCGI protocol version: 2",
        ),
        broken(
            "another record type",
            &changed(1, 1),
            "upstream sent invalid FastCGI record type: 1",
        ),
        broken(
            "another request",
            &changed(3, 7),
            "upstream sent unexpected FastCGI request id low byte: 7",
        ),
        broken("no response", &end_request(), "upstream sent unexpected FastCGI record: 3"),
        sent("an empty stdout", &stdout(""), End::Fin)
            .failed("closed_in_header", "header", &[])
            .shows(json!({"message": "upstream prematurely closed FastCGI stdout"})),
        sent("HTTP", http, End::Fin)
            .failed("protocol_mismatch", "header", &[])
            .shows(shown(http))
            .shows(json!({"message": "upstream sent unsupported FastCGI protocol version: 72"}))
            .says("{addr} speaks HTTP, not FastCGI.", "Use proxy_pass"),
        sent("TLS", tls, End::Fin)
            .failed("protocol_mismatch", "header", &[])
            .shows(shown(tls))
            .says("{addr} speaks TLS, not FastCGI.", "Use the upstream's plain port"),
        sent("SSH", ssh, End::Fin)
            .failed("protocol_mismatch", "header", &[])
            .says("{addr} speaks SSH, not FastCGI.", "no FastCGI server answers there"),
        sent("an invalid status", &status, End::Fin)
            .failed("invalid_header", "header", &[])
            .shows(shown(&status))
            .shows(json!({"message": "upstream sent invalid status \"none\""})),
        sent("a NUL in a name", &stdout("A\0b: c\r\n\r\n"), End::Fin).failed(
            "invalid_header",
            "header",
            &[],
        ),
        cut("an early end", end_request(), early),
        cut("an early end of stdout", stdout(""), "upstream prematurely closed FastCGI stdout"),
        sent("a wrong record in the body", &[stdout(PART), record(1, "")].concat(), End::Fin)
            .truncated("invalid_body", "body", &[])
            .shows(json!({"message": "upstream sent invalid FastCGI record type: 1"})),
        complains("stderr, then closed", b"", End::Fin)
            .failed("closed_in_header", "header", &[])
            .shows(known(CLOSED)),
        complains("stderr, then closed in the header", &stdout("Status: 200 OK"), End::Fin)
            .failed("closed_in_header", "header", &[])
            .shows(known(CLOSED)),
        complains("stderr, then reset", b"", End::Rst)
            .failed("connection_reset", "header", &[ECONNRESET])
            .shows(known(RESET)),
        complains("stderr, then the end", &end_request(), End::Fin)
            .failed("invalid_response", "header", &[])
            .shows(known("upstream sent unexpected FastCGI record: 3")),
        sent(
            "stderr in the body",
            &[stdout(PART), complaint.clone(), end_request()].concat(),
            End::Fin,
        )
        .truncated("response_truncated", "body", &[])
        .shows(known(early)),
        // Guards against a failure being lost of which there is no word but the application's own:
        // nginx was told to take that for one.
        complains("stderr that is a failure", &response(GOOD), End::Fin)
            .with("fastcgi_catch_stderr 'PHP Fatal';")
            .failed("unknown", "header", &[])
            .shows(json!({"stderr": FATAL})),
    ]
}
