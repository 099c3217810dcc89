//! The request on its way, and the body of the response; and errors that the upstream answers
//! with itself.

use serde_json::json;
use t::Conn;
use t::script::{self, End};

use crate::peer::{tcp, tcp6, unix};
use crate::row::{
    Ask, Before, CLOSED, ECONNRESET, EPIPE, ETIMEDOUT, LATER, Row, SOON, TIMED_OUT, row,
};

/// More than the buffers of a socket hold when nobody reads.
const LARGE: usize = 16 << 20;
/// The same on a unix socket.
const LARGE_UNIX: usize = 2 << 20;

/// Resets when it has seen a part of the request.
fn resets(_: usize, conn: &mut Conn) {
    if conn.is_unix() {
        // Unread data is what makes a unix socket look reset.
        conn.wait_readable();
    } else {
        conn.read_some();
    }
    conn.reset();
}

/// Says these bytes and that nothing follows, and reads no further than a part of the request.
fn ends(bytes: &'static [u8]) -> impl Fn(usize, &mut Conn) {
    move |_, conn| {
        conn.read_some();
        conn.write(bytes);
        conn.half_close();
        conn.hold();
    }
}

pub(crate) fn sending() -> Vec<Row> {
    // Guards against an upstream that does not read being taken for one that does not answer.
    let stuck = |what, speaks, peer, size| {
        row(what, speaks, peer)
            .ask(Ask::Post(size))
            .waits("send", SOON)
            .failed("send_timed_out", "send", &[ETIMEDOUT])
            .shows(json!({"message": TIMED_OUT, "bytes_received": 0, "header": null}))
    };
    let hold = |_: usize, conn: &mut Conn| conn.hold();
    // Guards against the phase being taken from nginx's words: it says "reading response header"
    // while the body is still being sent. Writing gives EPIPE on a unix socket and from
    // sendfile().
    let reset = |what, peer, size| {
        row(what, "proxy", peer)
            .ask(Ask::Post(size))
            .failed("connection_reset", "send", &[ECONNRESET])
            .shows(json!({"bytes_received": 0, "header": null}))
    };
    let either = |row: Row| Row { errnos: &[ECONNRESET, EPIPE], ..row };
    vec![
        stuck("not read", "proxy", tcp(hold), LARGE),
        stuck("not read on a unix socket", "proxy", unix(hold), LARGE_UNIX),
        stuck("not read", "fastcgi", tcp(hold), LARGE),
        stuck("not read on a unix socket", "uwsgi", unix(hold), LARGE_UNIX),
        reset("reset while sending", tcp(resets), LARGE),
        reset("reset while sending what comes", tcp(resets), LARGE)
            .with("proxy_request_buffering off;"),
        either(reset("reset while sending a file", tcp(resets), LARGE).with("sendfile on;")),
        either(reset("reset while sending on a unix socket", unix(resets), LARGE_UNIX)),
        // Guards against a close that comes early being told as one of the response.
        row("closed while sending", "proxy", tcp(ends(b"")))
            .ask(Ask::Post(LARGE))
            .failed("closed_before_response", "send", &[])
            .shows(json!({"message": CLOSED, "bytes_received": 0})),
        row("closed in the header while sending", "proxy", tcp(ends(b"HTTP/1.1 4")))
            .ask(Ask::Post(LARGE))
            .failed("closed_in_header", "send", &[])
            .shows(json!({"message": CLOSED, "bytes_received": 10})),
    ]
}

pub(crate) fn bodies() -> Vec<Row> {
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    const BROKEN: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nbroken\r\n";
    let fin = || script::partial_body(100, "part", End::Fin);
    let rst = || script::partial_body(100, "part", End::Rst);
    // Guards against a response that was cut off counting as good, as the client's status does.
    let cut = |what, peer| {
        row(what, "proxy", peer)
            .truncated("response_truncated", "body", &[])
            .shows(json!({"message": CLOSED, "status": 200, "header": null}))
    };
    let own = |what, status| row(what, "proxy", tcp(script::status(status))).passed(status);
    vec![
        cut("body cut on IPv6, unbuffered", tcp6(fin())).with("proxy_buffering off;"),
        cut("chunked body cut", tcp(script::raw(CHUNKS))).with("proxy_http_version 1.1;"),
        cut("chunked body cut, unbuffered", tcp(script::raw(CHUNKS)))
            .with("proxy_http_version 1.1; proxy_buffering off;"),
        cut("body cut, unbuffered", tcp(fin())).with("proxy_buffering off;"),
        row("body cut by RST, unbuffered", "proxy", tcp(rst()))
            .with("proxy_buffering off;")
            .truncated("response_truncated", "body", &[ECONNRESET]),
        // Guards against a response that stops being taken for one that never came.
        row(
            "silent in the body, unbuffered",
            "proxy",
            tcp(|_, conn: &mut Conn| {
                conn.read_request();
                conn.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
                conn.wait_peer_close();
            }),
        )
        .waits("read", LATER)
        .with("proxy_buffering off;")
        .truncated("body_timed_out", "body", &[ETIMEDOUT])
        .shows(json!({"message": TIMED_OUT})),
        // Guards against a broken chunk being taken for a body that was cut.
        row("a broken chunk", "proxy", tcp(script::raw(BROKEN)))
            .with("proxy_http_version 1.1;")
            .truncated("invalid_body", "body", &[])
            .shows(json!({"message": "upstream sent invalid chunked response"})),
        row("a broken chunk, unbuffered", "proxy", tcp(script::raw(BROKEN)))
            .with("proxy_http_version 1.1; proxy_buffering off;")
            .truncated("invalid_body", "body", &[]),
        // Guards against a disk of nginx's own being put down to the upstream.
        row("nowhere to keep the response", "proxy", tcp(script::ok("r".repeat(1 << 16))))
            .with("proxy_temp_path {prefix}/gone; proxy_store on; root {prefix}/stored;")
            .truncated("internal_error", "body", &[(2, "ENOENT")])
            .before(Before::Removed("gone")),
        // Guards against an error of the upstream's own being taken for one of nginx's, of which
        // nginx logs nothing.
        own("its own 502", 502),
        own("its own 503, HTTP/2 client", 503).ask(Ask::H2),
        own("its own 504", 504),
        own("its own 502 behind an error page", 502)
            .with("proxy_intercept_errors on; error_page 502 /page;"),
        own("its own 502 behind an error page of status 200", 502)
            .with("proxy_intercept_errors on; error_page 502 =200 /page;")
            .served(),
        own("its own 502, with another server behind", 502)
            .with("proxy_next_upstream http_502;")
            .group("server {good};")
            .served()
            .retried(),
        own("its own 503, with another server behind", 503)
            .with("proxy_next_upstream http_503;")
            .group("server {good};")
            .served()
            .retried(),
        own("its own 504, with another server behind", 504)
            .with("proxy_next_upstream http_504;")
            .group("server {good};")
            .served()
            .retried(),
        own("its own 504, of an address made at run time", 504)
            .pass("proxy_pass http://$to;")
            .with("set $to {addr};"),
    ]
}
