//! What can fail only in the protocols whose responses are lines of text: uwsgi, SCGI and
//! memcached.

use serde_json::json;
use t::protocol::{self, Protocol};

use crate::http::shown;
use crate::peer::{End, sends, tcp};
use crate::row::{CLOSED, Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = headers(&protocol::uwsgi());
    rows.extend(headers(&protocol::scgi()));
    rows.extend(memcached());
    rows
}

/// Guards against a header that is none being `unknown`, and against a wrong port being told as
/// one. HTTP is what both protocols may answer with.
fn headers(protocol: &Protocol) -> Vec<Row> {
    let sent = |what, bytes: &[u8], cause| {
        row(what, protocol.name, tcp(sends(protocol, bytes, End::Fin)))
            .failed(cause, "header", &[])
            .shows(shown(bytes))
    };
    let tls = match protocol.name {
        "uwsgi" => "Use suwsgi:// in uwsgi_pass, or the upstream's plain port.",
        _ => "Use the upstream's plain port: nginx speaks SCGI without TLS only.",
    };
    vec![
        sent("an invalid status", b"Status: none\r\n\r\n", "invalid_header")
            .shows(json!({"message": "upstream sent invalid status \"none\""})),
        sent("a NUL in a name", b"A\0b: c\r\n\r\n", "invalid_header"),
        sent("FastCGI", b"\x01\x06\0\x01\0\x10\0\0Status: 200 OK\r\n", "protocol_mismatch")
            .says("{addr} speaks FastCGI, not ", "Use fastcgi_pass"),
        sent("TLS", b"\x15\x03\x01\x00\x02\x02\x46", "protocol_mismatch")
            .says("{addr} speaks TLS, not ", tls),
    ]
}

fn memcached() -> Vec<Row> {
    let sent = |what, line: &str, end| {
        row(what, "memcached", tcp(sends(&protocol::memcached(), line.as_bytes(), end)))
    };
    // Guards against memcached's own errors being `unknown`: they are no values, and say what is
    // wrong.
    let line = |what, line: &str, cause, message: &str| {
        sent(what, line, End::Wait)
            .failed(cause, "header", &[])
            .shows(shown(line.as_bytes()))
            .shows(json!({"message": format!("memcached sent invalid {message}")}))
    };
    const INVALID: &str = "invalid_response";
    const OTHER: &str = "protocol_mismatch";
    // Guards against a value of another length than told being taken for a good one: what the
    // client got is a part of it.
    let cut = |what, bytes: &str, cause, message: &str| {
        sent(what, bytes, End::Fin)
            .truncated(cause, "body", &[])
            .shows(json!({"message": message, "status": 200}))
    };
    vec![
        line("garbage", "nonsense\r\n", INVALID, "response: \"nonsense\""),
        line(
            "SERVER_ERROR",
            "SERVER_ERROR out of memory reading request\r\n",
            INVALID,
            "response: \"SERVER_ERROR out of memory reading request\"",
        )
        .says(
            "{addr} answered with an error: \"SERVER_ERROR out of memory reading request\".",
            "The server says why",
        ),
        line(
            "CLIENT_ERROR",
            "CLIENT_ERROR line \"too long\"\r\n",
            INVALID,
            "response: \"CLIENT_ERROR line \"too long\"\"",
        )
        // As elsewhere, a quotation ends where the upstream ends it.
        .says("{addr} answered with an error: \"CLIENT_ERROR line \".", "$memcached_key"),
        line("ERROR", "ERROR\r\n", INVALID, "response: \"ERROR\""),
        line("a line feed alone", "VALUE key 0 4\n", INVALID, "response: \"VALUE key 0 4\""),
        line(
            "a length that is none",
            "VALUE key 0 x\r\n",
            INVALID,
            "length in response \"VALUE key 0 x\" for key \"key\"",
        ),
        line(
            "another key",
            "VALUE other 0 4\r\n",
            INVALID,
            "key in response \"VALUE other 0 4\" for key \"key\"",
        ),
        // Guards against the flags, of which nginx looks at one bit, being told as nonsense.
        line(
            "flags that are none",
            "VALUE key x 4\r\n",
            INVALID,
            "flags in response \"VALUE key x 4\" for key \"key\"",
        )
        .with("memcached_gzip_flag 1;"),
        line(
            "HTTP",
            "HTTP/1.1 400 Bad Request\r\n",
            OTHER,
            "response: \"HTTP/1.1 400 Bad Request\"",
        ),
        line(
            "Redis",
            "-ERR unknown command 'get'\r\n",
            OTHER,
            "response: \"-ERR unknown command 'get'\"",
        )
        .says("{addr} speaks Redis, not memcached.", "no memcached answers there"),
        cut("no trailer", "VALUE key 0 4\r\ngood", "response_truncated", CLOSED),
        cut("half a trailer", "VALUE key 0 4\r\ngood\r\nEN", "response_truncated", CLOSED),
        cut(
            "a longer value",
            "VALUE key 0 4\r\ngoodbye\r\nEND\r\n",
            "invalid_body",
            "memcached sent invalid trailer",
        ),
    ]
}
