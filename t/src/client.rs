//! A small HTTP/1 client that reports what arrived, however broken.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How long a whole response may take unless [`Client::set_timeout`] says
/// otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status; 9 when there was no status line (HTTP/0.9 or garbage, all
    /// of it in `body`), 0 when the connection ended without a byte.
    pub status: u16,
    /// Name and value in the order received, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, decoded when it was chunked.
    pub body: Vec<u8>,
    /// The connection ended before the response was complete.
    pub truncated: bool,
}

impl Response {
    /// The first header of that name (any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addr {
    /// A port on 127.0.0.1.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that can carry several requests.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Received and not yet part of a response.
    pub(crate) buf: Vec<u8>,
    pub(crate) timeout: Duration,
}

impl Client {
    /// Connects.
    pub fn connect(addr: &Addr) -> io::Result<Self> {
        let stream = match addr {
            Addr::Tcp(port) => {
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                let stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Addr::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let client = Self { stream, buf: Vec::new(), timeout: TIMEOUT };
        client.sock().set_write_timeout(Some(TIMEOUT))?;
        Ok(client)
    }

    /// Changes how long a response may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// `GET path`, leaving the connection open.
    ///
    /// # Panics
    /// When the connection fails or the response is late.
    pub fn get(&mut self, path: &str) -> Response {
        self.request(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// Sends these bytes and reads one response.
    ///
    /// # Panics
    /// When the connection fails or the response is late.
    pub fn request(&mut self, bytes: &[u8]) -> Response {
        self.try_request(bytes).unwrap_or_else(|e| {
            panic!("{e} after {:?} in response to {:?}", lossy(&self.buf), lossy(bytes))
        })
    }

    /// [`Client::request`] that gives errors (late: `WouldBlock`) back.
    pub fn try_request(&mut self, bytes: &[u8]) -> io::Result<Response> {
        // A server that answers early may have closed: what it sent counts.
        let sent = self.send(bytes);
        let response = self.read_response(bytes.starts_with(b"HEAD "))?;
        if response.status == 0 {
            sent?;
        }
        Ok(response)
    }

    /// Sends these bytes and nothing else.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(s) => s.write_all(bytes),
            Stream::Unix(s) => s.write_all(bytes),
        }
    }

    /// Says that nothing more will be sent.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.sock().shutdown(Shutdown::Write)
    }

    /// Closes with RST (a unix socket is only closed).
    pub fn reset(self) -> io::Result<()> {
        self.sock().set_linger(Some(Duration::ZERO))
    }

    /// Reads until these bytes have come, and keeps them for the next response.
    ///
    /// # Panics
    /// When they are late, or the connection ends before.
    pub fn wait_for(&mut self, bytes: &[u8]) {
        let come =
            self.try_wait_for(bytes).unwrap_or_else(|e| panic!("{e}: {:?}", lossy(&self.buf)));
        assert!(come, "the end after {:?}", lossy(&self.buf));
    }

    /// [`Client::wait_for`] that says whether they have come, and gives errors (late:
    /// `WouldBlock`) back.
    pub fn try_wait_for(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let deadline = Instant::now() + self.timeout;
        while find(&self.buf, bytes).is_none() {
            if !self.fill(deadline)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads until the server closes; whether it did so within the timeout.
    pub fn wait_closed(&mut self) -> bool {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Reads one response; `head` when the request was HEAD.
    pub fn read_response(&mut self, head: bool) -> io::Result<Response> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let response = self.read_one(head, deadline)?;
            // 100 and 103 come before the response that was asked for.
            if !(100..200).contains(&response.status) || response.status == 101 {
                return Ok(response);
            }
        }
    }

    fn read_one(&mut self, head: bool, deadline: Instant) -> io::Result<Response> {
        let mut response =
            Response { status: 9, headers: Vec::new(), body: Vec::new(), truncated: false };
        let is_http =
            |buf: &[u8]| buf.iter().zip(b"HTTP/1.").all(|(a, b)| a == b) && !buf.is_empty();
        let end = loop {
            if let Some(at) = find(&self.buf, b"\r\n\r\n").filter(|_| is_http(&self.buf)) {
                break at;
            }
            if !self.fill(deadline)? {
                let whole = is_http(&self.buf) && self.buf.len() >= 12;
                if whole {
                    self.parse_head(self.buf.len(), &mut response);
                }
                response.truncated = is_http(&self.buf) || self.buf.is_empty();
                if self.buf.is_empty() {
                    response.status = 0;
                }
                response.body = std::mem::take(&mut self.buf);
                return Ok(response);
            }
        };
        self.parse_head(end, &mut response);
        self.buf.drain(..end + 4);

        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
        let length = response.header("content-length").and_then(|v| v.parse::<usize>().ok());
        if head || matches!(response.status, 100..200 | 204 | 304) {
            return Ok(response);
        }
        if chunked {
            response.truncated = !self.read_chunks(&mut response.body, deadline)?;
        } else if let Some(length) = length {
            response.truncated = !self.need(length, deadline)?;
            let have = length.min(self.buf.len());
            response.body = self.buf.drain(..have).collect();
        } else {
            while self.fill(deadline)? {}
            response.body = std::mem::take(&mut self.buf);
        }
        Ok(response)
    }

    fn parse_head(&self, end: usize, response: &mut Response) {
        let head = lossy(&self.buf[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        response.status = status.unwrap_or(9);
        response.headers = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
            .collect();
    }

    /// Decodes chunks into `body`; `false` when the connection ended early.
    fn read_chunks(&mut self, body: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
        loop {
            let line = loop {
                if let Some(at) = find(&self.buf, b"\r\n") {
                    break at;
                }
                if !self.fill(deadline)? {
                    return Ok(false);
                }
            };
            let text = lossy(&self.buf[..line]);
            let size = text.split(';').next().map(|s| usize::from_str_radix(s.trim(), 16));
            let Some(Ok(size)) = size else {
                return Err(io::Error::other(format!("bad chunk size {text:?}")));
            };
            self.buf.drain(..line + 2);
            // The last chunk has only the empty line after it (nginx sends
            // no trailers unless told to).
            let whole = self.need(size.saturating_add(2), deadline)?;
            let have = size.min(self.buf.len());
            body.extend(self.buf.drain(..have));
            if !whole || size == 0 {
                self.buf.drain(..2.min(self.buf.len()));
                return Ok(whole);
            }
            self.buf.drain(..2);
        }
    }

    /// Has `n` bytes buffered; `false` when the connection ended before.
    pub(crate) fn need(&mut self, n: usize, deadline: Instant) -> io::Result<bool> {
        while self.buf.len() < n {
            if !self.fill(deadline)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once; `false` at the end of the connection. A reset is an end
    /// too: what counts is what came before it.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "response is late"));
        }
        self.sock().set_read_timeout(Some(left))?;
        let mut part = [0; 16384];
        let got = match &mut self.stream {
            Stream::Tcp(s) => s.read(&mut part),
            Stream::Unix(s) => s.read(&mut part),
        };
        match got {
            Ok(n) => {
                self.buf.extend_from_slice(&part[..n]);
                Ok(n > 0)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn sock(&self) -> SockRef<'_> {
        match &self.stream {
            Stream::Tcp(s) => SockRef::from(s),
            Stream::Unix(s) => SockRef::from(s),
        }
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
