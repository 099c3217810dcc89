//! The memory of noted attempts, which is used again: in a storm of failures it would be allocated
//! and given back for each.

use std::sync::Mutex;

use diagnosis::Attempt;
use diagnosis::message::Message;

/// Attempts that have ended, with the room of their peer's name. This worker's one thread uses them.
#[expect(clippy::vec_box, reason = "an attempt is large: it stays where it is")]
static SPARE: Mutex<Vec<Box<Attempt>>> = Mutex::new(Vec::new());

/// How many are kept.
const MOST: usize = 8;

/// An attempt of which nothing is known but its peer, as bytes from anywhere, and nginx's message.
pub(crate) fn attempt(peer: Option<&[u8]>, message: Message) -> Box<Attempt> {
    let spare = SPARE.lock().ok().and_then(|mut spare| spare.pop());
    let mut attempt = spare.unwrap_or_default();
    let room = attempt.peer.take();
    // Nothing else of another request may be left in it.
    *attempt = Attempt {
        peer: peer.map(|peer| match room {
            // In a storm of failures it is the same one.
            Some(same) if same.as_bytes() == peer => same,
            room => written(room, &diagnosis::text(peer)),
        }),
        message: Some(message).filter(|message| !message.is_empty()),
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
