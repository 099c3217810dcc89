//! What can fail in every protocol, told in the same way in all of them.

use serde_json::{Value, json};
use t::protocol::{self, Protocol};

use crate::peer::{End, Peer, sends, tcp};
use crate::row::{
    CLOSED, ECONNREFUSED, ECONNRESET, ETIMEDOUT, LATER, RESET, Row, SOON, TIMED_OUT, row,
};

/// Bytes of a header that is too big, framing aside.
const BIG: usize = 13_000;

pub(crate) fn http() -> Vec<Row> {
    rows(&protocol::http())
}

/// nginx keeps the connection of a stream in another place than that of a request of HTTP/1.
pub(crate) fn http_of_http2_clients() -> Vec<Row> {
    http().into_iter().map(Row::by_h2).collect()
}

pub(crate) fn fastcgi() -> Vec<Row> {
    rows(&protocol::fastcgi())
}

pub(crate) fn uwsgi() -> Vec<Row> {
    rows(&protocol::uwsgi())
}

pub(crate) fn scgi() -> Vec<Row> {
    rows(&protocol::scgi())
}

pub(crate) fn grpc() -> Vec<Row> {
    rows(&protocol::grpc())
}

/// A value without the line that ends it is cut, too: nobody knows that it is whole.
pub(crate) fn memcached() -> Vec<Row> {
    rows(&protocol::memcached())
}

/// The rows that all protocols have. They guard against a fault being told otherwise in one
/// protocol than in the others.
fn rows(protocol: &Protocol) -> Vec<Row> {
    let (name, greeting) = (protocol.name, protocol.greeting);
    let (header, body) = (&protocol.half_header, &protocol.half_body);
    let row = |what, bytes: &[u8], end| row(what, name, tcp(sends(protocol, bytes, end)));
    let none: &[u8] = b"";
    let received = |bytes: &[u8], message: &str| {
        let received = greeting + bytes.len();
        json!({"bytes_received": received, "message": message})
    };
    // HTTP/2 servers have greeted before they fail.
    let nothing = if greeting == 0 { "closed_before_response" } else { "closed_in_header" };
    let mut rows = vec![
        crate::row::row("refused", name, Peer::Refused)
            .failed("connection_refused", "connect", &[ECONNREFUSED])
            .shows(json!({"message": "connect() failed (111: Connection refused)"})),
        row("closed at once", none, End::Fin)
            .failed(nothing, "header", &[])
            .shows(received(none, CLOSED)),
        row("closed in the header", header, End::Fin)
            .failed("closed_in_header", "header", &[])
            .shows(received(header, CLOSED)),
        row("reset at once", none, End::Rst)
            .failed("connection_reset", "header", &[ECONNRESET])
            .shows(received(none, RESET)),
        row("reset in the header", header, End::Rst)
            .failed("connection_reset", "header", &[ECONNRESET])
            .shows(received(header, RESET)),
        row("silent", none, End::Wait)
            .waits("read", if greeting == 0 { SOON } else { LATER })
            .failed("response_timed_out", "header", &[ETIMEDOUT])
            .shows(received(none, TIMED_OUT))
            .shows(json!({"tcp": {"state": "ESTABLISHED"}})),
        row("silent in the header", header, End::Wait)
            .waits("read", LATER)
            .failed("response_timed_out", "header", &[ETIMEDOUT])
            .shows(received(header, TIMED_OUT))
            .says("{addr} sent no complete response header within ", ""),
        row("body cut by FIN", body, End::Fin)
            .with(protocol.sees_fin)
            .truncated("response_truncated", "body", &[])
            .shows(json!({"message": CLOSED, "status": 200, "header": null})),
        row("body cut by RST", body, End::Rst)
            .truncated("response_truncated", "body", &[ECONNRESET])
            .shows(json!({"status": 200, "header": null})),
        row("silent in the body", body, End::Wait)
            .waits("read", LATER)
            .truncated("body_timed_out", "body", &[ETIMEDOUT])
            .shows(json!({"message": TIMED_OUT, "status": 200, "header": null,
                          "tcp": {"state": "ESTABLISHED"}})),
        too_big(protocol),
    ];
    if let Some(unavailable) = &protocol.unavailable {
        rows.push(row("the application's own 503", unavailable, End::Fin).passed(503));
    }
    rows
}

/// Guards against directives that the protocol does not have, and against framing and the body
/// being counted as header.
fn too_big(protocol: &Protocol) -> Row {
    let (bytes, size) = (protocol.big_header)(BIG);
    let known: Value = match protocol.name {
        // What waits in the kernel behind a frame may be another.
        "grpc" => json!({"exact": false}),
        _ => json!({"exact": true, "size": size}),
    };
    let directive = format!("{}_buffer_size", protocol.name);
    let mut header = json!({"limit": 4096, "directive": directive});
    crate::row::merge(&mut header, &known);
    row("header too big", protocol.name, tcp(sends(protocol, &bytes, End::Fin)))
        .failed("header_too_big", "header", &[])
        .shows(json!({"message": "upstream sent too big header", "header": header}))
        .says("_buffer_size", "Set ")
}
