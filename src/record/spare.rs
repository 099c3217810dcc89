//! The memory of noted attempts, which is used again: in a storm of failures it would be allocated
//! and given back for each.

use std::sync::Mutex;

use diagnosis::message::Message;
use diagnosis::{Attempt, PeerName};

/// Attempts that have ended, with the room of their peer's name. This worker's one thread uses them.
#[expect(clippy::vec_box, reason = "an attempt is large: it stays where it is")]
static SPARE: Mutex<Vec<Box<Attempt>>> = Mutex::new(Vec::new());

/// How many are kept.
const MOST: usize = 8;

/// An attempt of which nothing is known but its peer, as bytes from anywhere, and nginx's message.
pub(crate) fn attempt(peer: Option<&[u8]>, message: Message) -> Box<Attempt> {
    let spare = SPARE.lock().ok().and_then(|mut spare| {
        let is_its = |name: &Option<PeerName>| name.as_deref().map(str::as_bytes) == peer;
        // Each peer of a few gets one of its own; of many, one takes the place of the oldest.
        let oldest = (spare.len() == MOST).then_some(0);
        let at = spare.iter().rposition(|spare| is_its(&spare.peer)).or(oldest)?;
        Some(spare.remove(at))
    });
    let mut attempt = spare.unwrap_or_default();
    let room = attempt.peer.take();
    // Nothing else of another request may be left in it.
    *attempt = Attempt {
        peer: peer.map(|peer| PeerName::kept(peer, room.unwrap_or_default())),
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
