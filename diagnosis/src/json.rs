//! JSON for records, written straight into a buffer.
//!
//! A record is written for every failed request, and a storm of failures must not cost more than
//! nginx's own access log does. With `serde_json` this was a quarter of all that a failure costs:
//! it looks at each byte of every key, and a number with fixed decimals has to be a string first.
//! The documents that are asked for now and then are still made by it.

use crate::seconds::Seconds;
use crate::words::Name;
use crate::words::phrase::Phrase;

/// An object that is being written. Keys are given as [`key!`] makes them.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

/// A key of an object, without anything to escape.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// With its quotation marks, its colon, and the comma before it.
    pub(crate) bare: &'static str,
    /// And the quotation mark of a text behind it.
    pub(crate) of_text: &'static str,
}

/// A [`Key`]: a literal.
macro_rules! key {
    ($name:literal) => {
        $crate::json::Key {
            bare: concat!(",\"", $name, "\":"),
            of_text: concat!(",\"", $name, "\":\""),
        }
    };
}
pub(crate) use key;

/// A member that only has to be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member(pub(crate) &'static str);

/// A [`Member`]: a key and a word, both literals without anything to escape.
macro_rules! member {
    ($key:literal, $word:literal) => {
        $crate::json::Member(concat!(",\"", $key, "\":\"", $word, "\""))
    };
}
pub(crate) use member;

/// Writes an object.
#[inline]
pub(crate) fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
    let start = out.len();
    members(&mut Object { out });
    end_object(out, start);
}

#[inline(always)]
pub(crate) fn end_object(out: &mut Vec<u8>, start: usize) {
    open(out, start, b'{');
    out.push(b'}');
}

/// What is written has a comma before each member, the first too: that one's place is that of the
/// brace, or bracket, which begins it all.
#[inline]
fn open(out: &mut Vec<u8>, start: usize, with: u8) {
    match out.get_mut(start) {
        Some(comma) => *comma = with,
        None => out.push(with),
    }
}

// Inlined, the length of a key is known where it is copied.
impl<'o> Object<'o> {
    /// What members are written to, apart from an object.
    pub(crate) fn begun(out: &'o mut Vec<u8>) -> Self {
        Object { out }
    }

    #[inline(always)]
    fn key(&mut self, key: Key) -> &mut Vec<u8> {
        self.out.extend_from_slice(key.bare.as_bytes());
        self.out
    }

    #[inline(always)]
    fn text_key(&mut self, key: Key) -> &mut Vec<u8> {
        self.out.extend_from_slice(key.of_text.as_bytes());
        self.out
    }

    /// A key that is no literal: a plain word all the same.
    #[inline]
    pub(crate) fn word_key(&mut self, word: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(word.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Members that were written before.
    #[inline(always)]
    pub(crate) fn members(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// A member that is known before.
    #[inline(always)]
    pub(crate) fn member(&mut self, member: Member) {
        self.out.extend_from_slice(member.0.as_bytes());
    }

    /// A member that is text from anywhere.
    #[inline(always)]
    pub(crate) fn text(&mut self, key: Key, text: &str) {
        end_string(self.text_key(key), text);
    }

    /// A member that is a name.
    #[inline(always)]
    pub(crate) fn name(&mut self, key: Key, name: Name<'_>) {
        if name.is_plain() {
            self.ascii(key, name.text().as_bytes());
        } else {
            self.text(key, name.text());
        }
    }

    /// A member that is bytes from anywhere, as text.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, key: Key, bytes: &[u8]) {
        end_bytes(self.text_key(key), bytes);
    }

    /// A member that is a text of ours.
    #[inline]
    pub(crate) fn phrase(&mut self, key: Key, phrase: &Phrase<'_>) {
        phrase.end_json(self.text_key(key));
    }

    /// A member that is a word of our own: nothing in it needs escaping.
    #[inline(always)]
    pub(crate) fn word(&mut self, key: Key, word: &str) {
        self.ascii(key, word.as_bytes());
    }

    /// As [`Object::word`], given as bytes.
    #[inline(always)]
    pub(crate) fn ascii(&mut self, key: Key, word: &[u8]) {
        let out = self.text_key(key);
        out.extend_from_slice(word);
        out.push(b'"');
    }

    /// A member that is a whole number.
    #[inline(always)]
    pub(crate) fn number<N: itoa::Integer + Copy>(&mut self, key: Key, number: N)
    where
        u8: TryFrom<N>,
    {
        self::number(self.key(key), number);
    }

    /// A member that is true or false.
    #[inline(always)]
    pub(crate) fn flag(&mut self, key: Key, flag: bool) {
        self::flag(self.key(key), flag);
    }

    /// A member that is a time.
    #[inline(always)]
    pub(crate) fn time(&mut self, key: Key, time: Seconds) {
        time.write_to(self.key(key));
    }

    /// A member that is an object.
    #[inline]
    pub(crate) fn object(&mut self, key: Key, members: impl FnOnce(&mut Object<'_>)) {
        object(self.key(key), members);
    }

    /// A member that is a list.
    #[inline]
    pub(crate) fn list<T>(
        &mut self,
        key: Key,
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
    let start = out.len();
    for item in items {
        out.push(b',');
        write(out, item);
    }
    open(out, start, b'[');
    out.push(b']');
}

/// Writes a whole number.
#[inline]
pub(crate) fn number<N: itoa::Integer + Copy>(out: &mut Vec<u8>, number: N)
where
    u8: TryFrom<N>,
{
    match u8::try_from(number) {
        // Most are.
        Ok(one @ 0..10) => out.push(digit(one.into())),
        _ => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// The last digit of a number.
#[inline]
pub(crate) fn digit(number: u64) -> u8 {
    b'0'.wrapping_add((number % 10) as u8)
}

/// Writes true or false.
#[inline]
pub(crate) fn flag(out: &mut Vec<u8>, flag: bool) {
    // Apart, the length of each is known where it is copied.
    if flag { out.extend_from_slice(b"true") } else { out.extend_from_slice(b"false") }
}

/// Writes text as a string (RFC 8259, section 7), with the first quotation mark written.
fn end_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if all(bytes, |byte| !is_special(byte)) {
        out.extend_from_slice(bytes);
    } else {
        escape_all(out, bytes);
    }
    out.push(b'"');
}

/// Writes bytes as a string, as [`text`](crate::text) has them, with the first quotation mark
/// written.
fn end_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Most are short, and ASCII: there is one look for what is not, and what is to be escaped.
    if bytes.len() <= BLOCK && all(bytes, is_plain_byte) {
        out.extend_from_slice(bytes);
        out.push(b'"');
    } else {
        end_text(out, bytes);
    }
}

#[cold]
fn end_text(out: &mut Vec<u8>, bytes: &[u8]) {
    end_string(out, &crate::text(bytes));
}

/// Whether a byte has to be escaped.
#[inline]
const fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Whether a byte stands for itself, in a string and in a header of a response.
#[inline]
pub(crate) const fn is_plain_byte(byte: u8) -> bool {
    !is_special(byte) & (byte < 0x7f)
}

/// Whether all of them do.
#[inline]
pub(crate) fn is_plain(text: &str) -> bool {
    all(text.as_bytes(), is_plain_byte)
}

/// Bytes that are looked at together: as many as a register has room for. What is written out here
/// for each byte becomes a few instructions for all of them.
const BLOCK: usize = 16;

/// Whether all bytes are of a kind. All are looked at, without a branch for each.
#[inline]
fn all(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    match bytes.last_chunk::<BLOCK>() {
        // The bytes behind the last whole block, and some of that again.
        Some(last) => {
            bytes.as_chunks().0.iter().all(|block| in_block(block, &is)) && in_block(last, &is)
        }
        None => in_block(&short(bytes), &is),
    }
}

#[inline(always)]
fn in_block(block: &[u8; BLOCK], is: impl Fn(u8) -> bool) -> bool {
    // Where a block is made of parts, the compiler would look at each byte of them, if it knew.
    let block = std::hint::black_box(*block);
    block.iter().fold(true, |all, byte| all & is(*byte))
}

/// The bytes of less than a block, some of them more than once, or spaces. Copied as what they are,
/// it would take longer than to look at them.
#[inline]
fn short(bytes: &[u8]) -> [u8; BLOCK] {
    let halves = |low: u64, high: u64| (u128::from(high) << 64 | u128::from(low)).to_ne_bytes();
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return halves(u64::from_ne_bytes(*first), u64::from_ne_bytes(*last));
    }
    let quarters = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let half = match (bytes.first_chunk(), bytes.last_chunk(), bytes) {
        (Some(first), Some(last), _) => {
            quarters(u32::from_ne_bytes(*first), u32::from_ne_bytes(*last))
        }
        (_, _, &[a, b, c]) => {
            quarters(u32::from_ne_bytes([a, b, c, c]), u32::from_ne_bytes([c; 4]))
        }
        (_, _, &[a, b]) => quarters(u32::from_ne_bytes([a, b, a, b]), u32::from_ne_bytes([a; 4])),
        (_, _, &[a]) => u64::from_ne_bytes([a; 8]),
        _ => u64::from_ne_bytes([b' '; 8]),
    };
    halves(half, half)
}

#[cold]
fn escape_all(out: &mut Vec<u8>, bytes: &[u8]) {
    bytes.iter().for_each(|byte| escape(out, *byte));
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

    fn string(out: &mut Vec<u8>, text: &str) {
        out.push(b'"');
        end_string(out, text);
    }

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// Guards against a byte that is special only at some place of a block, or behind the last one.
    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=127_u8 {
            for length in (1..=17).chain([33]) {
                for at in 0..length {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    let json = written(&text);
                    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
                    let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(json.len() == length + 2, !special, "{json}");
                    assert_eq!(is_plain(&text), !special && byte != 0x7f);
                }
            }
        }
    }

    #[test]
    fn not_ascii_is_not_plain() {
        for text in ["é", "12345678901234é", "1234567890123456é", "\u{85}1234567"] {
            assert!(!is_plain(text));
        }
        assert!(is_plain("") && is_plain(" ~"));
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
