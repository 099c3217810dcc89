//! JSON for records, written straight into a buffer.
//!
//! A record is written for every failed request, and a storm of failures must not cost more than
//! nginx's own access log does. With `serde_json` this was a quarter of all that a failure costs:
//! it looks at each byte of every key, and a number with fixed decimals has to be a string first.
//! The documents that are asked for now and then are still made by it.

use crate::seconds::Seconds;

/// An object that is being written. Keys are given as [`key!`] makes them.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

/// A key of an object with its quotation marks and its colon: a literal without anything to escape.
macro_rules! key {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
pub(crate) use key;

/// Writes an object.
#[inline]
pub(crate) fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    members(&mut Object { out });
    out.push(b'}');
}

// Inlined, the length of a key is known where it is copied.
impl Object<'_> {
    #[inline(always)]
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out
    }

    /// A key that is no literal: a plain word all the same.
    #[inline]
    pub(crate) fn word_key(&mut self, word: &str) -> &mut Vec<u8> {
        let out = self.key("\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\":");
        out
    }

    /// A member that is text from anywhere.
    #[inline(always)]
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        string(self.key(key), text);
    }

    /// A member that is a word of our own: nothing in it needs escaping.
    #[inline(always)]
    pub(crate) fn word(&mut self, key: &str, word: &str) {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(word.as_bytes());
        out.push(b'"');
    }

    /// A member that is a whole number.
    #[inline(always)]
    pub(crate) fn number(&mut self, key: &str, number: impl itoa::Integer) {
        self::number(self.key(key), number);
    }

    /// A member that is true or false.
    #[inline(always)]
    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self::flag(self.key(key), flag);
    }

    /// A member that is a time.
    #[inline(always)]
    pub(crate) fn time(&mut self, key: &str, time: Seconds) {
        time.write_to(self.key(key));
    }

    /// A member that is an object.
    #[inline]
    pub(crate) fn object(&mut self, key: &str, members: impl FnOnce(&mut Object<'_>)) {
        object(self.key(key), members);
    }

    /// A member that is a list.
    #[inline]
    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) {
        list(self.key(key), items, write);
    }
}

/// Writes a list.
#[inline]
pub(crate) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes a whole number.
#[inline]
pub(crate) fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes true or false.
#[inline]
pub(crate) fn flag(out: &mut Vec<u8>, flag: bool) {
    out.extend_from_slice(if flag { b"true" } else { b"false" });
}

/// Bytes that are looked at together: as many as a register has room for. What is written out here
/// for each byte becomes a few instructions for all of them.
const BLOCK: usize = 16;

/// Writes text as a string (RFC 8259, section 7).
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len().saturating_add(2));
    out.push(b'"');
    if !any(bytes, is_special) {
        out.extend_from_slice(bytes);
    } else if any(bytes, is_control) {
        bytes.iter().for_each(|byte| escape(out, *byte));
    } else {
        // Advice quotes names: what is between the quotation marks is plain.
        let mut rest = bytes;
        while let Some((before, [quote, after @ ..])) =
            memchr::memchr2(b'"', b'\\', rest).and_then(|at| rest.split_at_checked(at))
        {
            out.extend_from_slice(before);
            out.extend_from_slice(&[b'\\', *quote]);
            rest = after;
        }
        out.extend_from_slice(rest);
    }
    out.push(b'"');
}

/// Whether a byte is a control character.
#[inline]
fn is_control(byte: u8) -> bool {
    byte < 0x20
}

/// Whether a byte has to be escaped.
#[inline]
fn is_special(byte: u8) -> bool {
    is_control(byte) | (byte == b'"') | (byte == b'\\')
}

/// Whether it is printable ASCII alone: what most texts are.
pub(crate) fn is_printable_ascii(text: &str) -> bool {
    !any(text.as_bytes(), |byte| !(b' '..=b'~').contains(&byte))
}

/// Whether any byte is of a kind. All are looked at, without a branch for each.
#[inline]
fn any(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let in_block = |block: &[u8; BLOCK]| block.iter().fold(false, |any, byte| any | is(*byte));
    if blocks.iter().any(in_block) {
        return true;
    }
    match bytes.last_chunk::<BLOCK>() {
        // The bytes behind the last whole block, and some of that again.
        Some(last) => !rest.is_empty() && in_block(last),
        None => rest.iter().any(|byte| is(*byte)),
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0..0x20 => {
            let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
        _ => {
            out.push(byte);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// Guards against a byte that is special only at some place of a block, or behind the last one.
    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=127_u8 {
            for length in [1, 7, 15, 16, 17, 33] {
                for at in 0..length {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    let json = written(&text);
                    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(json.len() == length + 2, !special, "{json}");
                    assert_eq!(is_printable_ascii(&text), !text.contains(char::is_control));
                }
            }
        }
    }

    #[test]
    fn not_ascii_is_not_printable_ascii() {
        for text in ["é", "12345678901234é", "1234567890123456é", "\u{85}1234567"] {
            assert!(!is_printable_ascii(text));
        }
        assert!(is_printable_ascii("") && is_printable_ascii(" ~"));
    }

    /// Guards against borrows that run from one byte to the next, and letters taken apart.
    #[test]
    fn any_text_is_read_back() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let text: String = (0..rng.usize(..40))
                .map(|_| match rng.u8(..4) {
                    0 => char::from(rng.u8(..0x30)),
                    1 => *rng
                        .choice(&['"', '\\', '\u{7f}', '\u{80}', 'é', '\u{2028}', '😀'])
                        .unwrap(),
                    _ => rng.char('a'..='z'),
                })
                .collect();
            assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }
    }

    #[test]
    fn members_and_lists() {
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.number(key!("n"), -4_i64);
            o.object(key!("empty"), |_| {});
            o.list(key!("list"), [1_u64, 2], number);
            o.list(key!("none"), [""; 0], string);
            o.flag(key!("flag"), true);
            o.time(key!("time"), Seconds::Millis(4));
            o.word(key!("word"), "plain");
            string(o.word_key("key"), "a\"b");
            o.text(key!("text"), "");
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"n":-4,"empty":{},"list":[1,2],"none":[],"flag":true,"time":0.004,"word":"plain","key":"a\"b","text":""}"#
        );
    }
}
