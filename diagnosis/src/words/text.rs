//! What texts are made of, and how it is written.

use std::net::IpAddr;

use super::numbers::Number;
use crate::json::{self, is_plain_byte};
use crate::seconds::Seconds;

/// What can be said: a part of a text, or several.
pub(crate) trait Say {
    /// Writes it.
    fn say(&self, text: &mut Text<'_>);
}

/// A text that is being written.
pub(crate) struct Text<'o> {
    pub(super) out: &'o mut Vec<u8>,
    /// As a part of a JSON string, or as it is.
    json: bool,
    /// How directives begin, if not as those of the proxy module.
    pub(super) directives: Option<&'static str>,
    /// Where the first name in it begins.
    pub(super) first_name: usize,
}

/// Words of our own in a text.
#[derive(Clone, Copy)]
pub(crate) struct Literal<F>(pub(crate) F);

/// Words of our own, without anything to escape: a name, or from a table in which all are [`words`].
#[derive(Clone, Copy)]
pub(crate) struct Word(pub(crate) &'static str);

/// Words of our own from a table.
#[derive(Clone, Copy)]
pub(crate) struct Ours(pub(crate) &'static str);

/// A name, which may come from anywhere: control characters in it become question marks, as it may
/// stand in a response header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Name<'a> {
    text: &'a str,
    /// There is nothing in it to be changed.
    plain: bool,
}

/// A name in quotation marks.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<'a>(pub(crate) Name<'a>);

/// A quotation mark.
#[derive(Clone, Copy)]
pub(crate) struct Mark;

/// An address.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) IpAddr);

/// A part of a text, where its kind is not known before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// Words of our own from a table.
    Ours(&'static str),
    /// A name.
    Name(Name<'a>),
    /// A number as people read it.
    Number(Number),
    /// An address as it stands before a port: one of IPv6 in brackets.
    Bracketed(IpAddr),
}

/// Words of our own.
///
/// # Panics
/// At compile time, if there is something in them that JSON escapes.
pub(crate) const fn words(words: &'static str) -> &'static str {
    let mut bytes = words.as_bytes();
    while let [byte, rest @ ..] = bytes {
        assert!(is_plain_byte(*byte) || !byte.is_ascii(), "quotation marks are those of Quoted");
        bytes = rest;
    }
    words
}

/// How directives of the proxy module begin.
const DIRECTIVE: &str = "proxy_";

/// Whether words of ours name a directive of the proxy module.
pub(crate) const fn has_directive(words: &str) -> bool {
    let mut bytes = words.as_bytes();
    while let [_, rest @ ..] = bytes {
        if let [b'p', b'r', b'o', b'x', b'y', b'_', ..] = bytes {
            return true;
        }
        bytes = rest;
    }
    false
}

impl<'a> Name<'a> {
    /// One that is known to be plain, or not to be.
    pub(crate) fn known(text: &'a str, plain: bool) -> Self {
        Name { text, plain }
    }

    /// The name itself.
    pub(crate) fn text(self) -> &'a str {
        self.text
    }

    /// Whether it is the same in JSON, and in a header of a response.
    pub(crate) fn is_plain(self) -> bool {
        self.plain
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Name { text, plain: json::is_plain(text) }
    }
}

impl Text<'_> {
    /// Words of our own that are known not to need escaping.
    #[inline(always)]
    pub(crate) fn literal(&mut self, words: &'static str, has_directive: bool) {
        match self.directives {
            Some(own) if has_directive => self.renamed(words, own),
            _ => self.out.extend_from_slice(words.as_bytes()),
        }
    }

    fn ours(&mut self, words: &'static str) {
        match self.directives {
            Some(own) => self.renamed(words, own),
            None => self.escaped(words),
        }
    }

    #[cold]
    fn renamed(&mut self, words: &'static str, own: &'static str) {
        let mut rest = words;
        while let Some((before, after)) = rest.split_once(DIRECTIVE) {
            self.escaped(before);
            self.escaped(own);
            rest = after;
        }
        self.escaped(rest);
    }

    fn name(&mut self, name: Name<'_>) {
        self.first_name = self.first_name.min(self.out.len());
        if name.plain {
            self.out.extend_from_slice(name.text.as_bytes());
        } else {
            self.escape(name.text);
        }
    }

    fn mark(&mut self) {
        self.out.extend_from_slice(if self.json { b"\\\"" } else { b"\"" });
    }

    fn escaped(&mut self, text: &str) {
        if json::is_plain(text) {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.escape(text);
        }
    }

    #[cold]
    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '"' | '\\' if self.json => self.out.extend_from_slice(&[b'\\', c as u8]),
                c if c.is_control() => self.out.push(b'?'),
                c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

impl<F: Fn(&mut Text<'_>)> Say for Literal<F> {
    #[inline(always)]
    fn say(&self, text: &mut Text<'_>) {
        (self.0)(text);
    }
}

impl Say for () {
    #[inline(always)]
    fn say(&self, _: &mut Text<'_>) {}
}

impl<A: Say, B: Say> Say for (A, B) {
    #[inline(always)]
    fn say(&self, text: &mut Text<'_>) {
        self.0.say(text);
        self.1.say(text);
    }
}

/// What has no words for itself says nothing.
impl<T: Say> Say for Option<T> {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        if let Some(said) = self {
            said.say(text);
        }
    }
}

impl Say for Word {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        debug_assert!(json::is_plain(self.0), "{}", self.0);
        text.literal(self.0, true);
    }
}

impl Say for Ours {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        text.ours(self.0);
    }
}

impl Say for Name<'_> {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        text.name(*self);
    }
}

/// A name.
impl Say for &str {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        text.name(Name::from(*self));
    }
}

impl Say for Quoted<'_> {
    fn say(&self, text: &mut Text<'_>) {
        text.mark();
        text.name(self.0);
        text.mark();
    }
}

impl Say for Mark {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        text.mark();
    }
}

/// A count.
impl Say for u64 {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        json::number(text.out, *self);
    }
}

impl Say for Number {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        self.write_to(text.out);
    }
}

impl Say for Seconds {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        self.write_to(text.out);
    }
}

impl Say for Address {
    fn say(&self, text: &mut Text<'_>) {
        text.out.extend_from_slice(self.0.to_string().as_bytes());
    }
}

impl Say for Part<'_> {
    fn say(&self, text: &mut Text<'_>) {
        match *self {
            Part::Ours(words) => text.ours(words),
            Part::Name(name) => text.name(name),
            Part::Number(number) => number.say(text),
            Part::Bracketed(address @ IpAddr::V4(_)) => Address(address).say(text),
            Part::Bracketed(address) => {
                text.out.extend_from_slice(format!("[{address}]").as_bytes());
            }
        }
    }
}

/// Writes what is to be said, as a part of a JSON string or as it is.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, json: bool, said: &(impl Say + ?Sized)) {
    said.say(&mut Text { out, json, directives: None, first_name: usize::MAX });
}

impl Part<'_> {
    /// Writes it as a JSON string of its own.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        write(out, true, self);
        out.push(b'"');
    }
}
