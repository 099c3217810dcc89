//! Plain English: the sentence that says what happened, and what to do first.

mod advice;
pub(crate) mod buffer;
pub(crate) mod numbers;
pub(crate) mod phrase;
mod quoted;
mod summary;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub(crate) use advice::advice;
pub(crate) use summary::summary;

use phrase::{Arena, Part};
pub use text::Name;

use crate::cause::Cause;
use crate::findings::Finding;
use crate::outcome::Outcome;
use crate::peer::State;
use crate::record::{Attempt, PeerName, PeerReport};

/// Advice fits two lines of a terminal.
pub(crate) const LONGEST: usize = 200;

/// What is put into words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'f, 'a> {
    /// The cause of the verdict.
    pub(crate) cause: Cause,
    /// The attempt that the verdict is of. Without one, the request's status stands in it.
    pub(crate) failed: &'a Attempt,
    /// Name of the upstream group, or the address where there is no group.
    pub(crate) upstream: Option<Name<'a>>,
    /// The protocol module.
    pub(crate) module: Option<&'a str>,
    /// What the client got.
    pub(crate) outcome: Outcome,
    /// The status of that; 0 while there is none.
    pub(crate) status: u16,
    /// The peers of the group, where none of them could be chosen.
    pub(crate) peers: &'a [PeerReport],
    /// What is concluded.
    pub(crate) findings: &'f [&'a Finding<'a>],
    /// Where texts are until they are written.
    pub(crate) arena: &'a Arena,
}

impl<'a> Facts<'_, 'a> {
    fn peer(&self) -> Part<'a> {
        let name = self.failed.peer.as_ref().map(PeerName::name).or(self.upstream);
        name.map_or(Part::Ours("the upstream"), Part::Name)
    }

    /// Whether the peer is a unix socket.
    fn is_unix(&self) -> bool {
        self.failed.peer.as_deref().is_some_and(|peer| peer.starts_with("unix:"))
    }

    /// The connection had become a tunnel, for WebSocket for one (`u->upgrade`).
    fn is_tunnel(&self) -> bool {
        self.failed.status == Some(101)
    }

    /// Whether there are peers, all of them marked `down`.
    fn all_down(&self) -> bool {
        !self.peers.is_empty() && self.peers.iter().all(|peer| peer.state == State::Down)
    }
}
