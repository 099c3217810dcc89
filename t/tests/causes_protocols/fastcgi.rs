//! What can fail in FastCGI only.

use serde_json::json;
use t::fastcgi::{end_request, read_request, record, response, stderr, stdout};

use crate::{End, Protocol, Row, failed, shown, truncated};

const GOOD: &str = "Status: 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const PART: &str = "Status: 200 OK\r\nContent-Length: 9\r\n\r\ngood";
/// What an application complains of, without the line feed behind it.
const FATAL: &str = "PHP Fatal error: Allowed memory size exhausted";

pub(crate) fn protocol() -> Protocol {
    Protocol {
        name: "fastcgi",
        location: "",
        read: read_request,
        good: response(GOOD),
        unavailable: Some(response("Status: 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")),
        half_header: stdout("Status: 200 OK\r\nContent-Ty"),
        big_header: |n| {
            let header = format!("X-Pad: {}\r\nContent-Length: 4\r\n\r\n", "p".repeat(n));
            // nginx's buffer holds the record's own header, too.
            let size = stdout(&header).len();
            (response(header + "good"), size)
        },
        half_body: stdout(PART),
        sees_fin: "fastcgi_keep_conn on;",
    }
}

fn complaint() -> Vec<u8> {
    stderr(&format!("{FATAL}\n"))
}

/// Guards against broken framing being `unknown`, and against its evidence being lost.
#[test]
fn records() {
    let good = stdout(GOOD);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let row = |bytes: Vec<u8>, message: &str| {
        let rest = shown(&bytes, message);
        Row::new(bytes, End::Fin, "invalid_response", rest)
    };
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let status = stdout("Status: none\r\n\r\n");
    let nul = stdout("A\0b: c\r\n\r\n");
    protocol().run([
        ("version", row(changed(0, 2), "upstream sent unsupported FastCGI protocol version: 2")),
        ("record type", row(changed(1, 1), "upstream sent invalid FastCGI record type: 1")),
        (
            "request id",
            row(changed(3, 7), "upstream sent unexpected FastCGI request id low byte: 7"),
        ),
        ("no response", row(end_request(), "upstream sent unexpected FastCGI record: 3")),
        (
            "an empty stdout",
            Row::new(
                stdout(""),
                End::Fin,
                "closed_in_header",
                failed(502, json!({"message": "upstream prematurely closed FastCGI stdout"})),
            ),
        ),
        (
            "HTTP",
            Row::new(
                *http,
                End::Fin,
                "protocol_mismatch",
                shown(http, "upstream sent unsupported FastCGI protocol version: 72"),
            ),
        ),
        (
            "invalid status",
            Row::new(
                status.clone(),
                End::Fin,
                "invalid_header",
                shown(&status, "upstream sent invalid status \"none\""),
            ),
        ),
        (
            "invalid header",
            Row::new(nul, End::Fin, "invalid_header", failed(502, json!({"errno": null}))),
        ),
    ]);
}

/// Guards against the words not saying what to do.
#[test]
fn http_is_named() {
    let protocol = protocol();
    let up = protocol.upstream(b"HTTP/1.1 400 Bad Request\r\n\r\n", End::Fin);
    let row = Row::new("", End::Fin, "protocol_mismatch", json!({"phase": "header"}));
    let seen = protocol.check_at(&up.addr(), &row);
    assert_eq!(seen.variable("summary"), format!("{} speaks HTTP, not FastCGI.", up.addr()));
    assert!(seen.variable("advice").starts_with("Use proxy_pass"), "{seen:?}");
}

/// Guards against a body being taken for whole that ends before its promised length.
#[test]
fn bodies() {
    let cut = |end: Vec<u8>, message: &str| {
        let bytes = [stdout(PART), end].concat();
        let known = json!({"message": message, "errno": null, "status": 200});
        Row::new(bytes, End::Fin, "response_truncated", truncated(known))
    };
    let wrong = [stdout(PART), record(1, "")].concat();
    let message = "upstream sent invalid FastCGI record type: 1";
    protocol().run([
        ("early end", cut(end_request(), "upstream prematurely closed FastCGI request")),
        ("early end of stdout", cut(stdout(""), "upstream prematurely closed FastCGI stdout")),
        (
            "wrong record",
            Row::new(wrong, End::Fin, "invalid_body", truncated(json!({"message": message}))),
        ),
    ]);
}

/// Guards against the reason that the application itself gave being lost.
#[test]
fn stderr_beside_a_failure() {
    let with = |more: &[Vec<u8>]| [&[complaint()], more].concat().concat();
    let known = |message| json!({"stderr": FATAL, "message": message});
    let reset = "recv() failed (104: Connection reset by peer)";
    let early = "upstream prematurely closed FastCGI request";
    let header = stdout("Status: 200 OK\r\nContent-Ty");
    let rows = [
        ("closed", with(&[]), End::Fin, "closed_in_header", failed(502, known(crate::CLOSED))),
        (
            "closed in header",
            with(&[header]),
            End::Fin,
            "closed_in_header",
            failed(502, known(crate::CLOSED)),
        ),
        ("reset", with(&[]), End::Rst, "connection_reset", failed(502, known(reset))),
        (
            "ended",
            with(&[end_request()]),
            End::Fin,
            "invalid_response",
            failed(502, known("upstream sent unexpected FastCGI record: 3")),
        ),
        (
            "in the body",
            [stdout(PART), complaint(), end_request()].concat(),
            End::Fin,
            "response_truncated",
            truncated(known(early)),
        ),
    ];
    protocol().run(
        rows.into_iter()
            .map(|(what, sends, end, cause, rest)| (what, Row::new(sends, end, cause, rest))),
    );
}

/// Guards against a failure without a word but the application's own: nginx was told to take that
/// for one.
#[test]
fn stderr_that_is_a_failure() {
    let bytes = [complaint(), response(GOOD)].concat();
    let row = Row::new(bytes, End::Fin, "unknown", failed(502, json!({"stderr": FATAL})));
    protocol().run([("catch_stderr", row.with("fastcgi_catch_stderr 'PHP Fatal';"))]);
}

/// Guards against what nginx logs as an error being taken for a failure: the application answered,
/// and its 500 is its own, whoever words it.
#[test]
fn stderr_is_no_failure() {
    let good = [complaint(), response(GOOD)].concat();
    assert_eq!(protocol().no_trace(&good, End::Fin, "", 200).text(), "good");
    let late = [stdout(GOOD), complaint(), stdout(""), end_request()].concat();
    assert_eq!(protocol().no_trace(&late, End::Fin, "", 200).text(), "good");
    let own = response("Status: 500 Broken\r\nContent-Length: 4\r\n\r\noops");
    let own = [complaint(), own].concat();
    assert_eq!(protocol().no_trace(&own, End::Fin, "", 500).text(), "oops");
    // The page's status is the response's or that of the page.
    for (page, status) in [("500", 500), ("500 =200", 200)] {
        let page = format!("fastcgi_intercept_errors on; error_page {page} /own;");
        assert_eq!(protocol().no_trace(&own, End::Fin, &page, status).text(), "page");
    }
}
