//! Response headers of HTTP upstreams: none, too much, or something else.

use serde_json::{Value, json};
use t::script;

use crate::peer::{Peer, Script, tcp};
use crate::row::{CLOSED, ECONNRESET, ETIMEDOUT, RESET, Row, SOON, TIMED_OUT, row};

/// What `every` does on TCP, on IPv6 and unix sockets. Guards against evidence that depends on the
/// kind of the socket: its statistics, what is peeked at, the errors that it can have.
pub(crate) fn transports() -> Vec<Row> {
    let part = "HTTP/1.1 200 OK\r\nContent-Ty".len();
    let on = |name: &str, make: fn(Script) -> Peer| {
        let row = |what, script| row(format!("{what} on {name}"), "proxy", make(script));
        [
            row("closed at once", Box::new(script::close_at_once()))
                .failed("closed_before_response", "header", &[])
                .shows(json!({"message": CLOSED, "bytes_received": 0, "header": null})),
            row("closed in the header", Box::new(script::partial_header_then_close()))
                .with("proxy_buffer_size 8k;")
                .failed("closed_in_header", "header", &[])
                .shows(json!({"message": CLOSED, "bytes_received": part,
                              "header": {"size": part, "exact": false, "limit": 8192}}))
                .says("after 27 bytes", ""),
            row("reset", Box::new(script::reset_at_once()))
                .failed("connection_reset", "header", &[ECONNRESET])
                .shows(json!({"message": RESET, "bytes_received": 0, "header": null})),
            row("silent", Box::new(script::silent()))
                .waits("read", SOON)
                .failed("response_timed_out", "header", &[ETIMEDOUT])
                .shows(json!({"message": TIMED_OUT, "bytes_received": 0, "header": null})),
            row("header too big", Box::new(script::big_header(9043)))
                .failed("header_too_big", "header", &[])
                .shows(json!({"bytes_received": 4096, "header": {"size": 9043, "exact": true}})),
            row("body cut", Box::new(script::partial_body(100, "part", script::End::Fin)))
                .truncated("response_truncated", "body", &[])
                .shows(json!({"message": CLOSED, "header": null})),
        ]
    };
    [on("IPv6", Peer::Tcp6), on("a unix socket", Peer::Unix)].into_iter().flatten().collect()
}

pub(crate) fn headers() -> Vec<Row> {
    let raw = |what, bytes: &[u8]| row(what, "proxy", tcp(script::raw(bytes.to_vec())));
    // Guards against these being `unknown`, and against what the upstream wrote into them deciding
    // anything: it is shown.
    let invalid = |what, bytes: &'static [u8]| {
        raw(what, bytes).failed("invalid_header", "header", &[]).shows(shown(bytes))
    };
    // nginx 1.22 lets these pass. Guards against a trace of what it lets pass.
    let lenient = |what, bytes| Row { lenient: true, ..invalid(what, bytes) };
    let big = |what, size| {
        row(what, "proxy", tcp(script::big_header(size)))
            .failed("header_too_big", "header", &[])
            .shows(json!({"header": {"size": size, "exact": true, "limit": 4096,
                                     "directive": "proxy_buffer_size"}}))
    };
    let endless = format!("HTTP/1.1 200 OK\r\nX-Pad: {}", "p".repeat(5000));
    let length = endless.len();
    vec![
        invalid("a NUL in a name", b"HTTP/1.1 200 OK\r\nno live upstreams\0: x\r\n\r\n"),
        lenient(
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        ),
        lenient("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\na"),
        lenient(
            "a length and chunks",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        lenient("an unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        invalid("a NUL in a name, masked", b"HTTP/1.1 200 OK\r\n\0: x\r\n\r\n")
            .with("proxy_next_upstream invalid_header;")
            .group("server {good};")
            .masked("invalid_header", "header", &[])
            .retried(),
        // nginx passes bytes without a status line on as HTTP/0.9. Guards against that counting as
        // a good response.
        old("no status line", b"this is no \"status\" line\r\n\r\n", "invalid_response"),
        old("a status that is no number", b"HTTP/1.1 good OK\r\n\r\n", "invalid_response"),
        old("a single line feed", b"\n", "invalid_response"),
        // Guards against a size that is a guess: the exact one is in nginx's buffer and the
        // kernel's.
        big("header too big by a byte", 4097).says("4097 bytes", "Set proxy_buffer_size 8k; or "),
        big("header too big for two pages", 9043)
            .says("9043 bytes", "Set proxy_buffer_size 12k; or "),
        big("header much too big", 30_000).says("30000 bytes", "Set proxy_buffer_size "),
        // Guards against a header whose end is not in sight being given an exact size.
        row(
            "header without an end",
            "proxy",
            tcp(move |_, conn| {
                conn.read_request();
                conn.write(&endless);
                conn.wait_peer_close();
            }),
        )
        .failed("header_too_big", "header", &[])
        .shows(json!({"header": {"size": length, "exact": false, "limit": 4096}}))
        .says("at least 5024 bytes", "to at least 8k"),
        big("header too big, masked", 5000)
            .with("proxy_next_upstream invalid_header;")
            .group("server {good};")
            .masked("header_too_big", "header", &[])
            .retried(),
        // Guards against a port for TLS that resets what it does not read being told as a crash only.
        row("reset at once, never answered", "proxy", tcp(script::reset_at_once()))
            .failed("connection_reset", "header", &[ECONNRESET])
            .says("", "; if the port is for TLS, use https:// in proxy_pass."),
        row("closed at once, never answered", "proxy", tcp(script::close_at_once()))
            .failed("closed_before_response", "header", &[])
            .says("", "; if the port is for TLS, use https:// in proxy_pass."),
        row("closed at once, masked", "proxy", tcp(script::close_at_once()))
            .group("server {good};")
            .masked("closed_before_response", "header", &[])
            .retried(),
        raw("closed in the status", b"HTTP/1.1 2")
            .failed("closed_in_header", "header", &[])
            .shows(json!({"bytes_received": 10, "header": {"size": 10, "exact": false}})),
    ]
}

/// Guards against a wrong port or a wrong scheme being reported as nonsense: the protocol that
/// answered is named, and what to do about it.
pub(crate) fn other_protocols() -> Vec<Row> {
    let other =
        |bytes, name, summary, advice| old(name, bytes, "protocol_mismatch").says(summary, advice);
    const PORT: &str = "Correct the address or port";
    vec![
        other(
            b"\x15\x03\x01\x00\x02\x02\x46",
            "TLS",
            "{addr} speaks TLS, not HTTP.",
            "Use https:// in proxy_pass",
        ),
        other(
            b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
            "HTTP/2",
            "{addr} speaks HTTP/2, not HTTP/1.",
            "Use grpc_pass",
        ),
        other(
            b"\x01\x06\0\x01\0\x02\0\0ok",
            "FastCGI",
            "{addr} speaks FastCGI, not HTTP.",
            "Use fastcgi_pass",
        ),
        other(b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH", "{addr} speaks SSH, not HTTP.", PORT),
        other(b"-ERR unknown command 'Host:'\r\n", "Redis", "{addr} speaks Redis, not HTTP.", PORT),
        other(b"\x4a\0\0\0\x0a8.0.36\0", "MySQL", "{addr} speaks MySQL, not HTTP.", PORT),
        other(
            b"220 mail.example.com ESMTP Postfix\r\n",
            "SMTP",
            "{addr} speaks SMTP, not HTTP.",
            PORT,
        ),
        other(b"ERROR\r\n", "memcached", "{addr} speaks memcached, not HTTP.", PORT),
        other(b"AMQP\0\0\x09\x01", "AMQP", "{addr} speaks AMQP, not HTTP.", PORT),
    ]
}

/// Bytes that nginx takes for HTTP/0.9.
fn old(what: &str, bytes: &'static [u8], cause: &'static str) -> Row {
    row(what, "proxy", tcp(script::raw(bytes)))
        // There is nothing else by which a client could tell the end.
        .header("Connection: close\r\n")
        .truncated(cause, "header", &[])
        .shows(shown(bytes))
        .shows(json!({"message": "upstream sent no valid HTTP/1.0 header"}))
}

/// Evidence of bytes that are no header.
pub(crate) fn shown(bytes: &[u8]) -> Value {
    let first = bytes[..bytes.len().min(32)].escape_ascii().to_string();
    json!({"first_bytes": first, "bytes_received": bytes.len()})
}
