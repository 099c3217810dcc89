//! What nginx speaks to upstreams, as an upstream has to speak it: a good response of each
//! protocol, and the parts at which one can be cut.

use super::{Conn, fastcgi, h2};

/// A protocol.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The name of nginx's module, and the start of its directives.
    pub name: &'static str,
    /// Directives of a location beside the one that passes the request on.
    pub location: &'static str,
    /// Directives that make nginx keep a connection, in protocols in which it can.
    pub keeps: Option<&'static str>,
    /// Reads the first request of a connection; `false` when the peer closed before.
    pub read: fn(&mut Conn) -> bool,
    /// Bytes that come before the first of the response's own.
    pub greeting: usize,
    /// A response with the body "good".
    pub good: Vec<u8>,
    /// The application's own 503, in protocols that have one.
    pub unavailable: Option<Vec<u8>>,
    /// A part of a header.
    pub half_header: Vec<u8>,
    /// A response with a header of about so many bytes and the body "good" (what looks like the
    /// end of an HTTP header may stand before it), and the exact length of the header.
    pub big_header: fn(usize) -> (Vec<u8>, usize),
    /// A header and a part of the body it promises.
    pub half_body: Vec<u8>,
    /// What else makes nginx notice that a body was cut by FIN.
    pub sees_fin: &'static str,
}

/// Every protocol.
pub fn all() -> [Protocol; 6] {
    [http(), fastcgi(), uwsgi(), scgi(), grpc(), memcached()]
}

/// HTTP/1.
pub fn http() -> Protocol {
    Protocol {
        name: "proxy",
        location: "",
        keeps: Some("proxy_http_version 1.1; proxy_set_header Connection '';"),
        read: |conn| conn.read_request().is_some(),
        greeting: 0,
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

/// FastCGI.
pub fn fastcgi() -> Protocol {
    Protocol {
        name: "fastcgi",
        location: "",
        keeps: Some("fastcgi_keep_conn on;"),
        read: fastcgi::read_request,
        greeting: 0,
        good: fastcgi::response("Status: 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
        unavailable: Some(fastcgi::response("Status: 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")),
        half_header: fastcgi::stdout("Status: 200 OK\r\nContent-Ty"),
        big_header: |n| {
            let header = format!("X-Pad: {}\r\nContent-Length: 4\r\n\r\n", "p".repeat(n));
            // nginx's buffer holds the record's own header, too.
            let size = fastcgi::stdout(&header).len();
            (fastcgi::response(header + "good"), size)
        },
        half_body: fastcgi::stdout("Status: 200 OK\r\nContent-Length: 9\r\n\r\ngood"),
        sees_fin: "fastcgi_keep_conn on;",
    }
}

/// uwsgi, whose responses are those of HTTP.
pub fn uwsgi() -> Protocol {
    Protocol {
        name: "uwsgi",
        keeps: None,
        // A length of two bytes, little-endian, stands in a header of four.
        read: |conn| {
            conn.read_until(|bytes| match bytes {
                [_, low, high, _, rest @ ..] => {
                    rest.len() >= usize::from(u16::from_le_bytes([*low, *high]))
                }
                _ => false,
            })
        },
        ..http()
    }
}

/// SCGI.
pub fn scgi() -> Protocol {
    Protocol {
        name: "scgi",
        // A netstring: the length, a colon, the text, a comma.
        read: |conn| {
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

/// The header of a good gRPC response.
pub const GRPC_HEADER: [(&str, &str); 2] =
    [(":status", "200"), ("content-type", "application/grpc")];

/// gRPC over HTTP/2. The server greets when it has read the request.
pub fn grpc() -> Protocol {
    let header = h2::headers(0, &GRPC_HEADER);
    let trailer = h2::headers(h2::END_STREAM, &[("grpc-status", "0")]);
    let data = h2::data(0, "good");
    Protocol {
        name: "grpc",
        location: "",
        keeps: Some(""),
        read: h2::read_request,
        greeting: h2::settings().len(),
        good: [&*header, &data, &trailer].concat(),
        unavailable: Some(h2::headers(h2::END_STREAM, &[(":status", "503")])),
        half_header: header[..header.len() - 5].to_vec(),
        big_header: |n| {
            let header = h2::headers(0, &[(":status", "200"), ("x-pad", &"p".repeat(n))]);
            let size = header.len();
            let body = [h2::data(0, "\r\n\r\n"), h2::data(h2::END_STREAM, "good")].concat();
            ([header, body].concat(), size)
        },
        half_body: [header, data].concat(),
        sees_fin: "",
    }
}

/// memcached.
pub fn memcached() -> Protocol {
    Protocol {
        name: "memcached",
        location: "set $memcached_key key;",
        keeps: Some(""),
        read: |conn| conn.read_until(|bytes| bytes.ends_with(b"\r\n")),
        greeting: 0,
        good: "VALUE key 0 4\r\ngood\r\nEND\r\n".into(),
        unavailable: None,
        half_header: "VALUE key".into(),
        big_header: |n| {
            // nginx does not look at the flags.
            let line = format!("VALUE key {} 8\r\n", "0".repeat(n));
            let size = line.len();
            ((line + "\r\n\r\ngood\r\nEND\r\n").into(), size)
        },
        half_body: "VALUE key 0 9\r\ngood".into(),
        sees_fin: "",
    }
}
