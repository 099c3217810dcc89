//! The end of an upstream request, seen by the hook on its finalization.

use nginx_sys::{NGX_ERROR, NGX_HTTP_SPECIAL_RESPONSE, ngx_int_t};

use crate::ffi::request::Request;
use crate::ffi::{hooks, peers};
use crate::record::Final;

/// Called once for an upstream request in which an error line came, before nginx redirects to an
/// error page.
pub(crate) fn finalized(request: Request<'_>, rc: ngx_int_t) {
    let Some(upstream) = request.upstream() else { return };
    // Only now are the failures accounted for: peer.free() comes after the line.
    let peers = peers::of(upstream).unwrap_or_default();
    let error = NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t;
    hooks::with(request, |diagnosis| {
        let Some(group) = diagnosis.known(upstream.id()) else { return };
        for note in &mut group.notes {
            let name = note.attempt.peer.as_deref();
            let peer = peers.iter().find(|peer| Some(peer.name.as_str()) == name);
            note.attempt.peer_state = peer.map(|peer| peer.report());
        }
        group.ended = Some(Final {
            // Not NGX_DONE: then the request was ended from outside, by its client for one.
            failed: rc == NGX_ERROR as ngx_int_t || rc >= 500,
            status: u16::try_from(rc).ok().filter(|_| rc >= error),
            header_sent: upstream.header_sent(),
        });
    });
}
