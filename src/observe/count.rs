//! Every attempt is counted with its peer, good ones too.

use std::cell::LazyCell;

use diagnosis::peer::State as PeerState;
use diagnosis::zone::{Attempted, Memory, Noted, Past, Place};
use diagnosis::{Attempt, Cause, Phase, Seconds};

use super::Assembled;
use super::attempt::each_of;
use crate::directives::MainConf;
use crate::ffi::request::Request;
use crate::ffi::upstream::{State, Upstream};
use crate::ffi::{hooks, module, time};
use crate::record::{Diagnosis, Group, look_up, of_group, remember_address, remembered};

/// Counts an upstream request at its end, if it is one of the usual kind: a single attempt that was
/// answered, with no error of the upstream's own, by a peer whose place is remembered, and that
/// tells nothing new of it. False if it is none: then nothing has been counted.
///
/// Every good request comes by here, so nothing is called: a call would have all that is known kept
/// on the stack. Nothing in it can panic.
#[inline(always)]
pub(crate) fn count_usual(request: Request<'_>, upstream: Upstream<'_>) -> bool {
    let Some(state) = request.only_state() else { return false };
    let (Some(took), Some(main)) = (state.took_if_good(), module::newest_conf()) else {
        return false;
    };
    let Some(memory) = &main.memory else { return false };
    let Some(name) = state.long_peer() else { return false };
    let place = remembered(main, upstream.group_at(), (state.peer_at(), name));
    let Some(place) = place else { return false };
    let (reused, now) = (upstream.is_reused(), time::current_msec());
    if !place.peer.count_usual(reused, took, now) {
        return false;
    }
    memory.head().count_request();
    count_connect(place, state, reused);
    count_header(place, request);
    true
}

/// As [`count_usual`], of any kind. `noted`: something is known of its attempts.
pub(crate) fn count(request: Request<'_>, upstream: Upstream<'_>, noted: bool) {
    let Some(main) = request.main_conf() else { return };
    let Some(memory) = main.memory else { return };
    memory.head().count_request();
    if noted {
        count_noted(request, upstream, main);
        return;
    }
    let states = request.last_states();
    for (at, state) in states.iter().enumerate() {
        let Some(name) = state.peer() else { continue };
        let Some(place) = place(main, upstream, (state.peer_at(), name)) else { continue };
        place.count(memory.head(), ended(upstream, state), time::current_msec());
        // Of the last, nginx still knows whether its connection was reused.
        if at.saturating_add(1) == states.len() {
            count_connect(place, state, upstream.is_reused());
            count_header(place, request);
        }
    }
}

/// Counts the header that was sent on, if one was: that of the last attempt, as nginx tries no other
/// after that.
#[inline(always)]
fn count_header(place: Place<'_>, request: Request<'_>) {
    match request.kept() {
        0 => {}
        size => {
            place.upstream.count_header(size as u64);
            request.keep(0);
        }
    }
}

/// Counts a request whose upstream has an address that was made at run time, and that was given up
/// before anything came of it: nothing could watch that. Called in the log phase. Where a header was
/// sent on, or its end was noted, it was watched, and another module stands in front of the hook.
pub(crate) fn count_unwatched(request: Request<'_>, upstream: Upstream<'_>) {
    let enabled = request.loc_conf().is_some_and(|conf| conf.enabled());
    let asked = !request.states().is_empty() && request.cached_status().is_none();
    let watched = upstream.has_group() || upstream.header_sent();
    if !enabled || !asked || watched || request.is_post_action() {
        return;
    }
    let ended = hooks::with(request, |diagnosis| {
        diagnosis.known(upstream.id()).is_some_and(|group| group.ended.is_some())
    });
    if !ended.is_ok_and(|ended| ended == Some(true)) {
        count(request, upstream, false);
    }
}

/// Counts the failure of an upstream request that never began: no hook sees its end.
pub(super) fn count_unbegun(request: Request<'_>, upstream: Upstream<'_>, cause: Cause) {
    let Some(main) = request.main_conf() else { return };
    let name = upstream.group_name().unwrap_or_default();
    if let Some(memory) = main.memory
        && let Some(place) = look_up(main, name.as_bytes(), b"")
    {
        place.count(memory.head(), Attempted::Failed(cause), time::current_msec());
    }
}

#[inline(always)]
fn count_connect(place: Place<'_>, state: &State, reused: bool) {
    if !reused && let Some(time) = state.connect_time() {
        place.upstream.count_connect(time);
    }
}

/// A good attempt, which is the last: of that nginx still knows whether its connection was reused.
fn good(upstream: Upstream<'_>, took: Option<u64>) -> Attempted {
    match took {
        Some(took) if upstream.is_reused() => Attempted::Reused { took },
        Some(took) => Attempted::Accepted { took },
        None => Attempted::Ok,
    }
}

/// How an attempt ended of which nothing was noted.
fn ended(upstream: Upstream<'_>, state: &State) -> Attempted {
    if state.header_time().is_some() {
        good(upstream, state.response_time())
    } else if state.status() >= 500 {
        // Its diagnosis was given up, or memory is short.
        Attempted::Failed(Cause::Unknown)
    } else {
        Attempted::Aborted
    }
}

/// The place of an attempt's peer: of that is known where nginx has its name, and the name.
fn place(
    main: &'static MainConf,
    upstream: Upstream<'_>,
    peer: (usize, &[u8]),
) -> Option<Place<'static>> {
    match upstream.group_at() {
        0 => look_up(main, upstream.group_name()?.as_bytes(), peer.1),
        _ => place_in_group(main, upstream, peer),
    }
}

/// As [`place`], of an upstream request that chooses from a group.
pub(super) fn place_in_group(
    main: &'static MainConf,
    upstream: Upstream<'_>,
    (at, name): (usize, &[u8]),
) -> Option<Place<'static>> {
    let group = upstream.group_at();
    remembered(main, group, (at, name)).or_else(|| {
        let place = of_group(main, group, name)?;
        if upstream.has_fixed_name(at) && !place.is_other() {
            remember_address(main, group, at, place);
        }
        Some(place)
    })
}

/// As [`count`], with what was noted: which attempts failed, and what took peers out.
fn count_noted(request: Request<'_>, upstream: Upstream<'_>, main: &MainConf) {
    let Some(memory) = main.memory else { return };
    let name = LazyCell::new(|| upstream.group_name().unwrap_or_default());
    let now = time::current_msec();
    let _ = hooks::with(request, |diagnosis| {
        let mut answered_by = None;
        each_of(request, diagnosis, upstream.id(), |attempt, answered, noted_place| {
            // Without a peer of its own: nginx has the group's name there, or none.
            let chosen = !matches!(attempt.phase, Some(Phase::Resolve | Phase::Select));
            let peer = attempt.peer.as_deref().filter(|_| chosen).unwrap_or_default();
            let place = noted_place.or_else(|| look_up(main, name.as_bytes(), peer.as_bytes()));
            let Some(place) = place else { return };
            let attempted = match attempt.cause {
                Some(cause) => Attempted::Failed(cause),
                None if answered => good(upstream, attempt.elapsed.map(Seconds::millis)),
                None => Attempted::Aborted,
            };
            place.count(memory.head(), attempted, now);
            if let Some(noted) = Noted::of(attempt, now) {
                place.peer.note_failure(&noted);
            }
            if let (Some(cause), Some(state)) = (attempt.cause, &attempt.peer_state)
                && let (PeerState::Unavailable, Seconds::Whole(timeout)) =
                    (state.state, state.fail_timeout)
            {
                place.peer.took_out(cause, timeout, now);
            }
            let connected = !matches!(attempt.phase, Some(Phase::Connect | Phase::Tls)) && chosen;
            // Of a good attempt, which is the last, nginx still knows it.
            let reused = attempt.reused.unwrap_or_else(|| upstream.is_reused());
            if let Some(Seconds::Millis(time)) = attempt.connect_time.filter(|_| connected)
                && !reused
            {
                place.upstream.count_connect(time);
            }
            if answered {
                answered_by = Some(place);
            }
        });
        if let Some(place) = answered_by {
            count_header(place, request);
        }
        if let Some(group) = diagnosis.known(upstream.id()) {
            for report in &mut group.peers {
                if let Some(place) = memory.find(name.as_bytes(), report.peer.as_bytes()) {
                    report.set_history(&place.peer.history(now));
                }
            }
        }
    });
}

/// Adds to what was noted of a request what is known of its peers by now.
pub(crate) fn add_histories(request: Request<'_>, diagnosis: &mut Diagnosis) {
    let now = time::current_msec();
    diagnosis.of_mut(request.id()).for_each(|group| group.add_histories(now));
}

/// As [`add_histories`], to the failed attempts of which nothing was noted, or no place.
pub(crate) fn add_other_histories(request: Request<'_>, assembled: &mut Assembled<'_>) {
    let Some(memory) = request.main_conf().and_then(|main| main.memory) else { return };
    let now = time::current_msec();
    for (attempt, group) in assembled.without_history() {
        let place = by_name(memory, request, group, attempt);
        attempt.history = place.map(|place| place.peer.tally(now));
    }
}

/// Where the peer of an attempt is counted, by the names of its upstream request, if something was
/// noted of that, or of the request's own.
fn by_name(
    memory: Memory<'static>,
    request: Request<'_>,
    group: Option<&Group>,
    attempt: &Attempt,
) -> Option<Place<'static>> {
    let own = || request.upstream().and_then(|upstream| upstream.group_name());
    let name = group.and_then(|group| group.name.clone()).or_else(own)?;
    memory.find(name.as_bytes(), attempt.peer.as_ref()?.as_bytes())
}

/// What is known of the peer of the last failed attempt from before. `noted`: where it is counted, if
/// that was noted.
pub(crate) fn past(
    request: Request<'_>,
    assembled: &Assembled<'_>,
    noted: Option<Place<'static>>,
) -> Option<Past> {
    let place = noted.or_else(|| {
        let memory = request.main_conf()?.memory?;
        by_name(memory, request, assembled.failed_group(), assembled.failed()?)
    })?;
    let (peer, now) = (place.peer, time::current_msec());
    let connects = assembled.failed().is_some_and(|failed| failed.phase == Some(Phase::Connect));
    Some(if connects { peer.past_connects(now) } else { peer.past(now) })
}
