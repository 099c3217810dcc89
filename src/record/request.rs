//! What is noted of a request while it goes on.

use std::borrow::Cow;

use diagnosis::findings::Context;
use diagnosis::zone::Place;
use diagnosis::{Attempt, Cause, PeerReport, Verdict};
use smallvec::SmallVec;

use super::spare;
use crate::directives::LocConf;
use crate::ffi::peers::PeerAt;
use crate::ffi::request::RequestId;
use crate::ffi::upstream::UpstreamId;

/// Notes kept in full of one upstream request: a group of a thousand dead servers must not cost a
/// megabyte.
const MOST_NOTES: usize = 256;

/// Everything noted under one main request: its own upstream requests and those of its
/// subrequests.
#[derive(Default)]
pub(crate) struct Diagnosis {
    // Most have one, and that stands with the rest.
    groups: SmallVec<[Group; 1]>,
}

/// One upstream request. An internal redirect can start another for the same request.
pub(crate) struct Group {
    /// The request, main or subrequest.
    pub(crate) request: RequestId,
    /// The upstream request.
    pub(crate) upstream: UpstreamId,
    /// Configuration of the location in which it failed; lives in the cycle, as long as requests.
    pub(crate) conf: &'static LocConf,
    /// Name of that location.
    pub(crate) location: &'static [u8],
    /// URI of a subrequest at that time. That of a client's request is what it sent.
    pub(crate) uri: Option<String>,
    /// Name of the group of servers.
    pub(crate) name: Option<Cow<'static, str>>,
    /// Protocol module.
    pub(crate) module: Option<&'static str>,
    /// The place of its first attempt in `r->upstream_states`.
    pub(crate) first: usize,
    /// Failures, in order.
    pub(crate) notes: SmallVec<[Note; 2]>,
    /// Those there was no room for in full.
    pub(crate) brief: Vec<Brief>,
    /// The peers when none could be chosen.
    pub(crate) peers: Vec<PeerReport>,
    /// What is known beyond the attempts, once it has ended with a failure.
    pub(crate) context: Context,
    /// Why it failed without asking an upstream.
    pub(crate) own: Option<Cause>,
    /// How it ended; `None` while it goes on.
    pub(crate) ended: Option<Final>,
}

/// What the error lines said of one attempt.
pub(crate) struct Note {
    /// The attempt's place in `r->upstream_states`, or where it would stand: a name that cannot
    /// be resolved never gets an entry.
    pub(crate) at: usize,
    /// The evidence. Without a cause while no line was recognised.
    pub(crate) attempt: Box<Attempt>,
    /// Where nginx keeps the peer.
    pub(crate) peer: PeerAt,
    /// Where the peer is counted.
    pub(crate) place: Option<Place<'static>>,
}

/// What is left of a note.
pub(crate) struct Brief {
    at: usize,
    verdict: Verdict,
    errno: Option<i32>,
}

/// How an upstream request ended.
#[derive(Clone, Copy)]
pub(crate) struct Final {
    /// The place of the last attempt in `r->upstream_states`.
    pub(crate) last: usize,
    /// The last attempt failed.
    pub(crate) failed: bool,
    /// The status that nginx will answer with, where it is one.
    pub(crate) status: Option<u16>,
    /// A failure now is one in the middle of the response: no other attempt and no error page can
    /// take its place.
    pub(crate) cut_short: bool,
}

impl Drop for Diagnosis {
    fn drop(&mut self) {
        let notes = self.groups.iter_mut().flat_map(|group| group.notes.drain(..));
        // What is kept last is used first: so the same peers often come to the same ones.
        notes.rev().for_each(|note| spare::keep(note.attempt));
    }
}

impl Diagnosis {
    /// The group of an upstream request, which is made if there is none.
    pub(crate) fn group(
        &mut self,
        upstream: UpstreamId,
        new: impl FnOnce() -> Group,
    ) -> &mut Group {
        let at = self.groups.iter().position(|group| group.upstream == upstream);
        let at = at.unwrap_or_else(|| {
            self.groups.push(new());
            self.groups.len().saturating_sub(1)
        });
        // There is no other way to hand out a reference that may have just been pushed without
        // an index or a second search.
        #[expect(clippy::indexing_slicing, reason = "position() found it, or it was just pushed")]
        &mut self.groups[at]
    }

    /// The group of an upstream request, if there is one.
    pub(crate) fn known(&mut self, upstream: UpstreamId) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.upstream == upstream)
    }

    /// All of them, in the order in which something was noted first.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// As [`Diagnosis::of`], to be changed.
    pub(crate) fn of_mut(&mut self, request: RequestId) -> impl Iterator<Item = &mut Group> {
        self.groups.iter_mut().filter(move |group| group.request == request)
    }

    /// The groups of one request, in the order of their first failure.
    pub(crate) fn of(&self, request: RequestId) -> impl DoubleEndedIterator<Item = &Group> {
        self.groups.iter().filter(move |group| group.request == request)
    }

    /// The subrequests that something was noted of.
    pub(crate) fn subrequests(&self, main: RequestId) -> Vec<RequestId> {
        let mut ids = Vec::new();
        for group in &self.groups {
            if group.request != main && !ids.contains(&group.request) {
                ids.push(group.request);
            }
        }
        ids
    }
}

impl Group {
    /// Whether the entry at this place in `r->upstream_states` is one of its attempts.
    pub(crate) fn covers(&self, at: usize) -> bool {
        self.first <= at && self.ended.is_none_or(|ended| at <= ended.last)
    }

    /// The note on an attempt; the first recognised failure of an attempt stays, what follows is
    /// its consequence. Of lines that are not known the newest stays: it is nearest to the end.
    pub(crate) fn note(&mut self, new: Note) {
        let full = self.notes.len() >= MOST_NOTES;
        match self.notes.iter_mut().rev().find(|note| note.at == new.at) {
            Some(note) if note.attempt.cause.is_none() => {
                let attempt = new.attempt;
                let stderr = attempt.stderr.clone().or(note.attempt.stderr.take());
                // A line of stderr takes no message's place.
                if attempt.stderr.is_none() || note.attempt.message.is_none() {
                    note.attempt = attempt;
                }
                note.attempt.stderr = stderr;
            }
            Some(_) => {}
            None if !full => self.notes.push(new),
            // The request's verdict is the last one's.
            None => {
                if let Some(last) = self.notes.last_mut() {
                    let before = std::mem::replace(last, new);
                    self.brief.extend(Brief::of(&before));
                }
            }
        }
    }

    /// Adds to each noted failure what is known of its peer by now.
    pub(crate) fn add_histories(&mut self, now: u64) {
        for note in &mut self.notes {
            note.attempt.history = note.place().map(|place| place.peer.tally(now));
        }
    }

    /// The last note of a failure. A later attempt can have a note that is none: a warning of PHP's.
    pub(crate) fn last_failure(&self) -> Option<&Note> {
        self.notes.iter().rev().find(|note| note.attempt.cause.is_some())
    }

    /// What is left of the note on an attempt, where there was no room for all of it.
    pub(crate) fn brief(&self, at: usize) -> Option<Attempt> {
        // In the order of their places.
        let found = self.brief.binary_search_by_key(&at, |brief| brief.at).ok()?;
        let Brief { verdict, errno, .. } = self.brief.get(found)?;
        let mut attempt = Attempt { errno: *errno, ..Attempt::default() };
        attempt.set_verdict(*verdict);
        Some(attempt)
    }
}

impl Note {
    /// Where its peer is counted, if that is still the peer's.
    pub(crate) fn place(&self) -> Option<Place<'static>> {
        let name = self.attempt.peer.as_deref()?;
        self.place.filter(|place| place.holds(name.as_bytes()))
    }
}

impl Brief {
    fn of(note: &Note) -> Option<Brief> {
        let Attempt { cause, phase, errno, .. } = *note.attempt;
        Some(Brief { at: note.at, verdict: Verdict { cause: cause?, phase: phase? }, errno })
    }
}
