//! The protocols whose responses are lines of text: uwsgi, SCGI and memcached, and what can fail
//! in these only.

use serde_json::json;
use t::Conn;

use crate::{End, Protocol, Row, failed, shown, truncated};

pub(crate) fn uwsgi() -> Protocol {
    Protocol {
        name: "uwsgi",
        location: "",
        // A length of two bytes, little-endian, stands in a header of four.
        read: |conn: &mut Conn| {
            conn.read_until(|bytes| match bytes {
                [_, low, high, _, rest @ ..] => {
                    rest.len() >= usize::from(u16::from_le_bytes([*low, *high]))
                }
                _ => false,
            })
        },
        good: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".into(),
        unavailable: Some("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".into()),
        half_header: "HTTP/1.1 200 OK\r\nContent-Ty".into(),
        big_header: |n| {
            let header =
                format!("HTTP/1.1 200 OK\r\nX-Pad: {}\r\nContent-Length: 4\r\n\r\n", "p".repeat(n));
            let size = header.len();
            ((header + "good").into(), size)
        },
        half_body: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ngood".into(),
        sees_fin: "",
    }
}

pub(crate) fn scgi() -> Protocol {
    Protocol {
        name: "scgi",
        // A netstring: the length, a colon, the text, a comma.
        read: |conn: &mut Conn| {
            conn.read_until(|bytes| {
                let text = String::from_utf8_lossy(bytes);
                let string = text.split_once(':');
                let length = string.and_then(|(n, rest)| Some((n.parse().ok()?, rest)));
                length.is_some_and(|(n, rest): (usize, _)| rest.len() > n)
            })
        },
        good: "Status: 200 OK\r\nContent-Length: 4\r\n\r\ngood".into(),
        unavailable: Some("Status: 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".into()),
        half_header: "Status: 200 OK\r\nContent-Ty".into(),
        half_body: "Status: 200 OK\r\nContent-Length: 9\r\n\r\ngood".into(),
        ..uwsgi()
    }
}

pub(crate) fn memcached() -> Protocol {
    Protocol {
        name: "memcached",
        location: "set $memcached_key key;",
        read: |conn: &mut Conn| conn.read_until(|bytes| bytes.ends_with(b"\r\n")),
        good: "VALUE key 0 4\r\ngood\r\nEND\r\n".into(),
        unavailable: None,
        half_header: "VALUE key".into(),
        big_header: |n| {
            // nginx does not look at the flags.
            let line = format!("VALUE key {} 8\r\n", "0".repeat(n));
            let size = line.len();
            // What looks like the end of an HTTP header is the value's.
            ((line + "\r\n\r\ngood\r\nEND\r\n").into(), size)
        },
        half_body: "VALUE key 0 9\r\ngood".into(),
        sees_fin: "",
    }
}

/// Guards against a header that is none being `unknown`, and against a wrong port being told as
/// one.
#[test]
fn headers_of_uwsgi_and_scgi() {
    let status = b"Status: none\r\n\r\n";
    let nul = b"A\0b: c\r\n\r\n";
    let fastcgi = b"\x01\x06\0\x01\0\x10\0\0Status: 200 OK\r\n";
    let tls = b"\x15\x03\x01\x00\x02\x02\x46";
    let row = |bytes: &[u8], cause, message: &str| {
        let mut rest = shown(bytes, message);
        if message.is_empty() {
            rest["attempts"][0]["message"].take();
            rest["attempts"][0].as_object_mut().expect("an object").remove("message");
        }
        Row::new(bytes, End::Fin, cause, rest)
    };
    for protocol in [uwsgi(), scgi()] {
        protocol.run([
            ("status", row(status, "invalid_header", "upstream sent invalid status \"none\"")),
            ("a NUL", row(nul, "invalid_header", "")),
            ("FastCGI", row(fastcgi, "protocol_mismatch", "")),
            ("TLS", row(tls, "protocol_mismatch", "")),
        ]);
        // HTTP is what both may answer with.
        let http = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
        assert_eq!(protocol.no_trace(http, End::Fin, "", 200).text(), "good");
    }
}

/// Guards against memcached's own errors being `unknown`: they are no values, and say what is
/// wrong.
#[test]
fn lines_of_memcached() {
    let row = |line: &str, message: &str| {
        let rest = shown(line.as_bytes(), &format!("memcached sent invalid {message}"));
        Row::new(line, End::Wait, "invalid_response", rest)
    };
    let error = "SERVER_ERROR out of memory reading request";
    let busy = "response: \"SERVER_ERROR out of memory reading request\"";
    let mismatch = |line: &str, message: &str| Row {
        cause: "protocol_mismatch",
        ..row(line, &format!("response: \"{message}\""))
    };
    memcached().run([
        ("garbage", row("nonsense\r\n", "response: \"nonsense\"")),
        ("SERVER_ERROR", row(&format!("{error}\r\n"), busy)),
        ("ERROR", row("ERROR\r\n", "response: \"ERROR\"")),
        ("LF only", row("VALUE key 0 4\n", "response: \"VALUE key 0 4\"")),
        (
            "length",
            row("VALUE key 0 x\r\n", "length in response \"VALUE key 0 x\" for key \"key\""),
        ),
        (
            "another key",
            row("VALUE other 0 4\r\n", "key in response \"VALUE other 0 4\" for key \"key\""),
        ),
        ("HTTP", mismatch("HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request")),
        ("Redis", mismatch("-ERR unknown command 'get'\r\n", "-ERR unknown command 'get'")),
    ]);
}

/// Guards against a value of another length than told being taken for a good one: what the client
/// got is a part of it.
#[test]
fn trailers_of_memcached() {
    let cut = |sends: &str, cause, message: &str| {
        Row::new(sends, End::Fin, cause, truncated(json!({"message": message, "status": 200})))
    };
    let invalid = "memcached sent invalid trailer";
    memcached().run([
        ("missing", cut("VALUE key 0 4\r\ngood", "response_truncated", crate::CLOSED)),
        ("half", cut("VALUE key 0 4\r\ngood\r\nEN", "response_truncated", crate::CLOSED)),
        ("a longer value", cut("VALUE key 0 4\r\ngoodbye\r\nEND\r\n", "invalid_body", invalid)),
    ]);
}

/// Guards against a key that is not there being taken for a failure.
#[test]
fn no_value_is_no_failure() {
    memcached().no_trace(b"END\r\n", End::Wait, "", 404);
}

/// Guards against the flags, of which nginx looks at one bit, being told as nonsense.
#[test]
fn flags_of_memcached() {
    let message = "memcached sent invalid flags in response \"VALUE key x 4\" for key \"key\"";
    let rest = failed(502, json!({"message": message}));
    let row = Row::new("VALUE key x 4\r\n", End::Wait, "invalid_response", rest);
    memcached().run([("flags", row.with("memcached_gzip_flag 1;"))]);
}
