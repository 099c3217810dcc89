//! A client that speaks HTTP/2 without TLS: it has several requests on one connection, and ends
//! them as it likes.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use crate::client::Client;
use crate::nginx::{Conf, Nginx};
use crate::upstream::h2::{
    DATA, END_STREAM, FRAME_HEADER, HEADERS, PREFACE, RST_STREAM, frame, headers_of, settings,
};

/// The `listen` of a server that speaks HTTP/2 without TLS: since 1.25.1 that is a directive of
/// its own.
pub fn listen() -> &'static str {
    match Nginx::check(&Conf::new("http2 on;").without_module()) {
        (true, _) => "http2 on; listen 127.0.0.1:{port};",
        (false, _) => "listen 127.0.0.1:{port} http2;",
    }
}

/// What came of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The status; 0 without a header.
    pub status: u16,
    /// The body so far.
    pub body: Vec<u8>,
    /// The server said that it is complete.
    pub complete: bool,
    /// The error code with which the server ended it.
    pub reset: Option<u32>,
}

/// A connection with streams.
#[derive(Debug)]
pub struct Streams {
    client: Client,
    /// Frames that are not sent yet.
    queue: Vec<u8>,
    seen: BTreeMap<u32, Stream>,
}

impl Streams {
    /// Connects to the first server, and says nothing yet.
    pub fn connect(nginx: &Nginx) -> Self {
        Self::over(nginx.connect())
    }

    /// Speaks HTTP/2 on a connection that nothing was said on yet.
    pub fn over(client: Client) -> Self {
        let queue = [PREFACE, &settings()].concat();
        Self { client, queue, seen: BTreeMap::new() }
    }

    /// Asks for a path on a stream (1, 3, 5, …), with a body to come or without.
    pub fn ask(&mut self, stream: u32, method: &str, path: &str) -> &mut Self {
        let flags = if method == "POST" { 0 } else { END_STREAM };
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
        ];
        self.queue.extend(headers_of(stream, flags, &fields));
        self
    }

    /// A part of the body, in one frame: less than 16k, and less than 64k altogether, as nothing
    /// is done about windows.
    pub fn body(&mut self, stream: u32, bytes: &[u8], last: bool) -> &mut Self {
        let flags = if last { END_STREAM } else { 0 };
        self.queue.extend(frame(DATA, flags, stream, bytes));
        self
    }

    /// Ends a stream with CANCEL.
    pub fn cancel(&mut self, stream: u32) -> &mut Self {
        self.queue.extend(frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes()));
        self
    }

    /// Sends what was said since, in one write.
    pub fn send(&mut self) -> io::Result<()> {
        self.client.send(&std::mem::take(&mut self.queue))
    }

    /// Waits until these streams have ended, and says what came of them.
    ///
    /// # Panics
    /// When one is late, or the connection ends before.
    pub fn wait(&mut self, streams: &[u32]) -> Vec<Stream> {
        let deadline = Instant::now() + self.client.timeout;
        let ended = |seen: &BTreeMap<u32, Stream>, stream| {
            seen.get(stream).is_some_and(|s| s.complete || s.reset.is_some())
        };
        while !streams.iter().all(|stream| ended(&self.seen, stream)) {
            let frame = self.client.frame(deadline);
            let (kind, flags, stream, payload) =
                frame.unwrap_or_else(|| panic!("the connection ended: {:?}", self.seen));
            // Settings and windows.
            if !matches!(kind, HEADERS | DATA | RST_STREAM) {
                continue;
            }
            let found = self.seen.entry(stream).or_default();
            match kind {
                RST_STREAM => found.reset = payload.try_into().ok().map(u32::from_be_bytes),
                _ => {
                    found.complete = flags & END_STREAM != 0;
                    match kind {
                        HEADERS => found.status = status(&payload),
                        _ => found.body.extend(payload),
                    }
                }
            }
        }
        streams.iter().map(|stream| self.seen[stream].clone()).collect()
    }
}

impl Client {
    /// Type, flags, stream and payload of the next frame; none at the end of the connection.
    fn frame(&mut self, deadline: Instant) -> Option<(u8, u8, u32, Vec<u8>)> {
        let whole = |client: &mut Self, n| client.need(n, deadline).expect("a frame");
        if !whole(self, FRAME_HEADER) {
            return None;
        }
        let head: Vec<u8> = self.buf.drain(..FRAME_HEADER).collect();
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = whole(self, length).then(|| self.buf.drain(..length).collect())?;
        Some((head[3], head[4], stream, payload))
    }
}

/// The status at the start of a header block, as nginx writes it (`ngx_http_v2_header_filter`):
/// a static table index, or a literal without Huffman coding.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let block = block.strip_prefix(&[0x20]).unwrap_or(block);
    match block {
        [0x48, 3, digits @ ..] if digits.len() >= 3 => {
            String::from_utf8_lossy(&digits[..3]).parse().expect("a status")
        }
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        _ => panic!("no status first: {}", block.escape_ascii()),
    }
}
