//! A text that is put together of parts, and written where it is to stand.
//!
//! A record has a handful of sentences, and each goes into its JSON once, or nowhere: made as
//! strings first, they were a third of what a failure cost. So a text is what writes it, and of that
//! only what differs from one failure to the next is kept, in an arena. Our own words are known to
//! need no escaping; only what comes from outside is looked at when it is written.

use std::fmt;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

pub use super::text::Part;
pub(crate) use super::text::{Address, Mark, Ours, Quoted, Say, Word};
use super::text::{Text, write};

/// Where texts are until they are written. Nothing in it is dropped: what owns memory elsewhere does
/// not belong there.
pub type Arena = Bump;

/// A text.
#[derive(Clone, Copy)]
pub struct Phrase<'a>(&'a (dyn Say + 'a));

/// Puts a text together in an arena: literals, and whatever can be said.
macro_rules! say {
    ($arena:expr, $($parts:tt)*) => {
        $crate::words::phrase::Phrase::new($arena, $crate::words::phrase::parts!($($parts)*))
    };
}
pub(crate) use say;

/// What is said one after the other, as one.
macro_rules! parts {
    () => { () };
    ($words:literal $(, $($rest:tt)*)?) => {
        (
            $crate::words::text::Literal(
                #[inline(always)]
                |text: &mut $crate::words::text::Text<'_>| {
                    text.literal(
                        const { $crate::words::text::words($words) },
                        const { $crate::words::text::has_directive($words) },
                    )
                }
            ),
            $crate::words::phrase::parts!($($($rest)*)?),
        )
    };
    ($part:expr $(, $($rest:tt)*)?) => {
        ($part, $crate::words::phrase::parts!($($($rest)*)?))
    };
}
pub(crate) use parts;

/// How directives of the other protocol modules begin.
const OTHERS: &[(&str, &str)] = &[
    ("fastcgi", "fastcgi_"),
    ("uwsgi", "uwsgi_"),
    ("scgi", "scgi_"),
    ("grpc", "grpc_"),
    ("memcached", "memcached_"),
];

/// Beginnings of ours that a sentence may have, and that then get a capital letter.
const BEGINNINGS: &[&[u8]] = &[b"the ", b"no ", b"upstream "];

impl Say for Phrase<'_> {
    #[inline]
    fn say(&self, text: &mut Text<'_>) {
        self.0.say(text);
    }
}

/// One after the other, with commas between, and these words before the last.
#[derive(Clone, Copy)]
struct List<'a, T> {
    items: &'a [T],
    last: &'static str,
}

impl<T: Say> Say for List<'_, T> {
    fn say(&self, text: &mut Text<'_>) {
        for (at, item) in self.items.iter().enumerate() {
            match at {
                0 => {}
                _ if at.saturating_add(1) < self.items.len() => text.literal(", ", false),
                _ => text.literal(self.last, false),
            }
            item.say(text);
        }
    }
}

/// With a capital letter where it begins with a word of ours.
#[derive(Clone, Copy)]
struct Capitalised<T>(T);

impl<T: Say> Say for Capitalised<T> {
    fn say(&self, text: &mut Text<'_>) {
        let start = text.out.len();
        self.0.say(text);
        let said = text.out.get_mut(start..).unwrap_or_default();
        if text.first_name != start && BEGINNINGS.iter().any(|words| said.starts_with(words)) {
            said.iter_mut().take(1).for_each(|first| first.make_ascii_uppercase());
        }
    }
}

/// With directives of a module in place of those of the proxy module.
#[derive(Clone, Copy)]
struct Renamed<T> {
    said: T,
    directives: &'static str,
}

impl<T: Say> Say for Renamed<T> {
    fn say(&self, text: &mut Text<'_>) {
        let before = text.directives.replace(self.directives);
        self.said.say(text);
        text.directives = before;
    }
}

impl<'a> Phrase<'a> {
    /// A text of this.
    #[inline(always)]
    pub(crate) fn new(arena: &'a Arena, said: impl Say + Copy + 'a) -> Phrase<'a> {
        Phrase(arena.alloc(said))
    }

    /// What is to be said, one after the other, with commas between.
    pub(crate) fn list<T: Say + Copy + 'a>(
        arena: &'a Arena,
        items: impl IntoIterator<Item = T>,
    ) -> Phrase<'a> {
        Phrase::listed(arena, items, ", ")
    }

    /// As [`Phrase::list`], with "and" before the last.
    pub(crate) fn all_of<T: Say + Copy + 'a>(
        arena: &'a Arena,
        items: impl IntoIterator<Item = T>,
    ) -> Phrase<'a> {
        Phrase::listed(arena, items, " and ")
    }

    fn listed<T: Say + Copy + 'a>(
        arena: &'a Arena,
        items: impl IntoIterator<Item = T>,
        last: &'static str,
    ) -> Phrase<'a> {
        let items = ArenaVec::from_iter_in(items, arena).into_bump_slice();
        Phrase::new(arena, List { items, last })
    }

    /// The same with a capital letter where it begins with a word of ours; a peer's name and
    /// "nginx" stay as they are.
    pub(crate) fn capitalised(self, arena: &'a Arena) -> Phrase<'a> {
        Phrase::new(arena, Capitalised(self))
    }

    /// The tables name the directives of the proxy module; those of the others are called alike.
    pub(crate) fn for_module(self, arena: &'a Arena, module: Option<&str>) -> Phrase<'a> {
        let other = module.and_then(|module| OTHERS.iter().find(|(name, _)| *name == module));
        match other {
            Some(&(_, directives)) => Phrase::new(arena, Renamed { said: self, directives }),
            None => self,
        }
    }

    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.to_string().len()
    }

    /// Writes it as a JSON string, with the first quotation mark written.
    #[inline]
    pub(crate) fn end_json(&self, out: &mut Vec<u8>) {
        write(out, true, self.0);
        out.push(b'"');
    }
}

impl Default for Phrase<'_> {
    fn default() -> Self {
        Phrase(&())
    }
}

impl fmt::Display for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        write(&mut out, false, self.0);
        f.write_str(std::str::from_utf8(&out).unwrap_or_default())
    }
}

impl fmt::Debug for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::seconds::Seconds;
    use crate::words::numbers::Number;

    fn json(phrase: Phrase<'_>) -> String {
        let mut out = vec![b'"'];
        phrase.end_json(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn parts_are_put_together() {
        let arena = &Arena::new();
        let none: Option<Phrase<'_>> = None;
        let inner = say![arena, "in ", Quoted("app".into()), none];
        let phrase = say![
            arena,
            "the ",
            Ours("first"),
            " is ",
            u64::from(7_u8),
            " s ",
            inner,
            ": ",
            Seconds::Millis(1_500),
            ", ",
            Number::Span(90_000),
            " ",
            Phrase::list(arena, [Word("one"), Word("two")]),
            " ",
            Phrase::all_of(arena, [Word("one"), Word("two"), Word("three")]),
            Phrase::all_of(arena, [Word(".")]),
            parts![" ", Address(IpAddr::from([127, 0, 0, 1]))],
        ];
        let text =
            "The first is 7 s in \"app\": 1.500, 90.0 s one, two one, two and three. 127.0.0.1";
        let phrase = phrase.capitalised(arena);
        assert_eq!((phrase.to_string().as_str(), phrase.len()), (text, text.len()));
        assert_eq!(json(phrase), text);
        let name = say![arena, "the one", " and ", "the other"];
        for same in
            [say![arena, "nginx ", "the "], say![arena, Part::Name("the one".into())], say![arena,]]
        {
            assert_eq!(same.capitalised(arena).to_string(), same.to_string());
        }
        assert_eq!(name.capitalised(arena).to_string(), "The one and the other");
    }

    /// Guards against a name that breaks a response header, or the JSON, or is taken for words.
    #[test]
    fn names_are_made_plain() {
        let arena = &Arena::new();
        for (name, shown) in [
            ("a\r\nX: y", "a??X: y"),
            ("\"\\\u{7f}\u{85}é😀", "\"\\??é😀"),
            ("proxy_pass", "proxy_pass"),
            ("the one", "the one"),
            ("", ""),
        ] {
            let phrase =
                say![arena, name, ">", Quoted(name.into())].for_module(arena, Some("grpc"));
            let phrase = phrase.capitalised(arena);
            let text = format!("{shown}>\"{shown}\"");
            assert_eq!((phrase.to_string(), json(phrase)), (text.clone(), text));
        }
    }

    #[test]
    fn directives_are_those_of_the_module() {
        let arena = &Arena::new();
        for (module, says) in [
            (Some("fastcgi"), "proxy_pass: fastcgi_read_timeout and fastcgi_pass"),
            (Some("proxy"), "proxy_pass: proxy_read_timeout and proxy_pass"),
            (Some("other"), "proxy_pass: proxy_read_timeout and proxy_pass"),
            (None, "proxy_pass: proxy_read_timeout and proxy_pass"),
        ] {
            let of_module = say![arena, "proxy_read_timeout and ", Ours("proxy_pass")];
            let phrase = say![arena, "proxy_pass: ", of_module.for_module(arena, module)];
            assert_eq!(phrase.to_string(), says);
        }
    }
}
