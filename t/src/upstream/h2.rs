//! HTTP/2 by hand (RFC 9113): frames of every kind, the wrong ones too. Headers are literals
//! without Huffman coding and without indexing (RFC 7541, section 6.2.2).

use super::Conn;

/// Frame types.
pub const DATA: u8 = 0;
/// Opens the response, or ends it with trailers.
pub const HEADERS: u8 = 1;
/// Ends one stream.
pub const RST_STREAM: u8 = 3;
/// What the sender wants.
pub const SETTINGS: u8 = 4;
/// Ends the connection.
pub const GOAWAY: u8 = 7;

/// Of DATA and HEADERS: nothing follows. Of SETTINGS: an acknowledgement.
pub const END_STREAM: u8 = 1;
/// Of HEADERS: no CONTINUATION follows.
pub const END_HEADERS: u8 = 4;

/// The stream of the first request.
pub const STREAM: u32 = 1;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of what stands before the payload of a frame.
pub const FRAME_HEADER: usize = 9;

/// A frame.
///
/// # Panics
/// When the payload is too long for a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let [0, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes() else {
        panic!("{} bytes in a frame", payload.len())
    };
    let mut all = length.to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend_from_slice(payload);
    all
}

/// A server's first frame, without settings.
pub fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, "")
}

/// Headers of the response, all in one frame.
///
/// # Panics
/// When they are too long for one.
pub fn headers(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    headers_of(STREAM, flags, fields)
}

/// [`headers`] of any stream.
///
/// # Panics
/// When they are too long for one frame.
pub fn headers_of(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    frame(HEADERS, END_HEADERS | flags, stream, block)
}

/// A part of the body.
pub fn data(flags: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, flags, STREAM, bytes)
}

/// The end of the stream with this error code.
pub fn rst_stream(error: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, STREAM, error.to_be_bytes())
}

/// The end of the connection with this error code: `last` is the last stream that was looked at.
pub fn goaway(last: u32, error: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, [last.to_be_bytes(), error.to_be_bytes()].concat())
}

/// Reads a request and exchanges the settings, after which nginx has nothing more to say;
/// `false` when the peer closed before.
pub fn read_request(conn: &mut Conn) -> bool {
    read_only(conn)
        && conn.write(settings())
        && conn.read_until(|bytes| {
            frames(bytes).any(|(kind, flags)| kind == SETTINGS && flags & END_STREAM != 0)
        })
}

/// Reads a request and says nothing.
pub fn read_only(conn: &mut Conn) -> bool {
    conn.read_until(|bytes| {
        let rest = bytes.strip_prefix(PREFACE).unwrap_or_default();
        frames(rest).any(|(kind, flags)| kind <= HEADERS && flags & END_STREAM != 0)
    })
}

/// Type and flags of the complete frames.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    std::iter::from_fn(move || {
        let [a, b, c, kind, flags, ..] = *bytes.get(..FRAME_HEADER)? else { return None };
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        bytes = bytes.get(FRAME_HEADER + length..)?;
        Some((kind, flags))
    })
}

/// A string literal (RFC 7541, section 5.2).
fn literal(to: &mut Vec<u8>, text: &str) {
    const PREFIX: usize = 127;
    match text.len().checked_sub(PREFIX) {
        None => to.push(u8::try_from(text.len()).expect("below 127")),
        Some(mut rest) => {
            to.push(127);
            while rest >= 128 {
                to.push(u8::try_from(rest % 128).expect("below 128") | 128);
                rest /= 128;
            }
            to.push(u8::try_from(rest).expect("below 128"));
        }
    }
    to.extend_from_slice(text.as_bytes());
}
