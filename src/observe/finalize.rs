//! The end of an upstream request, seen by the hook on its finalization.

use nginx_sys::{NGX_ERROR, NGX_HTTP_SPECIAL_RESPONSE, ngx_int_t};

use crate::ffi::request::Request;
use crate::ffi::upstream::Upstream;
use crate::ffi::{hooks, peers};
use crate::record::Final;

/// Called once for an upstream request in which an error line came, before nginx redirects to an
/// error page.
pub(crate) fn finalized(request: Request<'_>, rc: ngx_int_t) {
    let Some(upstream) = request.upstream() else { return };
    // Only now are the failures accounted for: peer.free() comes after the line.
    let peers = peers::of(upstream).unwrap_or_default();
    let error = NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t;
    hooks::update(request, |diagnosis| {
        let Some(group) = diagnosis.known(upstream.id()) else { return };
        for note in &mut group.notes {
            let name = note.attempt.peer.as_deref();
            let peer = peers.iter().find(|peer| Some(peer.name.as_str()) == name);
            note.attempt.peer_state = peer.map(|peer| peer.report());
        }
        group.ended = Some(Final {
            last: request.states().len().saturating_sub(1),
            failed: is_failure(request, upstream, rc),
            status: u16::try_from(rc).ok().filter(|_| rc >= error),
            header_sent: upstream.header_sent(),
        });
    });
}

/// Whether the code says that the upstream failed.
fn is_failure(request: Request<'_>, upstream: Upstream<'_>, rc: ngx_int_t) -> bool {
    // With NGX_DONE the request was ended from outside, by its client for one.
    let error = rc == NGX_ERROR as ngx_int_t || rc >= 500;
    // With a complete header and nothing sent, the code is the upstream's own status, intercepted.
    let answered = upstream.state().is_some_and(|state| state.header_time().is_some());
    let intercepted = answered && !upstream.header_sent();
    error && !intercepted && !request.client_gone()
}
