//! A text of fixed size in shared memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Longest name, bytes. nginx's longest name of a peer is `unix:` and a path (`NGX_SOCKADDR_STRLEN`);
/// names of hosts can be longer and are cut by [`fitting`].
const LONGEST: usize = 128;

const WORD: usize = size_of::<u64>();
const WORDS: usize = LONGEST / WORD;

/// A name. Written under a lock; a reader without it that meets a writer may see parts of two,
/// and has to compare.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Name {
    length: AtomicU64,
    words: [AtomicU64; WORDS],
    /// The last eight bytes once more: so a name is compared word by word whatever its length.
    last: AtomicU64,
}

impl Name {
    pub(super) fn set(&self, name: &[u8]) {
        let name = name.get(..LONGEST).unwrap_or(name);
        self.length.store(name.len() as u64, Relaxed);
        for (word, bytes) in self.words.iter().zip(name.chunks(WORD)) {
            word.store(packed(bytes), Relaxed);
        }
        let last = name.last_chunk().map_or_else(|| packed(name), |end| u64::from_le_bytes(*end));
        self.last.store(last, Relaxed);
    }

    #[inline]
    pub(super) fn is(&self, name: &[u8]) -> bool {
        if name.len() >= WORD {
            return self.is_of_words(name);
        }
        self.length.load(Relaxed) == name.len() as u64 && self.last.load(Relaxed) == packed(name)
    }

    /// As [`Name::is`], which calls nothing; false for a name that is shorter than a word.
    #[inline(always)]
    pub(super) fn is_of_words(&self, name: &[u8]) -> bool {
        let Some(end) = name.last_chunk() else { return false };
        if self.length.load(Relaxed) != name.len() as u64
            || self.last.load(Relaxed) != u64::from_le_bytes(*end)
        {
            return false;
        }
        let mut words = self.words.iter().map(|word| word.load(Relaxed));
        let mut next = |bytes: &[u8; WORD]| words.next() == Some(u64::from_le_bytes(*bytes));
        match name.first_chunk() {
            // Most names: what stands behind the first word is in the last.
            Some(first) if name.len() <= 2 * WORD => next(first),
            _ => name.as_chunks().0.iter().all(next),
        }
    }

    pub(super) fn text(&self) -> String {
        let length = usize::try_from(self.length.load(Relaxed)).unwrap_or(0);
        let bytes: Vec<u8> =
            self.words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        String::from_utf8_lossy(bytes.get(..length).unwrap_or(&bytes)).into_owned()
    }
}

fn packed(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// A name as it is kept. One that is too long, or no text, is cut and made unlike others that begin
/// alike by a number made of the whole.
pub(super) fn fitting(name: &[u8], number: impl FnOnce() -> u64) -> std::borrow::Cow<'_, [u8]> {
    if name.len() <= LONGEST && std::str::from_utf8(name).is_ok() {
        return name.into();
    }
    let text = String::from_utf8_lossy(name);
    let mark = format!("~{:016x}", number());
    let mut end = LONGEST.saturating_sub(mark.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    format!("{}{mark}", text.get(..end).unwrap_or_default()).into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length() {
        for length in 0..=LONGEST {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let name = Name::default();
            name.set(b"a longer one that was there before, to the end of the last word of it, and more and more and more and more and more");
            name.set(text.as_bytes());
            assert_eq!(name.text(), text);
            assert!(name.is(text.as_bytes()));
            assert_eq!(name.is_of_words(text.as_bytes()), length >= WORD);
            assert!(!name.is(format!("{text}x").as_bytes()));
            if length > 0 {
                assert!(!name.is(&text.as_bytes()[1..]));
                let mut other = text.into_bytes();
                other[length - 1] ^= 1;
                assert!(!name.is(&other) && !name.is_of_words(&other));
            }
        }
    }

    /// Guards against two long names that come out as one.
    #[test]
    fn long_names_are_told_apart() {
        let long = "é".repeat(100);
        let kept = fitting(long.as_bytes(), || 7);
        assert!(
            kept.len() <= LONGEST
                && std::str::from_utf8(&kept).unwrap().ends_with("~0000000000000007")
        );
        assert_ne!(kept, fitting(long.as_bytes(), || 8));
        assert_eq!(&*fitting(b"short", || 0), b"short");
        assert!(std::str::from_utf8(&fitting(b"\xff", || 1)).is_ok());
    }
}
