//! Watching upstream requests from their start, for failures that nginx does not log.
//!
//! An upstream's own 502 makes no line, and after a redirect to an error page, or in a
//! subrequest, nothing tells any more in which location it happened. So in postconfiguration each
//! group's `peer.init`, which nginx calls with the request in its location, is put behind
//! [`init_peer`], which hooks the end of the upstream request. Neither allocates: the function
//! that the hook replaces is the same for all requests of a protocol module, and kept once.

use std::cell::Cell;
use std::ptr::{NonNull, addr_of};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use diagnosis::peer::Peer;
use nginx_sys::{
    NGX_ERROR, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_main_conf_t, ngx_http_upstream_module, ngx_http_upstream_srv_conf_t,
    ngx_http_upstream_t, ngx_int_t,
};

use super::peers::{self, PeerAt};
use super::request::Request;
use super::{hooks, module, upstream};

type InitPeer = unsafe extern "C" fn(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t;
pub(super) type Finalize = unsafe extern "C" fn(r: *mut ngx_http_request_t, rc: ngx_int_t);

/// The groups of a configuration, in the order of their addresses.
#[derive(Default)]
pub(crate) struct Groups {
    known: Vec<Known>,
    /// Addresses of groups that have been asked for, each with its `peer.init`: several groups can
    /// have one place.
    inits: Vec<Cell<(usize, Option<InitPeer>)>>,
}

/// A group.
struct Known {
    /// Its address.
    at: usize,
    group: NonNull<ngx_http_upstream_srv_conf_t>,
    /// The `peer.init` that [`init_peer`] stands for.
    init: InitPeer,
    name: String,
    /// Its peers that stay where they are.
    fixed: Vec<PeerAt>,
}

/// Groups are further apart than this, bytes.
const APART: usize = 64;
const _: () = assert!(size_of::<ngx_http_upstream_srv_conf_t>() >= APART);

impl Groups {
    /// Puts every group of the configuration behind [`init_peer`].
    pub(super) fn wrap(cf: &mut ngx_conf_t) -> Groups {
        // SAFETY: inside http{}, the main configuration of the upstream module with an array of
        // pointers to groups, which it has initialized (ngx_http_upstream_init_main_conf).
        let groups = unsafe {
            let Some(ctx) = cf.ctx.cast::<ngx_http_conf_ctx_t>().as_ref() else {
                return Groups::default();
            };
            let index = (*addr_of!(ngx_http_upstream_module)).ctx_index;
            let umcf = (*ctx.main_conf.add(index)).cast::<ngx_http_upstream_main_conf_t>();
            match umcf.as_ref() {
                Some(umcf) if umcf.upstreams.nelts > 0 => slice::from_raw_parts(
                    umcf.upstreams.elts.cast::<*mut ngx_http_upstream_srv_conf_t>(),
                    umcf.upstreams.nelts,
                ),
                _ => &[],
            }
        };
        let mut wrapped = Vec::with_capacity(groups.len());
        for group in groups.iter().filter_map(|group| NonNull::new(*group)) {
            // SAFETY: as above; nobody else looks at it while the configuration is read.
            let (init, name, fixed) = unsafe {
                let init: &mut ngx_http_upstream_init_peer_pt = &mut (*group.as_ptr()).peer.init;
                let init = init.replace(init_peer);
                (init, upstream::name_of(group.as_ref()), peers::fixed(group.as_ref()))
            };
            if let Some(init) = init {
                wrapped.push(Known { at: group.as_ptr() as usize, group, init, name, fixed });
            }
        }
        wrapped.sort_unstable_by_key(|known| known.at);
        let places = wrapped.len().saturating_mul(2).next_power_of_two();
        Groups { known: wrapped, inits: (0..places).map(|_| Cell::default()).collect() }
    }

    /// The names of all groups with those of their peers, as far as nginx keeps them.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&str, Vec<Peer>)> {
        self.known.iter().map(|known| {
            // SAFETY: the group lives in the cycle, as this does.
            let peers = peers::of_group(unsafe { known.group.as_ref() });
            (known.name.as_str(), peers.unwrap_or_default())
        })
    }

    /// The name of the group at an address.
    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        self.find(at).map(|known| known.name.as_str())
    }

    /// Whether the peer is one of that group's, and stays where it is.
    pub(super) fn has_fixed(&self, at: usize, peer: PeerAt) -> bool {
        self.find(at).is_some_and(|known| peers::is_fixed(&known.fixed, peer))
    }

    /// Whether there is a group of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.known.iter().any(|known| known.name == name)
    }

    fn find(&self, at: usize) -> Option<&Known> {
        let found = self.known.binary_search_by_key(&at, |known| known.at).ok()?;
        self.known.get(found)
    }

    /// The place of the group at an address.
    #[inline(always)]
    fn place(&self, at: usize) -> Option<&Cell<(usize, Option<InitPeer>)>> {
        let mask = self.inits.len().checked_sub(1)?;
        self.inits.get((at / APART) & mask)
    }

    /// The `peer.init` of the group at an address, if that has been asked for.
    #[inline(always)]
    fn known_init(&self, at: usize) -> Option<InitPeer> {
        let (known, init) = self.place(at)?.get();
        if known != at {
            return None;
        }
        init
    }

    /// The `peer.init` of the group at an address.
    fn init(&self, at: usize) -> Option<InitPeer> {
        self.known_init(at).or_else(|| {
            let init = self.find(at)?.init;
            self.place(at)?.set((at, Some(init)));
            Some(init)
        })
    }
}

/// Stands in `us->peer.init`.
unsafe extern "C" fn init_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // No panic boundary: nothing here can panic. Both end by a jump.
    // SAFETY: nginx calls it with a live request and its group.
    unsafe {
        match usual_init(r, us as usize) {
            Some(original) => original(r, us),
            None => unusual_init(r, us),
        }
    }
}

/// Watches an upstream request like most. The `peer.init` that [`init_peer`] stands for; `None` if
/// it is like few.
///
/// # Safety
/// `r` is a live request.
#[inline(always)]
unsafe fn usual_init(r: *mut ngx_http_request_t, us: usize) -> Option<InitPeer> {
    // SAFETY: by the caller's contract.
    let request = unsafe { Request::of_handler(r) };
    let original = module::newest_conf()?.groups.known_init(us)?;
    if !request.loc_conf()?.enabled() || request.is_post_action() {
        return None;
    }
    // SAFETY: nginx calls peer.init for the request's upstream (ngx_http_upstream_init_request).
    let u = unsafe { (*r).upstream.as_mut() }?;
    if !watch_usual(u) {
        return None;
    }
    Some(original)
}

/// As [`init_peer`], of any kind.
///
/// # Safety
/// `r` is a live request, and `us` its group.
#[inline(never)]
unsafe extern "C" fn unusual_init(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: by the caller's contract.
    let request = unsafe { Request::of_handler(r) };
    let original = request.main_conf().and_then(|conf| conf.groups.init(us as usize));
    let Some(original) = original else { return NGX_ERROR as ngx_int_t };
    // Before the original: a line that is logged in there hooks an upstream request that is not
    // watched yet in a more costly way.
    if request.loc_conf().is_some_and(|conf| conf.enabled()) && !request.is_post_action() {
        // SAFETY: as above.
        if let Some(u) = unsafe { (*r).upstream.as_mut() } {
            watch(u);
        }
    }
    // SAFETY: the function that stood here before, with its own arguments.
    unsafe { original(r, us) }
}

/// Protocol modules whose function is kept; nginx has six.
const MODULES: usize = 16;

/// Addresses of protocol modules, each with that of its `finalize_request`. Filled from the start
/// as requests come; this worker's one thread is the only one to use it.
static ORIGINALS: [(AtomicUsize, AtomicUsize); MODULES] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MODULES];

/// The place of a module in the table, or the free one it would take.
#[inline(never)]
fn place(module: usize) -> Option<&'static (AtomicUsize, AtomicUsize)> {
    ORIGINALS.iter().find(|(known, _)| {
        let known = known.load(Ordering::Relaxed);
        known == module || known == 0
    })
}

/// Hooks the end of an upstream request.
pub(super) fn watch(u: &mut ngx_http_upstream_t) {
    if !watch_usual(u) {
        watch_other(u);
    }
}

/// The address that is kept for an upstream request's module, if it is one of the two that were seen
/// first: few servers have more kinds of upstreams. 0 for others.
#[inline(always)]
fn usual(u: &ngx_http_upstream_t) -> usize {
    let tag = u.output.tag as usize;
    let [first, second, ..] = &ORIGINALS;
    if first.0.load(Ordering::Relaxed) == tag {
        return first.1.load(Ordering::Relaxed);
    }
    if second.0.load(Ordering::Relaxed) == tag {
        return second.1.load(Ordering::Relaxed);
    }
    0
}

/// Hooks the end of a usual upstream request. False if it is none.
#[inline(always)]
fn watch_usual(u: &mut ngx_http_upstream_t) -> bool {
    let current = u.finalize_request.map_or(0, |function| function as usize);
    if current == 0 || usual(u) != current {
        return false;
    }
    u.finalize_request = Some(hooks::finalize);
    true
}

/// As [`watch`], of a module that has no entry yet, or a later one.
fn watch_other(u: &mut ngx_http_upstream_t) {
    let current = u.finalize_request.map_or(0, |function| function as usize);
    if current == 0 || u.output.tag.is_null() || current == hooks::finalize as *const () as usize {
        return;
    }
    let Some((module, original)) = place(u.output.tag as usize) else { return };
    if module.load(Ordering::Relaxed) == 0 {
        module.store(u.output.tag as usize, Ordering::Relaxed);
        original.store(current, Ordering::Relaxed);
    }
    // A module that sets another function for some requests is left alone with those.
    if original.load(Ordering::Relaxed) == current {
        u.finalize_request = Some(hooks::finalize);
    }
}

/// The function that [`watch`] replaced, if it is that of a usual upstream request.
#[inline(always)]
pub(super) fn usual_original(u: &ngx_http_upstream_t) -> Option<Finalize> {
    // SAFETY: NULL, which no function is, or what watch() stored: the address of such a function.
    unsafe { std::mem::transmute::<usize, Option<Finalize>>(usual(u)) }
}

/// The function that [`watch`] replaced.
pub(super) fn original(u: &ngx_http_upstream_t) -> Option<Finalize> {
    let tag = u.output.tag as usize;
    let (module, original) = place(tag)?;
    let known = (module.load(Ordering::Relaxed) == tag).then(|| original.load(Ordering::Relaxed));
    // SAFETY: as above.
    unsafe { std::mem::transmute::<usize, Option<Finalize>>(known.unwrap_or(0)) }
}
