//! Scripts that many tests need, and scripts made of steps.
//!
//! Each function returns what [`Upstream::tcp`](super::Upstream::tcp) and its
//! siblings take.

use std::time::Duration;

use super::{Conn, Gate};

/// One thing a connection does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads a request; the connection ends here when none comes.
    ReadRequest,
    /// Waits for a byte and does not read it.
    WaitReadable,
    /// Writes.
    Write(Vec<u8>),
    /// Writes so many bytes at a time with a pause after each.
    WriteSlowly(Vec<u8>, usize, Duration),
    /// Waits.
    Pause(Duration),
    /// Waits for the gate.
    Wait(Gate),
    /// Stays open until the upstream is dropped.
    Hold,
    /// Reads until the peer closes.
    WaitPeerClose,
    /// Sends FIN and can still read.
    HalfClose,
    /// Closes with FIN.
    Close,
    /// Closes with RST.
    Reset,
}

/// Each connection takes its own list; the last list is for all later ones.
pub fn steps(lists: Vec<Vec<Step>>) -> impl Fn(usize, &mut Conn) {
    move |index, conn| {
        for step in lists.get(index).or(lists.last()).into_iter().flatten() {
            match step {
                Step::ReadRequest => {
                    if conn.read_request().is_none() {
                        return;
                    }
                }
                Step::WaitReadable => drop(conn.wait_readable()),
                Step::Write(bytes) => drop(conn.write(bytes)),
                Step::WriteSlowly(bytes, n, pause) => drop(conn.write_slowly(bytes, *n, *pause)),
                Step::Pause(time) => conn.pause(*time),
                Step::Wait(gate) => drop(conn.wait(gate)),
                Step::Hold => conn.hold(),
                Step::WaitPeerClose => conn.wait_peer_close(),
                Step::HalfClose => conn.half_close(),
                Step::Close => conn.close(),
                Step::Reset => conn.reset(),
            }
        }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With FIN.
    Fin,
    /// With RST.
    Rst,
}

/// A 200 response with this body.
pub fn response(body: impl AsRef<[u8]>) -> Vec<u8> {
    response_with(200, body)
}

/// A response with this status and body.
pub fn response_with(status: u16, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut all = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n\r\n", body.len())
        .into_bytes();
    all.extend_from_slice(body);
    all
}

/// Answers every request, keeping the connection open.
pub fn ok(body: impl AsRef<[u8]>) -> impl Fn(usize, &mut Conn) {
    answer(response(body))
}

/// Answers every request with this status.
pub fn status(status: u16) -> impl Fn(usize, &mut Conn) {
    answer(response_with(status, "scripted"))
}

fn answer(response: Vec<u8>) -> impl Fn(usize, &mut Conn) {
    move |_, conn| while conn.read_request().is_some() && conn.write(&response) {}
}

/// Reads the request, sends these bytes and closes.
pub fn raw(bytes: impl Into<Vec<u8>>) -> impl Fn(usize, &mut Conn) {
    let bytes = bytes.into();
    move |_, conn| {
        if conn.read_request().is_some() {
            conn.write(&bytes);
        }
    }
}

/// Reads the request and closes.
pub fn close_at_once() -> impl Fn(usize, &mut Conn) {
    raw("")
}

/// Resets once the request is there, so that the peer has sent it without an
/// error and learns of the reset when it reads.
pub fn reset_at_once() -> impl Fn(usize, &mut Conn) {
    |_, conn| {
        // Unread data is what makes a unix socket look reset.
        let _ = if conn.is_unix() { conn.wait_readable() } else { conn.read_request().is_some() };
        conn.reset();
    }
}

/// Resets without waiting for anything: the peer may see it as early as in
/// `connect()` and as late as when it reads.
pub fn reset_on_accept() -> impl Fn(usize, &mut Conn) {
    |_, conn| conn.reset()
}

/// Sends half a header and closes.
pub fn partial_header_then_close() -> impl Fn(usize, &mut Conn) {
    raw("HTTP/1.1 200 OK\r\nContent-Ty")
}

/// Promises `promised` bytes of body, sends fewer and ends.
pub fn partial_body(promised: usize, body: &str, end: End) -> impl Fn(usize, &mut Conn) {
    let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n{body}");
    move |_, conn| {
        if conn.read_request().is_some() && conn.write(&bytes) && end == End::Rst {
            conn.reset();
        }
    }
}

/// Answers with a header of exactly `n` bytes, the empty line included, in one
/// write, and an empty body.
///
/// # Panics
/// When `n` is too small for a header.
pub fn big_header(n: usize) -> impl Fn(usize, &mut Conn) {
    let fixed = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Pad: \r\n\r\n".len();
    let pad = n.checked_sub(fixed).unwrap_or_else(|| panic!("a header has {fixed} bytes or more"));
    let pad = "p".repeat(pad);
    answer(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Pad: {pad}\r\n\r\n").into_bytes())
}

/// Reads and never answers.
pub fn silent() -> impl Fn(usize, &mut Conn) {
    |_, conn| {
        conn.read_request();
        conn.wait_peer_close();
    }
}

/// Answers the first request of each connection, keeping it open, and ends it
/// when the second arrives, before sending a byte.
pub fn keepalive_then_close_on_next(end: End) -> impl Fn(usize, &mut Conn) {
    let response = response("first");
    move |_, conn| {
        if conn.read_request().is_none() || !conn.write(&response) {
            return;
        }
        match end {
            End::Fin => drop(conn.read_request()),
            // Unread, for the sake of unix sockets.
            End::Rst => {
                if conn.wait_readable() {
                    conn.reset();
                }
            }
        }
    }
}
