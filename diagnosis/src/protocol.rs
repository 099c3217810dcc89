//! The protocol that speaks in bytes which are no HTTP response.

/// A protocol that a port may speak instead of the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// The directive with which nginx speaks it.
    pub pass: Option<&'static str>,
}

pub(crate) const TLS: Protocol = Protocol { name: "TLS", pass: None };
pub(crate) const HTTP2: Protocol = Protocol { name: "HTTP/2", pass: Some("grpc_pass") };
pub(crate) const HTTP1: Protocol = Protocol { name: "HTTP", pass: Some("proxy_pass") };
const FASTCGI: Protocol = Protocol { name: "FastCGI", pass: Some("fastcgi_pass") };

/// A protocol module of nginx's, as sentences need it.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    name: &'static str,
    /// The protocol it speaks.
    pub(crate) protocol: &'static str,
    /// Who answers in that protocol.
    pub(crate) server: &'static str,
    /// How its directive is told to speak without TLS, and with it, where it can.
    pub(crate) schemes: Option<(&'static str, &'static str)>,
    /// A program that asks such a server.
    pub(crate) client: Option<&'static str>,
}

const HTTP: Module = Module {
    name: "proxy",
    protocol: "HTTP",
    server: "web server",
    schemes: Some(("http://", "https://")),
    client: Some("curl -v"),
};

/// HTTP/2 to the upstream, which newer versions have, is a module without directives of its own.
const MODULES: [&Module; 7] = [
    &HTTP,
    &Module { name: "proxy_v2", protocol: HTTP2.name, ..HTTP },
    &Module {
        name: "fastcgi",
        protocol: FASTCGI.name,
        server: "FastCGI server",
        schemes: None,
        client: Some("cgi-fcgi"),
    },
    &Module {
        name: "uwsgi",
        protocol: "uwsgi",
        server: "uwsgi server",
        schemes: Some(("uwsgi://", "suwsgi://")),
        client: None,
    },
    &Module { name: "scgi", protocol: "SCGI", server: "SCGI server", schemes: None, client: None },
    &Module {
        name: "grpc",
        protocol: HTTP2.name,
        server: "gRPC server",
        schemes: Some(("grpc://", "grpcs://")),
        client: Some("grpcurl -v"),
    },
    &Module {
        name: "memcached",
        protocol: "memcached",
        server: "memcached",
        schemes: None,
        client: Some("nc"),
    },
];

/// A protocol module; one that is not known is taken for that of HTTP.
pub(crate) fn module(name: Option<&str>) -> &'static Module {
    let known = MODULES.into_iter().find(|module| name == Some(module.name));
    known.unwrap_or(&HTTP)
}

/// Whether the bytes begin like an HTTP/2 connection.
pub(crate) fn is_http2(bytes: &[u8]) -> bool {
    SIGNS.iter().any(|(protocol, matches)| *protocol == HTTP2 && matches(bytes))
}

/// A protocol that speaks where another was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The one that speaks.
    pub found: Protocol,
    /// The module that asked in its own.
    pub asked: &'static Module,
}

impl Mismatch {
    /// The names of the protocol that speaks and of the expected one: with their versions where
    /// these are all that differs.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        match (self.found, self.asked.protocol) {
            (found, expected) if found == HTTP2 && expected == HTTP1.name => (found.name, "HTTP/1"),
            (found, expected) if found == HTTP1 && expected == HTTP2.name => ("HTTP/1", expected),
            (found, expected) => (found.name, expected),
        }
    }
}

/// What the first bytes say, if that is another protocol than the one that the protocol module
/// of nginx speaks.
///
/// Only what a server sends first or in answer to a request is looked for, and only where the
/// bytes leave no other reading.
pub fn mismatch(bytes: &[u8], name: Option<&str>) -> Option<Mismatch> {
    let asked = module(name);
    let (found, _) = SIGNS.iter().find(|(_, matches)| matches(bytes)).copied()?;
    // uwsgi and SCGI define the request only: the response may begin with a status line of HTTP.
    let fits = found.name == asked.protocol
        || (found == HTTP1 && matches!(asked.protocol, "uwsgi" | "SCGI"));
    (!fits).then_some(Mismatch { found, asked })
}

type Test = fn(&[u8]) -> bool;

const fn other(name: &'static str) -> Protocol {
    Protocol { name, pass: None }
}

const SIGNS: &[(Protocol, Test)] = &[
    // RFC 8446, section 5.1: content type alert or handshake, version 3.x.
    (TLS, |b| matches!(b, [0x15 | 0x16, 0x03, 0x00..=0x04, ..])),
    // RFC 9113, section 3.4: a server begins with a SETTINGS frame on stream 0, whose length is a
    // multiple of six.
    (HTTP2, |b| matches!(b, [0, 0, length, 4, 0, 0, 0, 0, 0, ..] if length % 6 == 0)),
    (HTTP2, |b| b.starts_with(b"PRI * HTTP/2.0\r\n")),
    // RFC 9112, section 4. What a proxy expects is not asked here, see mismatch().
    (HTTP1, |b| b.starts_with(b"HTTP/1.")),
    // FastCGI specification, section 3.3: version 1, a type that applications send.
    (FASTCGI, |b| matches!(b, [1, 3 | 6 | 7 | 10 | 11, _, _, _, _, _, 0, ..])),
    // RFC 4253, section 4.2.
    (other("SSH"), |b| b.starts_with(b"SSH-")),
    // RESP: what a server answers to a line that is no command.
    (other("Redis"), |b| {
        b.starts_with(b"-ERR ") || b.starts_with(b"-DENIED ") || b.starts_with(b"-NOAUTH ")
    }),
    // HandshakeV10: a length of three bytes, sequence 0, protocol 10, then the version as text;
    // or an error packet in its place.
    (other("MySQL"), |b| matches!(b, [_, _, 0, 0, 0x0a, b'0'..=b'9', b'0'..=b'9' | b'.', ..])),
    (other("MySQL"), |b| matches!(b, [_, _, 0, 0, 0xff, _, _, ..])),
    // RFC 5321 and RFC 959 both greet with 220; RFC 5321 names the protocol in what follows.
    (other("SMTP"), |b| b.starts_with(b"220") && contains(b, b"SMTP")),
    (other("FTP"), |b| b.starts_with(b"220") && contains(b, b"FTP") && !contains(b, b"SMTP")),
    (other("POP3"), |b| b.starts_with(b"+OK ") && contains(b, b"POP")),
    (other("IMAP"), |b| b.starts_with(b"* OK ") && contains(b, b"IMAP")),
    (other("memcached"), |b| b.starts_with(b"ERROR\r\n")),
    (other("AMQP"), |b| b.starts_with(b"AMQP\0")),
    (other("RTSP"), |b| b.starts_with(b"RTSP/")),
];

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(bytes, what).is_some()
}

/// The directive that limits the response header of a protocol module of nginx's. `proxy_v2`,
/// HTTP/2 to the upstream, has no directives of its own.
pub fn buffer_directive(module: &str) -> Option<&'static str> {
    Some(match module {
        "proxy" | "proxy_v2" => "proxy_buffer_size",
        "fastcgi" => "fastcgi_buffer_size",
        "uwsgi" => "uwsgi_buffer_size",
        "scgi" => "scgi_buffer_size",
        "grpc" => "grpc_buffer_size",
        "memcached" => "memcached_buffer_size",
        _ => return None,
    })
}

/// Bytes shown of what was no response.
const SHOWN: usize = 32;

/// The first bytes as they can be shown: printable ASCII, everything else escaped.
pub fn shown(bytes: &[u8], module: Option<&str>) -> String {
    let mut bytes = bytes.get(..SHOWN).unwrap_or(bytes).to_vec();
    // nginx ends the line with a NUL in place of the LF before it looks at it
    // (ngx_http_memcached_process_header).
    let end = memchr::memmem::find(&bytes, b"\r\0").and_then(|at| bytes.get_mut(at..)?.get_mut(1));
    if let (Some(end), Some("memcached")) = (end, module) {
        *end = b'\n';
    }
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Option<&'static str> {
        mismatch(bytes, Some("proxy")).map(|mismatch| mismatch.found.name)
    }

    #[test]
    fn protocols_by_their_first_bytes() {
        assert_eq!(name(b"\x15\x03\x01\x00\x02\x02\x46"), Some("TLS"));
        assert_eq!(name(b"\x16\x03\x03\x00\x7a\x02"), Some("TLS"));
        assert_eq!(name(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03"), Some("HTTP/2"));
        assert_eq!(name(b"\x01\x06\x00\x01\x00\x10\x00\x00Status"), Some("FastCGI"));
        assert_eq!(name(b"SSH-2.0-OpenSSH_9.2p1\r\n"), Some("SSH"));
        assert_eq!(name(b"-ERR wrong number of arguments for 'get' command\r\n"), Some("Redis"));
        assert_eq!(name(b"\x4a\x00\x00\x00\x0a8.0.36\x00"), Some("MySQL"));
        assert_eq!(name(b"\x45\x00\x00\x00\xff\x6a\x04Host"), Some("MySQL"));
        assert_eq!(name(b"220 mail.example.com ESMTP Postfix\r\n"), Some("SMTP"));
        assert_eq!(name(b"220 (vsFTPd 3.0.3)\r\n"), Some("FTP"));
        assert_eq!(name(b"ERROR\r\n"), Some("memcached"));
    }

    #[test]
    fn what_is_expected_is_no_mismatch() {
        let of = |bytes, module| mismatch(bytes, Some(module)).map(|m| m.names());
        assert_eq!(of(b"HTTP/1.1 400 Bad Request", "grpc"), Some(("HTTP/1", "HTTP/2")));
        assert_eq!(of(b"\0\0\x12\x04\0\0\0\0\0\0", "proxy"), Some(("HTTP/2", "HTTP/1")));
        assert_eq!(of(b"HTTP/1.1 400 Bad Request", "fastcgi"), Some(("HTTP", "FastCGI")));
        assert_eq!(of(b"HTTP/1.1 400 Bad Request", "proxy"), None);
        assert_eq!(of(b"HTTP/1.1 400 Bad Request", "uwsgi"), None);
        assert_eq!(of(b"\x01\x06\x00\x01\x00\x10\x00\x00Status", "fastcgi"), None);
        assert_eq!(of(b"ERROR\r\n", "memcached"), None);
        assert_eq!(of(b"ERROR\r\n", "unheard_of"), Some(("memcached", "HTTP")));
    }

    #[test]
    fn what_could_be_anything_is_nothing() {
        for bytes in [&b""[..], b"hello", b"<html>", b"220 welcome", b"\x16", b"\x00\x00", b"HTTP"]
        {
            assert_eq!(name(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_are_shown_escaped_and_bounded() {
        assert_eq!(shown(b"ERROR\r\0", Some("memcached")), "ERROR\\r\\n");
        assert_eq!(shown(b"\x15\x03\"\\a\r\n", None), "\\x15\\x03\\\"\\\\a\\r\\n");
        assert_eq!(shown(&[b'a'; 100], None).len(), 32);
    }
}
