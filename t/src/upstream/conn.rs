//! One connection of an upstream, as its script sees it.

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::Socket;

use super::Shared;
use super::tls::Session;
use crate::client::find;

/// A latch: scripts wait at it until the test opens it (or drops the upstream).
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Makes those who wait look again.
    pub(super) fn wake(&self) {
        drop(self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }
}

/// A connection. When the script returns it is closed.
///
/// Peers go away and upstreams are dropped in the middle of a script, so that
/// failing is no error here: methods say whether the connection still works,
/// and do nothing once it does not.
#[derive(Debug)]
pub struct Conn {
    index: usize,
    /// None: closed.
    socket: Option<Arc<Socket>>,
    unix: bool,
    /// When it speaks TLS: everything but the ends of the connection goes through it.
    tls: Option<Session>,
    /// Received and not yet part of a request.
    buf: Vec<u8>,
    shared: Arc<Shared>,
}

impl Conn {
    pub(super) fn new(index: usize, socket: Arc<Socket>, unix: bool, shared: Arc<Shared>) -> Self {
        Self { index, socket: Some(socket), unix, tls: None, buf: Vec::new(), shared }
    }

    /// How many connections the upstream accepted before this one.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether it came over a unix socket.
    pub fn is_unix(&self) -> bool {
        self.unix
    }

    /// The handshake of a TLS server; `false` when it failed.
    pub(super) fn accept_tls(&mut self, config: &Arc<ServerConfig>) -> bool {
        self.tls = self.socket.as_deref().and_then(|socket| Session::accept(config, socket));
        if let Some(tls) = &mut self.tls {
            // What came together with the end of the handshake makes the socket readable no more.
            tls.take(&mut self.buf);
        }
        self.tls.is_some()
    }

    /// Reads a request, its body too (by `Content-Length` or chunked), and
    /// logs it; none when the peer closed before its end.
    pub fn read_request(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buf[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let total = if field("transfer-encoding") == Some("chunked") {
            loop {
                // The body starts where the header's last CRLF ends.
                if let Some(at) = find(&self.buf[end - 2..], b"\r\n0\r\n\r\n") {
                    break end - 2 + at + 7;
                }
                self.fill()?;
            }
        } else {
            let length = field("content-length").and_then(|v| v.parse::<usize>().ok());
            end.saturating_add(length.unwrap_or(0))
        };
        while self.buf.len() < total {
            self.fill()?;
        }
        let request: Vec<u8> = self.buf.drain(..total).collect();
        self.shared.log().requests.push(request.clone());
        self.shared.changed.notify_all();
        Some(request)
    }

    /// Reads whatever comes next, at least one byte; none when the peer closed.
    pub fn read_some(&mut self) -> Option<Vec<u8>> {
        if self.buf.is_empty() {
            self.fill()?;
        }
        Some(std::mem::take(&mut self.buf))
    }

    /// Reads until what has come is complete, and takes all of it; `false` when the peer closed
    /// before.
    pub fn read_until(&mut self, complete: impl Fn(&[u8]) -> bool) -> bool {
        while !complete(&self.buf) {
            if self.fill().is_none() {
                return false;
            }
        }
        self.buf.clear();
        true
    }

    /// Waits for a byte, or for the peer to close, without reading it.
    pub fn wait_readable(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        !self.buf.is_empty()
            || self.socket.as_ref().is_some_and(|s| s.peek(&mut byte).is_ok_and(|n| n > 0))
    }

    /// Reads until the peer closes.
    pub fn wait_peer_close(&mut self) {
        while self.fill().is_some() {}
    }

    /// Writes, in one `write` as far as the socket's buffer allows.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let Some(mut socket) = self.socket.as_deref() else { return false };
        match &mut self.tls {
            Some(tls) => tls.write(socket, bytes.as_ref()),
            None => socket.write_all(bytes.as_ref()).is_ok(),
        }
    }

    /// Writes `chunk` bytes at a time with a pause after each.
    pub fn write_slowly(&mut self, bytes: impl AsRef<[u8]>, chunk: usize, pause: Duration) -> bool {
        bytes.as_ref().chunks(chunk.max(1)).all(|part| {
            let written = self.write(part);
            self.pause(pause);
            written && !self.shared.stopping()
        })
    }

    /// Waits; less when the upstream is dropped.
    pub fn pause(&self, time: Duration) {
        self.shared.pause(time);
    }

    /// Waits for the gate; `false` when the upstream is dropped before.
    pub fn wait(&self, gate: &Gate) -> bool {
        // Registered first: either the end sees the gate in the list, or the
        // look below sees that the end has come.
        self.shared.gates.lock().unwrap_or_else(PoisonError::into_inner).push(gate.clone());
        let closed = gate.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = gate
            .0
            .1
            .wait_while(closed, |open| !*open && !self.shared.stopping())
            .unwrap_or_else(PoisonError::into_inner);
        *open
    }

    /// Keeps the connection open until the upstream is dropped.
    pub fn hold(&self) {
        self.wait(&Gate::new());
    }

    /// Says over TLS that nothing will follow, as a good server does before it closes.
    pub fn close_notify(&mut self) {
        if let (Some(tls), Some(socket)) = (&mut self.tls, &self.socket) {
            tls.close_notify(socket);
        }
    }

    /// Sends FIN and can still read.
    pub fn half_close(&self) {
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Closes with FIN. What has arrived is read before, as the kernel sends
    /// RST when there is data nobody read.
    pub fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            let mut part = [0; 4096];
            let _ = socket.set_nonblocking(true);
            while (&*socket).read(&mut part).is_ok_and(|n| n > 0) {}
            self.drop_socket(socket);
        }
    }

    /// Closes with RST. A unix socket has none; there the peer sees the same
    /// error when data it sent was not read ([`Conn::wait_readable`]).
    pub fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = socket.set_linger(Some(Duration::ZERO));
            self.drop_socket(socket);
        }
    }

    fn drop_socket(&self, socket: Arc<Socket>) {
        drop(socket);
        self.shared.notify();
    }

    fn fill(&mut self) -> Option<()> {
        let mut socket = self.socket.as_deref()?;
        if let Some(tls) = &mut self.tls {
            return tls.fill(socket, &mut self.buf);
        }
        let mut part = [0; 16384];
        let n = socket.read(&mut part).ok().filter(|n| *n > 0)?;
        self.buf.extend_from_slice(&part[..n]);
        Some(())
    }
}
