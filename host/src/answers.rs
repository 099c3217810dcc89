//! Answers that are kept for a moment: where failures come by the thousand, the kernel must not be
//! asked for each.

use std::borrow::Borrow;

/// For how long an answer is taken for the state of things, milliseconds: a question is asked twice
/// a second at most.
const FRESH: u64 = 500;

/// Answers that are kept. That many are looked through, for each failure.
const KEPT: usize = 64;

/// The answers to one question, by what it was asked about.
pub struct Answers<K, T>(Vec<Answer<K, T>>);

struct Answer<K, T> {
    about: K,
    at: u64,
    answer: T,
}

impl<K, T: Clone> Answers<K, T> {
    /// None yet.
    pub const fn new() -> Self {
        Answers(Vec::new())
    }

    /// A fresh answer, or a new one. `None` if there is no room for that: then nothing is asked, as
    /// it would be asked again and again. `now` is in milliseconds, of a clock that does not go back.
    pub fn get<Q>(&mut self, about: &Q, now: u64, ask: impl FnOnce() -> T) -> Option<T>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + ?Sized,
    {
        let is_fresh = |known: &Answer<K, T>| now.saturating_sub(known.at) < FRESH;
        if let Some(known) = self.0.iter_mut().find(|known| known.about.borrow() == about) {
            if !is_fresh(known) {
                (known.answer, known.at) = (ask(), now);
            }
            return Some(known.answer.clone());
        }
        if self.0.len() >= KEPT {
            self.0.retain(is_fresh);
            if self.0.len() >= KEPT {
                return None;
            }
        }
        let answer = ask();
        self.0.push(Answer { about: about.to_owned(), at: now, answer: answer.clone() });
        Some(answer)
    }
}

impl<K, T: Clone> Default for Answers<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks about each of `keys`; how many got an answer, and how many questions that took.
    fn ask(answers: &mut Answers<usize, usize>, now: u64, keys: usize) -> (usize, usize) {
        let mut asked = Vec::new();
        let answered = (0..keys).filter(|key| {
            let answer = answers.get(key, now, || {
                asked.push(*key);
                *key
            });
            assert!(answer.is_none_or(|answer| answer == *key), "that of another");
            answer.is_some()
        });
        let answered = answered.count();
        (answered, asked.len())
    }

    /// Guards against a question for each failure of a peer, and against an answer that is kept
    /// although things have changed.
    #[test]
    fn asked_twice_a_second() {
        let mut answers = Answers::new();
        let mut asked = Vec::new();
        for now in 10_000..12_000 {
            answers.get("peer", now, || {
                asked.push(now);
                now
            });
        }
        assert_eq!(asked, [10_000, 10_500, 11_000, 11_500]);
        assert_eq!(answers.get("peer", 11_999, || 0), Some(11_500));
        assert_eq!(answers.get("peer", 12_000, || 0), Some(0));
        assert_eq!(answers.get("other", 12_000, || 1), Some(1));
    }

    /// Guards against a question for each failure where more peers fail than there is room for,
    /// against memory that grows with them, and against answers that make no room once they are old.
    #[test]
    fn no_more_than_there_is_room_for() {
        let mut answers = Answers::new();
        assert_eq!(ask(&mut answers, 10_000, KEPT), (KEPT, KEPT));
        for now in 10_000..10_000 + FRESH {
            assert_eq!(ask(&mut answers, now, 1_000), (KEPT, 0), "{now}");
        }
        assert_eq!(ask(&mut answers, 10_000 + FRESH, 1_000), (KEPT, KEPT));
        assert_eq!(answers.0.len(), KEPT);
        // Others than before.
        let other = answers.get(&1_000, 10_000 + 2 * FRESH, || 7);
        assert_eq!((other, answers.0.len()), (Some(7), 1));
    }

    /// Guards against an answer of "not known" that is asked for again each time.
    #[test]
    fn what_is_not_known_is_an_answer() {
        let mut answers: Answers<u16, Option<()>> = Answers::new();
        assert_eq!(answers.get(&80, 0, || None), Some(None));
        assert_eq!(answers.get(&80, FRESH - 1, || unreachable!()), Some(None));
    }
}
