//! A text that is put together of parts, and written where it is to stand.
//!
//! A record has a handful of sentences, and each goes into its JSON once, or nowhere: made as
//! strings first, they were a third of what a failure cost. Our own words are known to need no
//! escaping; only what comes from outside is looked at when it is written.

use std::fmt;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::numbers::Number;
use crate::json::{self, is_plain_byte};
use crate::seconds::Seconds;

/// Parts that most texts do with.
const USUAL: usize = 8;

/// A text.
#[derive(Clone, Debug, Default)]
pub struct Phrase<'a>(SmallVec<[Part<'a>; USUAL]>);

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// Words of our own, without anything to escape: made by [`words`] at compile time.
    Words(&'static str),
    /// Words of our own from a table.
    Ours(&'static str),
    /// A name, which may come from anywhere: control characters in it become question marks, as it
    /// may stand in a response header.
    Name(&'a str),
    /// A name in quotation marks.
    Quoted(&'a str),
    /// A quotation mark.
    Mark,
    /// A number as people read it.
    Number(Number),
    /// A time as it was measured.
    Time(Seconds),
    /// An address.
    Address(IpAddr),
    /// The same as it stands before a port: one of IPv6 in brackets.
    Bracketed(IpAddr),
}

/// What can be said: a part, or several.
pub(crate) trait Say<'a> {
    /// Adds it to a text.
    fn add_to(self, phrase: &mut Phrase<'a>);
}

/// Puts a text together: literals, and whatever can be said.
macro_rules! say {
    ($($parts:tt)*) => {{
        #[allow(unused_mut, reason = "it may be empty")]
        let mut phrase = $crate::words::phrase::Phrase::default();
        $crate::words::phrase::also!(phrase, $($parts)*);
        phrase
    }};
}
pub(crate) use say;

/// Adds to a text, as [`say!`] does.
macro_rules! also {
    ($phrase:ident,) => {};
    ($phrase:ident, $words:literal $(, $($rest:tt)*)?) => {{
        $phrase.push(const { $crate::words::phrase::words($words) });
        $( $crate::words::phrase::also!($phrase, $($rest)*); )?
    }};
    ($phrase:ident, $part:expr $(, $($rest:tt)*)?) => {{
        $crate::words::phrase::Say::add_to($part, &mut $phrase);
        $( $crate::words::phrase::also!($phrase, $($rest)*); )?
    }};
}
pub(crate) use also;

/// Words of our own.
///
/// # Panics
/// At compile time, if there is something in them that JSON escapes.
pub(crate) const fn words(words: &'static str) -> Part<'static> {
    let mut bytes = words.as_bytes();
    while let [byte, rest @ ..] = bytes {
        assert!(
            is_plain_byte(*byte) || !byte.is_ascii(),
            "quotation marks are those of Part::Quoted"
        );
        bytes = rest;
    }
    Part::Words(words)
}

/// A word of our own, as it stands in JSON too.
pub(crate) fn word(word: &'static str) -> Part<'static> {
    debug_assert!(json::is_plain(word), "{word}");
    Part::Words(word)
}

impl<'a> Say<'a> for Part<'a> {
    #[inline]
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.push(self);
    }
}

impl<'a> Say<'a> for Phrase<'a> {
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.0.extend_from_slice(&self.0);
    }
}

/// What has no words for itself says nothing.
impl<'a, T: Say<'a>> Say<'a> for Option<T> {
    fn add_to(self, phrase: &mut Phrase<'a>) {
        if let Some(said) = self {
            said.add_to(phrase);
        }
    }
}

/// A name.
impl<'a> Say<'a> for &'a str {
    #[inline]
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.push(Part::Name(self));
    }
}

/// A count.
impl<'a> Say<'a> for u64 {
    #[inline]
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.push(Part::Number(Number::Count(self)));
    }
}

impl<'a> Say<'a> for Seconds {
    #[inline]
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.push(Part::Time(self));
    }
}

impl<'a> Say<'a> for Number {
    #[inline]
    fn add_to(self, phrase: &mut Phrase<'a>) {
        phrase.push(Part::Number(self));
    }
}

/// Beginnings of ours that a sentence may have, with a capital letter.
const CAPITALS: &[(&str, &str)] = &[("the ", "The "), ("no ", "No "), ("upstream ", "Upstream ")];

/// How directives of the proxy module begin, and those of the others.
const DIRECTIVE: &str = "proxy_";
const OTHERS: &[(&str, &str)] = &[
    ("fastcgi", "fastcgi_"),
    ("uwsgi", "uwsgi_"),
    ("scgi", "scgi_"),
    ("grpc", "grpc_"),
    ("memcached", "memcached_"),
];

impl<'a> Phrase<'a> {
    /// Adds a part.
    #[inline]
    pub(crate) fn push(&mut self, part: Part<'a>) {
        self.0.push(part);
    }

    /// What is to be said, one after the other, with commas between.
    pub(crate) fn list<T: Say<'a>>(items: impl IntoIterator<Item = T>) -> Phrase<'a> {
        let mut list = Phrase::default();
        for (at, item) in items.into_iter().enumerate() {
            also!(list, (at > 0).then_some(Part::Ours(", ")), item);
        }
        list
    }

    /// The same with a capital letter where it begins with a word of ours; a peer's name and
    /// "nginx" stay as they are.
    pub(crate) fn capitalised(mut self) -> Phrase<'a> {
        if let Some(&Part::Words(words) | &Part::Ours(words)) = self.0.first() {
            let begins =
                |(small, large): &(&str, &'static str)| Some((*large, words.strip_prefix(*small)?));
            if let Some((capital, rest)) = CAPITALS.iter().find_map(begins) {
                self.0.remove(0);
                self.0.insert_from_slice(0, &[Part::Words(capital), Part::Ours(rest)]);
            }
        }
        self
    }

    /// The tables name the directives of the proxy module; those of the others are called alike.
    pub(crate) fn for_module(self, module: Option<&str>) -> Phrase<'a> {
        let Some(module) = module.filter(|module| *module != "proxy") else { return self };
        let Some((_, own)) = OTHERS.iter().find(|(name, _)| *name == module) else { return self };
        let mut renamed = Phrase::default();
        for part in &self.0 {
            let (Part::Words(mut rest) | Part::Ours(mut rest)) = *part else {
                renamed.push(*part);
                continue;
            };
            while let Some((before, after)) = rest.split_once(DIRECTIVE) {
                renamed.0.extend([Part::Ours(before), Part::Words(own)]);
                rest = after;
            }
            renamed.push(Part::Ours(rest));
        }
        renamed
    }

    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.to_string().len()
    }

    /// Writes it as a JSON string, with the first quotation mark written.
    pub(crate) fn end_json(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|part| part.write(out, true));
        out.push(b'"');
    }
}

impl fmt::Display for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        self.0.iter().for_each(|part| part.write(&mut out, false));
        f.write_str(std::str::from_utf8(&out).unwrap_or_default())
    }
}

impl Part<'_> {
    /// Writes it as a JSON string of its own.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        self.write(out, true);
        out.push(b'"');
    }

    /// Writes it, as a part of a JSON string or as it is.
    fn write(&self, out: &mut Vec<u8>, json: bool) {
        match self {
            Part::Words(words) => out.extend_from_slice(words.as_bytes()),
            Part::Ours(text) | Part::Name(text) => name(out, text, json),
            Part::Quoted(text) => {
                Part::Mark.write(out, json);
                name(out, text, json);
                Part::Mark.write(out, json);
            }
            Part::Mark => out.extend_from_slice(if json { b"\\\"" } else { b"\"" }),
            Part::Number(number) => number.write_to(out),
            Part::Time(time) => time.write_to(out),
            Part::Address(address) | Part::Bracketed(address @ IpAddr::V4(_)) => {
                out.extend_from_slice(address.to_string().as_bytes());
            }
            Part::Bracketed(address) => out.extend_from_slice(format!("[{address}]").as_bytes()),
        }
    }
}

fn name(out: &mut Vec<u8>, text: &str, json: bool) {
    if json::is_plain(text) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' if json => out.extend_from_slice(&[b'\\', c as u8]),
            c if c.is_control() => out.push(b'?'),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(phrase: &Phrase<'_>) -> String {
        let mut out = vec![b'"'];
        phrase.end_json(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn parts_are_put_together() {
        let none: Option<Phrase<'_>> = None;
        let inner = say!["in ", Part::Quoted("app"), none];
        let phrase = say![
            "the ",
            "first",
            " is ",
            u64::from(7_u8),
            " s ",
            inner,
            ": ",
            Seconds::Millis(1_500),
            ", ",
            Number::Span(90_000),
            " ",
            Part::Address(IpAddr::from([127, 0, 0, 1])),
        ];
        let text = "The first is 7 s in \"app\": 1.500, 90.0 s 127.0.0.1";
        let phrase = phrase.capitalised();
        assert_eq!((phrase.to_string().as_str(), phrase.len()), (text, text.len()));
        assert_eq!(json(&phrase), text);
        for same in [say!["nginx ", "the "], say![Part::Name("the one")], say![]] {
            assert_eq!(same.clone().capitalised().to_string(), same.to_string());
        }
    }

    /// Guards against a name that breaks a response header, or the JSON, or is taken for words.
    #[test]
    fn names_are_made_plain() {
        for (name, shown) in [
            ("a\r\nX: y", "a??X: y"),
            ("\"\\\u{7f}\u{85}é😀", "\"\\??é😀"),
            ("proxy_pass", "proxy_pass"),
            ("", ""),
        ] {
            let phrase = say!["<", name, ">", Part::Quoted(name)].for_module(Some("grpc"));
            let text = format!("<{shown}>\"{shown}\"");
            assert_eq!((phrase.to_string(), json(&phrase)), (text.clone(), text));
        }
    }

    #[test]
    fn directives_are_those_of_the_module() {
        for (module, says) in [
            (Some("fastcgi"), "fastcgi_read_timeout and fastcgi_pass"),
            (Some("proxy"), "proxy_read_timeout and proxy_pass"),
            (Some("other"), "proxy_read_timeout and proxy_pass"),
            (None, "proxy_read_timeout and proxy_pass"),
        ] {
            let phrase = say!["proxy_read_timeout and ", Part::Ours("proxy_pass")];
            assert_eq!(phrase.for_module(module).to_string(), says);
        }
    }
}
