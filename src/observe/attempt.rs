//! All attempts of a request: what nginx kept of each, with what was noted of the failed ones.

use diagnosis::attempts::Slot;
use diagnosis::{Answer, Attempt, Attempts, Cause, PeerName, Seconds, Shown, Verdict, zone};
use smallvec::SmallVec;

use super::{answered_error, told_by_location};
use crate::ffi::request::Request;
use crate::ffi::upstream::{State, Upstream, UpstreamId};
use crate::record::{Diagnosis, Group, Note};

/// The attempts of one request, in order.
pub(crate) struct Assembled<'d> {
    /// One for each entry of `r->upstream_states`, and one for an attempt without an entry.
    entries: Entries<'d>,
}

type Entries<'d> = SmallVec<[Entry<'d>; 2]>;

struct Entry<'d> {
    has_peer: bool,
    attempt: Option<Shown<'d>>,
    /// A response header came.
    answered: bool,
    /// The upstream request that it is an attempt of, where something was noted of that.
    group: Option<&'d Group>,
    /// The attempt's failure came after the header had gone to the client.
    cut_short: bool,
    /// What was noted of it.
    note: Option<&'d Note>,
}

impl Entry<'_> {
    fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref().map(Shown::attempt)
    }

    /// Where its peer is counted, if that was noted.
    fn place(&self) -> Option<zone::Place<'static>> {
        self.note.and_then(Note::place)
    }
}

/// Puts the attempts of a request together.
pub(crate) fn assemble<'d>(
    request: Request<'_>,
    diagnosis: Option<&'d Diagnosis>,
) -> Assembled<'d> {
    let states = request.states();
    let groups = diagnosis.map(Diagnosis::groups).unwrap_or_default();
    if let [group] = groups
        && are_all_noted(request, group)
    {
        return Assembled { entries: all_noted(request, group) };
    }
    let id = request.id();
    let own = |group: &&Group| group.request == id;
    // A name that could not be resolved has no entry; everything else has.
    let mut count = states.len();
    for note in groups.iter().filter(own).flat_map(|group| &group.notes) {
        count = count.max(note.at.saturating_add(1));
    }
    let told_from = told_by_location(request);

    let mut entries = Entries::with_capacity(count);
    for at in 0..count {
        let state = states.get(at);
        let noted = groups.iter().filter(own).filter_map(|group| {
            // The last note is looked for most.
            let note = group.notes.iter().rev().find(|note| note.at == at)?;
            Some((group, note))
        });
        // An attempt without a peer has no entry with one: that is another attempt's.
        let has_entry = |note: &Note| {
            note.attempt.peer.is_some()
                || note.attempt.cause.is_none()
                || state.is_none_or(|state| state.peer().is_none())
        };
        let mut found: Option<(&Group, &Note)> = None;
        for (group, note) in noted {
            entries.extend(found.replace((group, note)).map(|(group, note)| apart(group, note)));
        }
        if let Some((group, note)) = found.take_if(|(_, note)| !has_entry(note)) {
            entries.push(apart(group, note));
        }
        let group = found.map(|(group, _)| group);
        let group = group.or_else(|| groups.iter().filter(own).find(|group| group.covers(at)));
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

/// Calls `look` for the attempts of one upstream request: with whether a response header came, and
/// where the peer is counted if that was noted.
pub(super) fn each_of(
    request: Request<'_>,
    diagnosis: &Diagnosis,
    upstream: UpstreamId,
    mut look: impl FnMut(&Attempt, bool, Option<zone::Place<'static>>),
) {
    if let [group] = diagnosis.groups()
        && group.upstream == upstream
        && are_all_noted(request, group)
    {
        for (state, note) in request.states().iter().zip(&group.notes) {
            look(&note.attempt, state.header_time().is_some(), note.place());
        }
        return;
    }
    let assembled = assemble(request, Some(diagnosis));
    let of_it = |group: &Group| group.upstream == upstream;
    for entry in assembled.entries.iter().filter(|entry| entry.group.is_some_and(of_it)) {
        if let Some(attempt) = entry.attempt() {
            look(attempt, entry.answered, entry.place());
        }
    }
}

/// Whether each attempt of a request has failed with a note of its own, as those of most that fail
/// have: nothing has to be looked for then.
fn are_all_noted(request: Request<'_>, group: &Group) -> bool {
    let states = request.states();
    group.request == request.id()
        && group.notes.len() == states.len()
        && states.iter().zip(&group.notes).enumerate().all(|(at, (state, note))| {
            note.at == at
                && note.attempt.cause.is_some()
                && state.peer().is_some()
                && is_complete(&note.attempt, state)
        })
}

/// The entries of such a request.
fn all_noted<'d>(request: Request<'_>, group: &'d Group) -> Entries<'d> {
    let states = request.states();
    let entry = |(state, note): (&State, &'d Note)| {
        let last = note.at.saturating_add(1) == states.len();
        Entry {
            has_peer: true,
            attempt: Some(Shown::Noted(&note.attempt)),
            answered: state.header_time().is_some(),
            group: Some(group),
            cut_short: last
                && note.attempt.cause.is_some_and(|cause| cut_short(request, group, cause)),
            note: Some(note),
        }
    };
    states.iter().zip(&group.notes).map(entry).collect()
}

/// The entry of an attempt that nginx made none for.
fn apart<'d>(group: &'d Group, note: &'d Note) -> Entry<'d> {
    Entry {
        has_peer: false,
        attempt: Some(Shown::Noted(&note.attempt)),
        answered: false,
        group: Some(group),
        cut_short: false,
        note: Some(note),
    }
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
    noted: Option<&'d Note>,
    place: &Place<'d>,
) -> Entry<'d> {
    let has_peer = state.is_some_and(|state| state.peer().is_some());
    let mut attempt = noted.map(|note| Shown::Noted(&note.attempt));
    if attempt.is_none() {
        attempt = place
            .group
            .and_then(|group| group.brief(place.at))
            .map(|brief| Shown::Made(brief.into()));
    }
    if let Some(group) = place.group
        && let Some(attempt) = attempt.as_mut().filter(|shown| shown.attempt().cause.is_none())
    {
        judge_unknown(attempt.to_mut(), state, group, place.at);
    }
    if let Some(state) = state.filter(|_| has_peer) {
        let shown = attempt.get_or_insert_with(|| Shown::Made(Box::default()));
        complete(shown, state, request, place);
    }
    let cause = attempt.as_ref().and_then(|shown| shown.attempt().cause);
    let cut_short = match (place.group, cause) {
        (Some(group), Some(cause)) if noted.is_some() && place.last => {
            cut_short(request, group, cause)
        }
        _ => false,
    };
    let answered = state.is_some_and(|state| state.header_time().is_some());
    Entry { has_peer, attempt, answered, group: place.group, cut_short, note: noted }
}

/// Whether the last attempt failed after its header had been sent: nginx cannot try another peer then.
fn cut_short(request: Request<'_>, group: &Group, cause: Cause) -> bool {
    let sent = match group.ended {
        Some(ended) => ended.cut_short,
        None => {
            let upstream = request.upstream().filter(|u| u.id() == group.upstream);
            upstream.is_some_and(|upstream| upstream.header_sent())
        }
    };
    sent && cause != Cause::UpstreamResponse
}

/// An attempt of which only lines are known that do not decide. Whether it failed is told by how
/// it ended; if it did, the message is kept.
fn judge_unknown(attempt: &mut Attempt, state: Option<&State>, group: &Group, at: usize) {
    let failed = match group.ended {
        // The upstream's own error explains more than what nginx says about it.
        _ if state.is_some_and(answered_error) => false,
        Some(ended) if ended.last == at => ended.failed,
        // nginx went on to another peer, or has not decided yet.
        _ => state.is_some_and(ended_in_error),
    };
    let cause = attempt.if_failed.unwrap_or(Cause::Unknown);
    match attempt.phase {
        Some(phase) if failed => attempt.set_verdict(Verdict { cause, phase }),
        // What stderr said may explain an error that the upstream answered with.
        _ => *attempt = Attempt { stderr: attempt.stderr.take(), ..Attempt::default() },
    }
}

/// Whether nginx gave the attempt up before its header came.
fn ended_in_error(state: &State) -> bool {
    state.status() >= 500 && state.header_time().is_none()
}

/// Whether there is nothing that [`complete`] would add to an attempt that failed.
fn is_complete(attempt: &Attempt, state: &State) -> bool {
    attempt.peer.is_some()
        && attempt.status == status(state)
        && attempt.bytes_received.is_none_or(|known| known >= state.bytes_received())
}

fn status(state: &State) -> Option<u16> {
    Some(state.status()).filter(|status| *status != 0)
}

/// Adds what nginx keeps of every attempt.
fn complete(shown: &mut Shown<'_>, state: &State, request: Request<'_>, place: &Place<'_>) {
    let received = state.bytes_received();
    let noted = shown.attempt();
    let failed = noted.cause.is_some();
    if failed && is_complete(noted, state) {
        return;
    }
    let attempt = shown.to_mut();
    attempt.peer = attempt.peer.take().or_else(|| peer_of(state));
    attempt.status = status(state);
    if failed {
        // nginx adds what the pipe has read when the upstream request ends.
        attempt.bytes_received = attempt.bytes_received.map(|known| known.max(received));
        return;
    }
    if place.diagnosed && answered_error(state) {
        attempt.cause = Some(Cause::UpstreamResponse);
        attempt.answer = answer(request, place);
    }
    attempt.undiagnosed = !place.diagnosed && (answered_error(state) || ended_in_error(state));
    attempt.connect_time = state.connect_time().map(Seconds::Millis);
    attempt.elapsed = state.response_time().map(Seconds::Millis);
    attempt.bytes_sent = Some(state.bytes_sent());
    attempt.bytes_received = Some(received);
}

/// What becomes of an error that the upstream answered with. `None` where that is not known: nothing
/// was noted at the time, and since then there was an error page.
fn answer(request: Request<'_>, place: &Place<'_>) -> Option<Answer> {
    let next = request.states().get(place.at.saturating_add(1));
    if next.is_some_and(|next| !next.is_separator()) {
        return Some(Answer::Retried);
    }
    if !request.is_main() {
        return Some(Answer::ToSubrequest);
    }
    // Without a group it is the upstream request that the location tells of.
    let of_it = |upstream: &Upstream<'_>| place.group.is_none_or(|g| g.upstream == upstream.id());
    let upstream = request.upstream().filter(of_it);
    let ended = place.group.and_then(|group| group.ended);
    let sent = match ended {
        Some(ended) => ended.cut_short,
        None => upstream.is_some_and(|upstream| upstream.header_sent()),
    };
    if sent {
        return Some(Answer::Passed);
    }
    if upstream.is_some() && request.is_cached() {
        return Some(Answer::Stale);
    }
    match ended {
        // With a status nginx makes an answer of its own.
        Some(ended) if ended.status.is_some() => Some(Answer::Replaced),
        Some(_) => Some(Answer::Redirected),
        // Its header is about to be sent.
        None if upstream.is_some_and(|upstream| upstream.is_under_way()) => Some(Answer::Passed),
        None if upstream.is_some_and(|upstream| upstream.is_redirected()) => {
            Some(Answer::Redirected)
        }
        None => None,
    }
}

fn peer_of(state: &State) -> Option<PeerName> {
    state.peer().map(|peer| diagnosis::text(peer).into_owned().into())
}

impl<'d> Assembled<'d> {
    /// Every attempt.
    pub(crate) fn into_attempts<'a>(self) -> Attempts<'a>
    where
        'd: 'a,
    {
        // As what lives no longer than is asked for: the list does not make that of itself.
        let shown = |entry: Entry<'d>| -> Option<Shown<'a>> { entry.attempt };
        self.entries.into_iter().filter_map(shown).collect()
    }

    /// The failed attempts whose history was not noted, each with its upstream request where
    /// something was noted of that.
    pub(super) fn without_history(
        &mut self,
    ) -> impl Iterator<Item = (&mut Attempt, Option<&'d Group>)> {
        self.entries.iter_mut().filter_map(|entry| {
            let lacks = |shown: &&mut Shown<'_>| {
                shown.attempt().cause.is_some() && shown.attempt().history.is_none()
            };
            let shown = entry.attempt.as_mut().filter(lacks)?;
            Some((shown.to_mut(), entry.group))
        })
    }

    /// The attempts with the entries between groups, for the variables with a value for each.
    pub(crate) fn slots(&self) -> Vec<Slot<'_>> {
        self.entries
            .iter()
            .map(|entry| Slot { has_peer: entry.has_peer, attempt: entry.attempt() })
            .collect()
    }

    /// The last attempt that failed.
    pub(crate) fn failed(&self) -> Option<&Attempt> {
        self.last_failed().and_then(Entry::attempt)
    }

    /// The upstream request of the last attempt that failed, where something was noted of it.
    pub(crate) fn failed_group(&self) -> Option<&'d Group> {
        self.last_failed().and_then(|entry| entry.group)
    }

    /// Where the peer of that attempt is counted, if that was noted.
    pub(crate) fn failed_place(&self) -> Option<zone::Place<'static>> {
        self.last_failed().and_then(Entry::place)
    }

    fn last_failed(&self) -> Option<&Entry<'d>> {
        let failed = |attempt: &Attempt| attempt.cause.is_some();
        self.entries.iter().rev().find(|entry| entry.attempt().is_some_and(failed))
    }

    /// Whether the client got a part of a response.
    pub(crate) fn cut_short(&self) -> bool {
        self.entries.iter().any(|entry| entry.cut_short)
    }
}
