//! All attempts of a request: what nginx kept of each, with what was noted of the failed ones.

use diagnosis::attempts::Slot;
use diagnosis::{Attempt, Cause, Seconds, Verdict};

use super::answered_error;
use crate::ffi::request::Request;
use crate::ffi::upstream::State;
use crate::record::{Diagnosis, Group, Note};

/// The attempts of one request, in order.
pub(crate) struct Assembled {
    /// One for each entry of `r->upstream_states`, and one for an attempt without an entry.
    entries: Vec<Entry>,
}

struct Entry {
    has_peer: bool,
    attempt: Option<Attempt>,
    /// The attempt's failure came after the header had gone to the client.
    cut_short: bool,
}

/// Puts the attempts of a request together. `None` if none of them failed.
pub(crate) fn assemble(request: Request<'_>, diagnosis: Option<&Diagnosis>) -> Option<Assembled> {
    let states = request.states();
    let groups: Vec<&Group> =
        diagnosis.map(|diagnosis| diagnosis.of(request.id()).collect()).unwrap_or_default();
    // A name that could not be resolved has no entry; everything else has.
    let noted = groups.iter().flat_map(|group| &group.notes).map(|note| note.at.saturating_add(1));
    let count = noted.max().unwrap_or(0).max(states.len());

    let mut entries = Vec::with_capacity(count);
    for at in 0..count {
        let state = states.get(at);
        let mut here: Vec<(&Group, &Note)> = groups
            .iter()
            .filter_map(|group| Some((*group, group.notes.iter().find(|note| note.at == at)?)))
            .collect();
        // An attempt without a peer has no entry with one: that is another attempt's.
        let found = match here.pop() {
            Some((group, note))
                if note.attempt.peer.is_none()
                    && note.attempt.cause.is_some()
                    && state.is_some_and(|state| state.peer().is_some()) =>
            {
                here.push((group, note));
                None
            }
            found => found,
        };
        entries.extend(here.into_iter().map(|(_, note)| Entry {
            has_peer: false,
            attempt: Some(note.attempt.clone()),
            cut_short: false,
        }));
        entries.push(entry(request, state, found, at, at.saturating_add(1) == count));
    }
    entries
        .iter()
        .any(|entry| entry.attempt.as_ref().is_some_and(|attempt| attempt.cause.is_some()))
        .then_some(Assembled { entries })
}

fn entry(
    request: Request<'_>,
    state: Option<&State>,
    noted: Option<(&Group, &Note)>,
    at: usize,
    last: bool,
) -> Entry {
    let has_peer = state.is_some_and(|state| state.peer().is_some());
    let mut attempt = noted.map(|(_, note)| note.attempt.clone());
    if let Some((group, _)) = noted
        && let Some(attempt) = attempt.as_mut()
        && attempt.cause.is_none()
    {
        judge_unknown(attempt, state, group, at);
    }
    if let Some(state) = state.filter(|_| has_peer) {
        complete(attempt.get_or_insert_default(), state);
    }
    let cut_short = noted.is_some_and(|(group, _)| {
        let sent = group.ended.map_or_else(
            || {
                let upstream = request.upstream().filter(|u| u.id() == group.upstream);
                upstream.is_some_and(|upstream| upstream.header_sent())
            },
            |ended| ended.header_sent,
        );
        // With the header sent, nginx cannot try another peer.
        let cause = attempt.as_ref().and_then(|attempt| attempt.cause);
        sent && last && cause.is_some_and(|cause| cause != Cause::UpstreamResponse)
    });
    Entry { has_peer, attempt, cut_short }
}

/// An attempt of which only lines are known that were not recognised. Whether it failed is told
/// by how it ended; if it did, the message is kept, and nothing is made of it.
fn judge_unknown(attempt: &mut Attempt, state: Option<&State>, group: &Group, at: usize) {
    let failed = match group.ended {
        Some(ended) if ended.last == at => ended.failed,
        // nginx went on to another peer, or has not decided yet.
        _ => state.is_some_and(|state| state.status() >= 500 && state.header_time().is_none()),
    };
    match attempt.phase {
        Some(phase) if failed => attempt.set_verdict(Verdict { cause: Cause::Unknown, phase }),
        // What stderr said may explain an error that the upstream answered with.
        _ => *attempt = Attempt { stderr: attempt.stderr.take(), ..Attempt::default() },
    }
}

/// Adds what nginx keeps of every attempt.
fn complete(attempt: &mut Attempt, state: &State) {
    if attempt.peer.is_none() {
        attempt.peer = state.peer().map(diagnosis::text);
    }
    attempt.status = Some(state.status()).filter(|status| *status != 0);
    if attempt.cause.is_some() {
        // nginx adds what the pipe has read when the upstream request ends.
        let more = state.bytes_received();
        attempt.bytes_received = attempt.bytes_received.map(|received| received.max(more));
        return;
    }
    if answered_error(state) {
        attempt.cause = Some(Cause::UpstreamResponse);
    }
    attempt.connect_time = state.connect_time().map(Seconds::Millis);
    attempt.elapsed = state.response_time().map(Seconds::Millis);
    attempt.bytes_sent = Some(state.bytes_sent());
    attempt.bytes_received = Some(state.bytes_received());
}

impl Assembled {
    /// Every attempt.
    pub(crate) fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.entries.iter().filter_map(|entry| entry.attempt.as_ref())
    }

    /// The attempts with the entries between groups, for the variables with a value for each.
    pub(crate) fn slots(&self) -> Vec<Slot<'_>> {
        self.entries
            .iter()
            .map(|entry| Slot { has_peer: entry.has_peer, attempt: entry.attempt.as_ref() })
            .collect()
    }

    /// The last attempt that failed.
    pub(crate) fn failed(&self) -> Option<&Attempt> {
        self.attempts().rev().find(|attempt| attempt.cause.is_some())
    }

    /// Whether the client got a part of a response.
    pub(crate) fn cut_short(&self) -> bool {
        self.entries.iter().any(|entry| entry.cut_short)
    }
}
