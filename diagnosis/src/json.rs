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

impl Object<'_> {
    #[inline]
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
    #[inline]
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        string(self.key(key), text);
    }

    /// A member that is a word of our own: nothing in it needs escaping.
    #[inline]
    pub(crate) fn word(&mut self, key: &str, word: &str) {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(word.as_bytes());
        out.push(b'"');
    }

    /// A member that is a whole number.
    #[inline]
    pub(crate) fn number(&mut self, key: &str, number: impl itoa::Integer) {
        self::number(self.key(key), number);
    }

    /// A member that is true or false.
    #[inline]
    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self::flag(self.key(key), flag);
    }

    /// A member that is a time.
    #[inline]
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

/// Bytes that are looked at together.
const WORD: usize = size_of::<u64>();

/// Writes text as a string (RFC 8259, section 7).
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len().saturating_add(2));
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        escaped(out, bytes);
    }
    out.push(b'"');
}

/// Advice quotes names: most of such a text is as plain as others.
fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<WORD>();
    for word in words {
        if has_special(u64::from_ne_bytes(*word)) {
            word.iter().for_each(|byte| escape(out, *byte));
        } else {
            out.extend_from_slice(word);
        }
    }
    rest.iter().for_each(|byte| escape(out, *byte));
}

/// Whether nothing in it has to be escaped.
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<WORD>();
    if words.iter().any(|word| has_special(u64::from_ne_bytes(*word))) {
        return false;
    }
    match bytes.last_chunk::<WORD>() {
        // The bytes behind the last whole word, and some of that again.
        Some(last) => rest.is_empty() || !has_special(u64::from_ne_bytes(*last)),
        None => !rest.iter().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')),
    }
}

/// Whether it is printable ASCII alone: what most texts are.
pub(crate) fn is_printable_ascii(text: &str) -> bool {
    let other = |word: u64| {
        let deleted = word ^ EACH.wrapping_mul(0x7f);
        (word | below(word, 0x20) | below(deleted, 1)) & HIGHEST != 0
    };
    let (words, rest) = text.as_bytes().as_chunks::<WORD>();
    !words.iter().any(|word| other(u64::from_ne_bytes(*word)))
        && rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// One in each byte.
const EACH: u64 = u64::MAX / 255;

/// The highest bit of each byte.
const HIGHEST: u64 = EACH << 7;

/// The highest bit of each byte that is below `n`, and perhaps of others, but only if there is
/// one: subtracting borrows from it. Bytes of 128 and more are not below.
#[inline]
fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(EACH.wrapping_mul(u64::from(n))) & !word & HIGHEST
}

/// Whether one of eight bytes is a control character, a quotation mark or a backslash.
#[inline]
fn has_special(word: u64) -> bool {
    let is = |byte: u8| below(word ^ EACH.wrapping_mul(u64::from(byte)), 1);
    below(word, 0x20) | is(b'"') | is(b'\\') != 0
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

    /// Guards against a byte that is special only at some place of a word, or behind the last one.
    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=127_u8 {
            for length in 1..=20 {
                for at in 0..length {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    let json = written(&text);
                    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(json.len() == length + 2, !special, "{json}");
                    assert_eq!(is_plain(text.as_bytes()), !special);
                    assert_eq!(is_printable_ascii(&text), !text.contains(char::is_control));
                }
            }
        }
    }

    #[test]
    fn not_ascii_is_not_printable_ascii() {
        for text in ["é", "1234567é", "12345678é", "\u{85}1234567"] {
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
            o.list(key!("none"), [""; 0], |out, text| string(out, text));
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
