//! The end of an upstream request, seen by the hook on its finalization.

use diagnosis::{Attempt, Cause};
use nginx_sys::{NGX_ERROR, NGX_HTTP_SPECIAL_RESPONSE, ngx_int_t};

use super::answered_error;
use super::context::context;
use super::tap::{note_of, silent_failure};
use crate::ffi::request::Request;
use crate::ffi::upstream::Upstream;
use crate::ffi::{hooks, peers};
use crate::record::{Final, Group, Note};

/// Called for an upstream request that is watched or in which an error line came, before nginx
/// redirects to an error page. Whether something is noted of it then; `None` if this was called
/// before, and nothing is changed.
pub(crate) fn finalized(
    request: Request<'_>,
    upstream: Upstream<'_>,
    rc: ngx_int_t,
) -> Option<bool> {
    let known = hooks::with(request, |diagnosis| {
        diagnosis.known(upstream.id()).map(|group| group.ended.is_some())
    });
    let Ok(known) = known else { return Some(false) };
    let ended_before = known.flatten();
    if ended_before == Some(true) {
        return None;
    }
    Some(note_end(request, upstream, rc, ended_before.is_some()))
}

/// Notes the end of an upstream request, if it failed. `noted`: something was noted of it before.
/// Whether something is now.
fn note_end(request: Request<'_>, upstream: Upstream<'_>, rc: ngx_int_t, noted: bool) -> bool {
    let unexplained = !noted && gave_up(rc) && is_failure(request, upstream, rc);
    if !noted && !unexplained && !answered_in(request) {
        return false;
    }
    let Some(conf) = request.loc_conf().filter(|_| !request.is_post_action()) else { return false };
    let error = NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t;
    let last = request.states().len().saturating_sub(1);
    let own = request.last_states().len();
    let mut is_noted = false;
    hooks::update(request, |diagnosis| {
        is_noted = true;
        let group = diagnosis.group(upstream.id(), || Group::new(request, upstream, conf, own));
        if unexplained {
            let attempt = silent_failure(upstream, conf);
            group.note(note_of(request, upstream, last, attempt));
        }
        let states = request.states();
        add_peer_states(upstream, &mut group.notes);
        for note in &mut group.notes {
            if let Some(state) = states.get(note.at).filter(|state| state.peer().is_some()) {
                note.attempt.status = Some(state.status()).filter(|status| *status != 0);
            }
        }
        let own_error = own_error(upstream);
        let own_error = own_error.map(|attempt| {
            let mut note = note_of(request, upstream, last, attempt);
            add_peer_states(upstream, std::slice::from_mut(&mut note));
            note
        });
        let noted = group.last_failure();
        let of_last = noted.filter(|note| note.at == last);
        if let Some(failed) = of_last.or(own_error.as_ref()).or(noted) {
            group.context = context(request, upstream, failed);
        }
        group.ended = Some(Final {
            last,
            failed: is_failure(request, upstream, rc),
            status: u16::try_from(rc).ok().filter(|_| rc >= error),
            // What a filter refuses is cut before nginx takes note of having sent it.
            cut_short: upstream.header_sent()
                || (answered(upstream) && rc == NGX_ERROR as ngx_int_t),
        });
    });
    is_noted
}

/// Adds what nginx keeps of the attempts' peers. Only at the end are the failures accounted for:
/// peer.free() comes after the line.
fn add_peer_states(upstream: Upstream<'_>, notes: &mut [Note]) {
    for note in notes.iter_mut() {
        let Some(name) = note.attempt.peer.as_deref() else { continue };
        let peer = peers::fixed_state(upstream, note.peer);
        let peer = peer.or_else(|| peers::shared_state(upstream, name));
        note.attempt.peer_state = peer.map(|peer| peer.report());
    }
    let names: Vec<&str> = notes.iter().filter_map(without_state).collect();
    if names.is_empty() {
        return;
    }
    let states = peers::states(upstream, &names);
    let notes = notes.iter_mut().filter(|note| without_state(note).is_some());
    for (note, state) in notes.zip(states) {
        note.attempt.peer_state = state.map(|peer| peer.report());
    }
}

/// The name of an attempt's peer, if its state is not known.
fn without_state(note: &Note) -> Option<&str> {
    note.attempt.peer.as_deref().filter(|_| note.attempt.peer_state.is_none())
}

/// Whether nginx ends the upstream request with a gateway's error.
#[inline]
pub(crate) fn gave_up(rc: ngx_int_t) -> bool {
    matches!(rc, 502..=504)
}

/// Whether the upstream request that goes on was answered with an error of the upstream's own.
#[inline]
pub(crate) fn answered_in(request: Request<'_>) -> bool {
    request.last_states().iter().any(answered_error)
}

/// Whether the code says that the upstream failed.
fn is_failure(request: Request<'_>, upstream: Upstream<'_>, rc: ngx_int_t) -> bool {
    // With NGX_DONE the request was ended from outside, by its client for one.
    let status = rc >= 500;
    // With a complete header and nothing sent, a status is the upstream's own, intercepted.
    let intercepted = status && answered(upstream) && !upstream.header_sent();
    (status || rc == NGX_ERROR as ngx_int_t) && !intercepted && !request.client_gone()
}

/// The attempt that goes on, if the upstream answered it with an error of its own.
fn own_error(upstream: Upstream<'_>) -> Option<Box<Attempt>> {
    upstream.state().filter(|state| answered_error(state))?;
    let peer = upstream.peer_name().map(|name| diagnosis::text(name).into_owned().into());
    let cause = Some(Cause::UpstreamResponse);
    Some(Box::new(Attempt { peer, cause, ..Attempt::default() }))
}

fn answered(upstream: Upstream<'_>) -> bool {
    upstream.state().is_some_and(|state| state.header_time().is_some())
}
