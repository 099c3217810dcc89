//! The memory of noted attempts, which is used again: in a storm of failures it would be allocated
//! and given back for each.

use std::sync::Mutex;

use diagnosis::Attempt;

/// Attempts that have ended, with the room of their texts. This worker's one thread uses them.
#[expect(clippy::vec_box, reason = "an attempt is large: it stays where it is")]
static SPARE: Mutex<Vec<Box<Attempt>>> = Mutex::new(Vec::new());

/// How many are kept.
const MOST: usize = 8;

/// An attempt of which nothing is known but its peer and nginx's message.
pub(crate) fn attempt(peer: Option<&str>, message: Option<&str>) -> Box<Attempt> {
    let spare = SPARE.lock().ok().and_then(|mut spare| spare.pop());
    let mut attempt = spare.unwrap_or_default();
    let texts = (attempt.peer.take(), attempt.message.take());
    // Nothing else of another request may be left in it.
    *attempt = Attempt {
        peer: peer.map(|peer| written(texts.0, peer)),
        message: message.map(|message| written(texts.1, message)),
        ..Attempt::default()
    };
    attempt
}

/// Keeps the memory of an attempt.
pub(super) fn keep(attempt: Box<Attempt>) {
    if let Ok(mut spare) = SPARE.lock()
        && spare.len() < MOST
    {
        spare.push(attempt);
    }
}

fn written(room: Option<String>, text: &str) -> String {
    let mut written = room.unwrap_or_default();
    written.clear();
    written.push_str(text);
    written
}
