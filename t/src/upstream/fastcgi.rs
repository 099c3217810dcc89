//! FastCGI by hand: records of every kind, the wrong ones too.

use super::Conn;

/// Record types (FastCGI specification, section 8).
pub const END_REQUEST: u8 = 3;
/// The request's body; an empty one ends the request.
pub const STDIN: u8 = 5;
/// The response.
pub const STDOUT: u8 = 6;
/// What the application has to complain about.
pub const STDERR: u8 = 7;

/// A record of version 1 of the only request that nginx has on a connection.
///
/// # Panics
/// When the content is too long for a record.
pub fn record(kind: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let [high, low] = u16::try_from(content.len()).expect("a record holds 64k").to_be_bytes();
    let mut all = vec![1, kind, 0, 1, high, low, 0, 0];
    all.extend_from_slice(content);
    all
}

/// A part of the response.
pub fn stdout(content: impl AsRef<[u8]>) -> Vec<u8> {
    record(STDOUT, content)
}

/// A complaint.
pub fn stderr(text: &str) -> Vec<u8> {
    record(STDERR, text)
}

/// The end of a request that was completed, with exit code 0.
pub fn end_request() -> Vec<u8> {
    record(END_REQUEST, [0; 8])
}

/// These bytes as a whole response: header and body in one record, then the end.
pub fn response(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [stdout(bytes), stdout(""), end_request()].concat()
}

/// Reads a request, as far as the empty record that ends it; `false` when the peer closed before.
pub fn read_request(conn: &mut Conn) -> bool {
    conn.read_until(|mut bytes| {
        while let Some((&[_, kind, _, _, high, low, padding, _], rest)) = bytes.split_first_chunk()
        {
            let length = usize::from(u16::from_be_bytes([high, low]));
            match rest.get(length + usize::from(padding)..) {
                Some(_) if kind == STDIN && length == 0 => return true,
                Some(next) => bytes = next,
                None => return false,
            }
        }
        false
    })
}
