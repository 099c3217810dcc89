//! All attempts of a request: what nginx kept of each, with what was noted of the failed ones.

use diagnosis::attempts::Slot;
use diagnosis::{Attempt, Cause, Seconds, Verdict};

use super::{answered_error, told_by_location};
use crate::ffi::request::Request;
use crate::ffi::upstream::{State, UpstreamId};
use crate::record::{Diagnosis, Group, Note};

/// The attempts of one request, in order.
pub(crate) struct Assembled<'d> {
    /// One for each entry of `r->upstream_states`, and one for an attempt without an entry.
    entries: Vec<Entry<'d>>,
}

struct Entry<'d> {
    has_peer: bool,
    attempt: Option<Attempt>,
    /// A response header came.
    answered: bool,
    /// The upstream request that it is an attempt of, where something was noted of that.
    group: Option<&'d Group>,
    /// The attempt's failure came after the header had gone to the client.
    cut_short: bool,
}

/// Puts the attempts of a request together.
pub(crate) fn assemble<'d>(
    request: Request<'_>,
    diagnosis: Option<&'d Diagnosis>,
) -> Assembled<'d> {
    let states = request.states();
    let groups: Vec<&Group> =
        diagnosis.map(|diagnosis| diagnosis.of(request.id()).collect()).unwrap_or_default();
    // A name that could not be resolved has no entry; everything else has.
    let noted = groups.iter().flat_map(|group| &group.notes).map(|note| note.at.saturating_add(1));
    let count = noted.max().unwrap_or(0).max(states.len());
    let told_from = told_by_location(request);

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
        entries.extend(here.into_iter().map(|(group, note)| Entry {
            has_peer: false,
            attempt: Some(note.attempt.clone()),
            answered: false,
            group: Some(group),
            cut_short: false,
        }));
        let group = found.map(|(group, _)| group);
        let group = group.or_else(|| groups.iter().copied().find(|group| group.covers(at)));
        let place = Place {
            at,
            last: at.saturating_add(1) == count,
            diagnosed: group.is_some() || told_from.is_some_and(|first| first <= at),
            group,
        };
        entries.push(entry(request, state, found.map(|(_, note)| note), &place));
    }
    Assembled { entries }
}

/// Where an entry stands.
struct Place<'d> {
    at: usize,
    /// It is the request's last.
    last: bool,
    /// It belongs to an upstream request that is to be diagnosed.
    diagnosed: bool,
    group: Option<&'d Group>,
}

fn entry<'d>(
    request: Request<'_>,
    state: Option<&State>,
    noted: Option<&Note>,
    place: &Place<'d>,
) -> Entry<'d> {
    let has_peer = state.is_some_and(|state| state.peer().is_some());
    let mut attempt = noted.map(|note| note.attempt.clone());
    if attempt.is_none() {
        attempt = place.group.and_then(|group| group.brief(place.at));
    }
    if let Some(group) = place.group
        && let Some(attempt) = attempt.as_mut()
        && attempt.cause.is_none()
    {
        judge_unknown(attempt, state, group, place.at);
    }
    if let Some(state) = state.filter(|_| has_peer) {
        complete(attempt.get_or_insert_default(), state, place.diagnosed);
    }
    let cut_short = place.group.filter(|_| noted.is_some()).is_some_and(|group| {
        let sent = group.ended.map_or_else(
            || {
                let upstream = request.upstream().filter(|u| u.id() == group.upstream);
                upstream.is_some_and(|upstream| upstream.header_sent())
            },
            |ended| ended.cut_short,
        );
        // With the header sent, nginx cannot try another peer.
        let cause = attempt.as_ref().and_then(|attempt| attempt.cause);
        sent && place.last && cause.is_some_and(|cause| cause != Cause::UpstreamResponse)
    });
    let answered = state.is_some_and(|state| state.header_time().is_some());
    Entry { has_peer, attempt, answered, group: place.group, cut_short }
}

/// An attempt of which only lines are known that do not decide. Whether it failed is told by how
/// it ended; if it did, the message is kept.
fn judge_unknown(attempt: &mut Attempt, state: Option<&State>, group: &Group, at: usize) {
    let failed = match group.ended {
        // The upstream's own error explains more than what nginx says about it.
        _ if state.is_some_and(answered_error) => false,
        Some(ended) if ended.last == at => ended.failed,
        // nginx went on to another peer, or has not decided yet.
        _ => state.is_some_and(|state| state.status() >= 500 && state.header_time().is_none()),
    };
    let cause = attempt.if_failed.unwrap_or(Cause::Unknown);
    match attempt.phase {
        Some(phase) if failed => attempt.set_verdict(Verdict { cause, phase }),
        // What stderr said may explain an error that the upstream answered with.
        _ => *attempt = Attempt { stderr: attempt.stderr.take(), ..Attempt::default() },
    }
}

/// Adds what nginx keeps of every attempt.
fn complete(attempt: &mut Attempt, state: &State, diagnosed: bool) {
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
    if diagnosed && answered_error(state) {
        attempt.cause = Some(Cause::UpstreamResponse);
    }
    attempt.connect_time = state.connect_time().map(Seconds::Millis);
    attempt.elapsed = state.response_time().map(Seconds::Millis);
    attempt.bytes_sent = Some(state.bytes_sent());
    attempt.bytes_received = Some(state.bytes_received());
}

impl<'d> Assembled<'d> {
    /// Every attempt.
    pub(crate) fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.entries.iter().filter_map(|entry| entry.attempt.as_ref())
    }

    /// The attempts of one upstream request, and whether a response header came.
    pub(super) fn of(&self, upstream: UpstreamId) -> impl Iterator<Item = (&Attempt, bool)> {
        self.entries
            .iter()
            .filter(move |entry| entry.group.is_some_and(|group| group.upstream == upstream))
            .filter_map(|entry| Some((entry.attempt.as_ref()?, entry.answered)))
    }

    /// The failed attempts, each with its upstream request where something was noted of that.
    pub(super) fn failed_attempts(
        &mut self,
    ) -> impl Iterator<Item = (&mut Attempt, Option<&'d Group>)> {
        self.entries.iter_mut().filter_map(|entry| {
            let attempt = entry.attempt.as_mut().filter(|attempt| attempt.cause.is_some())?;
            Some((attempt, entry.group))
        })
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
        self.last_failed().and_then(|entry| entry.attempt.as_ref())
    }

    /// The upstream request of the last attempt that failed, where something was noted of it.
    pub(crate) fn failed_group(&self) -> Option<&'d Group> {
        self.last_failed().and_then(|entry| entry.group)
    }

    fn last_failed(&self) -> Option<&Entry<'d>> {
        let failed = |attempt: &Attempt| attempt.cause.is_some();
        self.entries.iter().rev().find(|entry| entry.attempt.as_ref().is_some_and(failed))
    }

    /// Whether the client got a part of a response.
    pub(crate) fn cut_short(&self) -> bool {
        self.entries.iter().any(|entry| entry.cut_short)
    }
}
