//! The messages that were recognised last.

use std::ops::Deref;
use std::sync::Arc;

use super::{Known, recognise};
use crate::record;

/// A message, as a record has it.
#[derive(Clone, Debug)]
pub enum Message {
    /// One that is written for this record.
    Own(String),
    /// One that others have too.
    Kept(Arc<Kept>),
}

/// A message that is kept, as it often comes again.
#[derive(Debug)]
pub struct Kept {
    /// The message proper, made of nginx's own words.
    text: String,
    known: Known,
    /// It and its error number, as members of an object.
    json: Vec<u8>,
}

/// How many are kept.
const MOST: usize = 4;

/// The last few messages that were made of nginx's own words: in a storm of failures the next is one
/// of these, and does not have to be taken apart and written again.
#[derive(Debug)]
pub struct Recent([Option<Arc<Kept>>; MOST]);

impl Recent {
    /// Nothing was recognised yet.
    pub const fn none() -> Self {
        Recent([const { None }; MOST])
    }

    /// As [`recognise`], and with it the message proper, where that is made of nginx's own words.
    pub fn recognise(
        &mut self,
        message: &[u8],
        peer: Option<&[u8]>,
    ) -> (Option<Known>, Option<Message>) {
        // Up to its end, such a message says all that is read of it.
        let is_it = |kept: &Arc<Kept>| message.starts_with(kept.text.as_bytes());
        if let Some(at) = self.0.iter().position(|kept| kept.as_ref().is_some_and(is_it)) {
            self.0.swap(0, at);
        } else {
            let known = recognise(message, peer);
            let Some(kept) = Kept::of(message, known) else { return (known, None) };
            self.0.rotate_right(1);
            self.0[0] = Some(Arc::new(kept));
        }
        let kept = self.0[0].as_ref();
        (kept.map(|kept| kept.known), kept.cloned().map(Message::Kept))
    }
}

impl Kept {
    fn of(message: &[u8], known: Option<Known>) -> Option<Kept> {
        let known = known?;
        let text = std::str::from_utf8(message.get(..known.end?)?).ok()?.to_owned();
        let json = record::said(known.errno, &text);
        Some(Kept { text, known, json })
    }
}

impl Message {
    /// It and its error number as members of an object, if they are kept.
    #[inline]
    pub(crate) fn json(&self, errno: Option<i32>) -> Option<&[u8]> {
        match self {
            Message::Kept(kept) if kept.known.errno == errno => Some(&kept.json),
            _ => None,
        }
    }
}

impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Message::Own(text) => text,
            Message::Kept(kept) => &kept.text,
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Message::Own(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::listed;
    use super::*;

    const PEER: Option<&[u8]> = Some(super::super::SAMPLE_PEER.as_bytes());

    /// Guards against a message that is taken for one before it.
    #[test]
    fn each_is_recognised_whatever_came_before() {
        let samples: Vec<String> =
            listed(&[104, 110, 111]).into_iter().flat_map(|listed| listed.samples).collect();
        let mut recent = Recent::none();
        for before in &samples {
            for sample in &samples {
                for behind in ["", " while connecting to upstream", "x", " (1: y)"] {
                    recent.recognise(before.as_bytes(), PEER);
                    let message = format!("{sample}{behind}");
                    let (known, own) = recent.recognise(message.as_bytes(), PEER);
                    assert_eq!(known, recognise(message.as_bytes(), PEER), "{message}");
                    let end = known.and_then(|known| known.end);
                    let proper = end.and_then(|end| message.get(..end));
                    assert_eq!(own.as_deref(), proper, "{message}");
                }
            }
        }
    }

    /// Guards against words that are no text being kept as such.
    #[test]
    fn what_is_no_text_is_not_kept() {
        let mut recent = Recent::none();
        let (known, own) = recent.recognise(b"connect() failed (111: \xff) while", PEER);
        assert!(known.is_some_and(|known| known.end.is_some()) && own.is_none());
        assert!(matches!(recent.recognise(b"", PEER), (None, None)));
    }
}
