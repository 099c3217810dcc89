//! Connections that served a request before.

use serde_json::json;
use t::Conn;
use t::protocol::{self, Protocol};
use t::script;

use crate::peer::{End, tcp, unix};
use crate::row::{Ask, CLOSED, ECONNRESET, ETIMEDOUT, LATER, RESET, Row, SOON, TIMED_OUT, row};

/// Serves the first request of each connection and answers the second with these bytes.
fn second(
    protocol: &Protocol,
    bytes: &'static [u8],
    end: End,
) -> impl Fn(usize, &mut Conn) + Send + Sync + use<> {
    let (read, good) = (protocol.read, protocol.good.clone());
    move |_, conn| {
        // The second one comes in one piece; of HTTP/2 it has no preface.
        let reset = matches!(end, End::Rst) && bytes.is_empty();
        let asked =
            |conn: &mut Conn| if reset { conn.wait_readable() } else { conn.read_some().is_some() };
        if read(conn) && conn.write(&good) && asked(conn) && conn.write(bytes) {
            match end {
                End::Fin => {}
                End::Rst => conn.reset(),
                End::Wait => conn.wait_peer_close(),
            }
        }
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    // Guards against a connection that is closed on reuse being blamed on the upstream, and
    // against the attempt that followed it being lost.
    for protocol in protocol::all().iter().filter(|protocol| protocol.keeps.is_some()) {
        let name = protocol.name;
        let row = |what, end| row(what, name, tcp(second(protocol, b"", end))).reused();
        let once = format!("{name}_next_upstream off;");
        let known = |message: &str| json!({"message": message, "bytes_received": 0, "status": 502});
        let rows_here = [
            row("closed on reuse", End::Fin)
                .masked("keepalive_race", "header", &[])
                .retried()
                .shows(known(CLOSED)),
            row("closed on reuse, not tried again", End::Fin)
                .with(&once)
                .failed("keepalive_race", "header", &[])
                .shows(known(CLOSED))
                .says("{addr} closed a reused connection", "keepalive_"),
            row("reset on reuse", End::Rst)
                .masked("keepalive_race", "header", &[ECONNRESET])
                .retried()
                .shows(known(RESET)),
            row("reset on reuse, not tried again", End::Rst)
                .with(&once)
                .failed("keepalive_race", "header", &[ECONNRESET])
                .shows(known(RESET)),
        ];
        rows.extend(rows_here);
    }
    let http = protocol::http();
    let row = |what, bytes, end| row(what, "proxy", tcp(second(&http, bytes, end))).reused();
    const PART: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Ty";
    const CUT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ngood";
    rows.extend([
        // nginx tries a request that is not idempotent on no other connection.
        row("closed on reuse by a POST", b"", End::Fin).ask(Ask::Post(4)).failed(
            "keepalive_race",
            "header",
            &[],
        ),
        row("closed on reuse, HTTP/2 client", b"", End::Fin)
            .ask(Ask::H2)
            .masked("keepalive_race", "header", &[])
            .retried(),
        // Guards against what fails later on a reused connection being taken for a race.
        row("closed in the header on reuse", PART, End::Fin)
            .with("proxy_next_upstream off;")
            .failed("closed_in_header", "header", &[])
            .shows(json!({"bytes_received": PART.len(), "message": CLOSED})),
        row("reset in the header on reuse", PART, End::Rst)
            .with("proxy_next_upstream off;")
            .failed("connection_reset", "header", &[ECONNRESET])
            .shows(json!({"bytes_received": PART.len(), "message": RESET})),
        row("silent on reuse", b"", End::Wait)
            .waits("read", SOON)
            .with("proxy_next_upstream off;")
            .failed("response_timed_out", "header", &[ETIMEDOUT])
            .shows(json!({"bytes_received": 0, "message": TIMED_OUT})),
        row("body cut by FIN on reuse", CUT, End::Fin)
            .truncated("response_truncated", "body", &[])
            .shows(json!({"message": CLOSED})),
        row("body cut by RST on reuse", CUT, End::Rst).truncated(
            "response_truncated",
            "body",
            &[ECONNRESET],
        ),
        row("silent in the body on reuse", CUT, End::Wait).waits("read", LATER).truncated(
            "body_timed_out",
            "body",
            &[ETIMEDOUT],
        ),
        row("503 on reuse", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", End::Wait)
            .passed(503)
            .shows(json!({"reused": null})),
        crate::row::row(
            "closed on reuse on a unix socket",
            "proxy",
            unix(script::keepalive_then_close_on_next(script::End::Fin)),
        )
        .reused()
        .masked("keepalive_race", "header", &[])
        .retried(),
        crate::row::row(
            "reset on reuse on a unix socket",
            "proxy",
            unix(script::keepalive_then_close_on_next(script::End::Rst)),
        )
        .reused()
        .masked("keepalive_race", "header", &[ECONNRESET])
        .retried(),
    ]);
    rows
}
