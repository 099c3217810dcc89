//! The size of a response header that did not fit nginx's buffer.

use memchr::memmem;

/// How many bytes a response header takes, from what is in nginx's buffer (`held`) and what was
/// seen behind it in the kernel's (`peeked`), including the blank line that ends it. `None` while
/// the end is not in sight.
///
/// A line ends with LF, as in `ngx_http_parse_header_line`; a CR before it is optional.
pub fn size(held: &[u8], peeked: &[u8]) -> Option<usize> {
    // The end may lie across the border: three bytes of overlap hold any part of "\n\r\n".
    let overlap = held.len().min(3);
    let start = held.len().saturating_sub(overlap);
    let mut tail = held.get(start..).unwrap_or_default().to_vec();
    tail.extend_from_slice(peeked);
    let crlf = memmem::find(&tail, b"\n\r\n").map(|at| at.saturating_add(3));
    let lf = memmem::find(&tail, b"\n\n").map(|at| at.saturating_add(2));
    let end = match (crlf, lf) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    start.checked_add(end)
}

/// Where the header ends in what a protocol module reads into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a blank line: HTTP/1, and what looks like it in FastCGI, uwsgi and SCGI.
    BlankLine,
    /// At the end of the first line: memcached.
    Line,
    /// Told by frames, which are not taken apart here: HTTP/2.
    Frames,
}

impl End {
    /// How the header ends for a protocol module, or for what has been received.
    pub fn of(module: Option<&str>, held: &[u8]) -> End {
        match module {
            Some("grpc" | "proxy_v2") => End::Frames,
            Some("memcached") => End::Line,
            // proxy_http_version 2: a server begins with SETTINGS.
            _ if crate::protocol::is_http2(held) => End::Frames,
            _ => End::BlankLine,
        }
    }

    /// The size of the header, as [`size`]; `None` where it cannot be told.
    pub fn find(self, held: &[u8], peeked: &[u8]) -> Option<usize> {
        match self {
            End::BlankLine => size(held, peeked),
            End::Line => {
                let behind = memchr::memchr(b'\n', peeked)?;
                held.len().checked_add(behind)?.checked_add(1)
            }
            End::Frames => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_border_lies() {
        let header = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n";
        for border in 0..=24 {
            let (held, peeked) = header.split_at(border);
            assert_eq!(size(held, peeked), Some(25), "{border}");
        }
        assert_eq!(size(b"HTTP/1.1 200 OK\nA: b\n", b"\n\r\n"), Some(22));
    }

    #[test]
    fn ends_by_protocol() {
        assert_eq!(End::of(Some("grpc"), b""), End::Frames);
        assert_eq!(End::of(Some("proxy"), b"\0\0\x06\x04\0\0\0\0\0"), End::Frames);
        assert_eq!(End::of(Some("proxy"), b"HTTP/1.1"), End::BlankLine);
        assert_eq!(End::Frames.find(b"", b"\r\n\r\n"), None);
        assert_eq!(End::of(Some("memcached"), b"").find(b"VALUE ", b"k 0 3\r\nabc"), Some(13));
    }

    #[test]
    fn no_end_no_size() {
        assert_eq!(size(b"", b""), None);
        assert_eq!(size(b"HTTP/1.1 200 OK\r\nA: ", b"bbbbbbbb\r\n"), None);
    }
}
