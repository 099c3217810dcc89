//! Watching upstream requests from their start, for failures that nginx does not log.
//!
//! An upstream's own 502 makes no line, and after a redirect to an error page, or in a
//! subrequest, nothing tells any more in which location it happened. So in postconfiguration each
//! group's `peer.init`, which nginx calls with the request in its location, is hooked, and that hook
//! hooks the end of the upstream request. Neither allocates: the functions that hooks replace are few,
//! and kept once.

use std::ffi::c_void;
use std::ptr::{NonNull, addr_of};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use diagnosis::peer::Peer;
use nginx_sys::{
    NGX_ERROR, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_main_conf_t, ngx_http_upstream_module, ngx_http_upstream_srv_conf_t,
    ngx_http_upstream_t, ngx_int_t,
};

use super::peers::{self, PeerAt, Shared};
use super::request::Request;
use super::{hooks, upstream};

type InitPeer = unsafe extern "C" fn(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t;
pub(super) type Finalize = unsafe extern "C" fn(r: *mut ngx_http_request_t, rc: ngx_int_t);

/// The groups of a configuration, in the order of their addresses.
#[derive(Default)]
pub(crate) struct Groups(Vec<Group>);

/// A group.
struct Group {
    /// Its address.
    at: usize,
    group: NonNull<ngx_http_upstream_srv_conf_t>,
    /// The `peer.init` that is hooked.
    init: InitPeer,
    name: String,
    /// Its peers that stay where they are.
    fixed: Vec<PeerAt>,
    /// The others.
    shared: Shared,
}

impl Groups {
    /// Hooks `peer.init` of every group of the configuration.
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
                let original = *init;
                *init = original.map(init_hook);
                (original, upstream::name_of(group.as_ref()), peers::fixed(group.as_ref()))
            };
            if let Some(init) = init {
                let (at, shared) = (group.as_ptr() as usize, Shared::default());
                wrapped.push(Group { at, group, init, name, fixed, shared });
            }
        }
        wrapped.sort_unstable_by_key(|known| known.at);
        Groups(wrapped)
    }

    /// The names of all groups with those of their peers, as far as nginx keeps them.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&str, Vec<Peer>)> {
        self.0.iter().map(|known| {
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

    /// The peers of that group that are in a zone.
    pub(super) fn shared(&self, at: usize) -> Option<&Shared> {
        self.find(at).map(|known| &known.shared)
    }

    /// Whether there is a group of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.name == name)
    }

    fn find(&self, at: usize) -> Option<&Group> {
        let found = self.0.binary_search_by_key(&at, |known| known.at).ok()?;
        self.0.get(found)
    }
}

/// Functions of nginx's modules that are hooked, by their addresses, each with a hook of its own,
/// which finds it at once. What is known is kept for good.
struct Known<const N: usize>([AtomicUsize; N]);

/// No function has this address.
const NONE: usize = usize::MAX;

impl<const N: usize> Known<N> {
    const fn none() -> Self {
        Known([const { AtomicUsize::new(NONE) }; N])
    }

    /// The function at a place.
    #[inline(always)]
    fn at<const AT: usize>(&self) -> usize {
        const { assert!(AT < N) };
        #[expect(clippy::indexing_slicing, reason = "the place is checked at compile time")]
        self.0[AT].load(Ordering::Relaxed)
    }

    /// Whether it has a place.
    fn has(&self, function: usize) -> bool {
        self.0.iter().any(|known| known.load(Ordering::Relaxed) == function)
    }

    /// The place of a function, which is given a free one if it has none.
    fn place(&self, function: usize) -> Option<usize> {
        self.0.iter().position(|known| {
            let _ = known.compare_exchange(NONE, function, Ordering::Relaxed, Ordering::Relaxed);
            known.load(Ordering::Relaxed) == function
        })
    }
}

/// The functions that are hooked in `us->peer.init`: those of balancers. Few configurations use
/// more kinds than these.
static INITS: Known<4> = Known::none();
const INIT_HOOKS: [InitPeer; 4] = [init_peer::<0>, init_peer::<1>, init_peer::<2>, init_peer::<3>];

/// The function that the hook at this place stands for.
///
/// # Safety
/// Called by that hook: it is one only once the function is known.
#[inline(always)]
unsafe fn original_init<const AT: usize>() -> InitPeer {
    // SAFETY: the address of such a function, by the caller's contract.
    unsafe { std::mem::transmute::<usize, InitPeer>(INITS.at::<AT>()) }
}

/// The hook for a `peer.init`.
fn init_hook(init: InitPeer) -> InitPeer {
    let own = INITS.place(init as usize).and_then(|at| INIT_HOOKS.get(at));
    own.copied().unwrap_or(init_other_peer)
}

/// Stands in `us->peer.init` for the function at a place of [`INITS`].
unsafe extern "C" fn init_peer<const AT: usize>(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // No panic boundary: nothing here can panic. Both end by a jump.
    // SAFETY: nginx calls it with a live request and its group. It is a hook only once the function
    // is known.
    unsafe { if watch_usual(r) { original_init::<AT>()(r, us) } else { init_unusual::<AT>(r, us) } }
}

/// As [`init_peer`], of an upstream request of any kind.
///
/// # Safety
/// As for that.
#[inline(never)]
unsafe extern "C" fn init_unusual<const AT: usize>(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // Before the original: a line that is logged in there hooks an upstream request that is not
    // watched yet in a more costly way.
    // SAFETY: by the caller's contract.
    unsafe {
        watch_any(r);
        original_init::<AT>()(r, us)
    }
}

/// Stands in `us->peer.init` for a function that has no place in [`INITS`].
unsafe extern "C" fn init_other_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: nginx calls it with a live request and its group.
    unsafe {
        let conf = Request::of_handler(r).main_conf();
        let group = conf.and_then(|conf| conf.groups.find(us as usize));
        let Some(group) = group else { return NGX_ERROR as ngx_int_t };
        watch_any(r);
        (group.init)(r, us)
    }
}

/// Watches an upstream request like most. False if it is like few, or not to be watched.
///
/// # Safety
/// `r` is a live request whose upstream request is about to choose a peer.
#[inline(always)]
unsafe fn watch_usual(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: by the caller's contract; nginx calls peer.init for the request's upstream
    // (ngx_http_upstream_init_request).
    unsafe { is_diagnosed(Request::of_handler(r)) && hook_usual(&mut *(*r).upstream) }
}

/// Watches an upstream request of any kind, if it is to be watched.
///
/// # Safety
/// As for [`watch_usual`].
unsafe fn watch_any(r: *mut ngx_http_request_t) {
    // SAFETY: as there.
    unsafe {
        let request = Request::of_handler(r);
        if is_diagnosed(request)
            && let Some(upstream) = request.upstream()
        {
            hooks::hook(request, upstream.id(), &mut *(*r).upstream);
        }
    }
}

#[inline(always)]
fn is_diagnosed(request: Request<'_>) -> bool {
    request.loc_conf().is_some_and(|conf| conf.enabled()) && !request.is_post_action()
}

/// The functions that are hooked in `u->finalize_request`: the two that were seen first, as each
/// protocol module has its own, and few servers have more kinds of upstreams.
static FINALIZES: Known<2> = Known::none();
const FINALIZE_HOOKS: [Finalize; 2] = [hooks::finalize::<0>, hooks::finalize::<1>];

/// How many protocol modules are known; nginx has six.
const MOST: usize = 16;

/// Addresses of protocol modules, each with that of its `finalize_request`. Filled from the
/// start as requests come; this worker's one thread is the only one to use it.
static MODULES: [(AtomicUsize, AtomicUsize); MOST] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MOST];

/// The place of a module in the table, or the free one it would take.
fn place(module: usize) -> Option<&'static (AtomicUsize, AtomicUsize)> {
    MODULES.iter().find(|(known, _)| {
        let known = known.load(Ordering::Relaxed);
        known == module || known == 0
    })
}

/// Whether a hook stands in `u->finalize_request`: not behind another module's function.
#[inline(always)]
pub(super) fn is_hooked(u: &ngx_http_upstream_t) -> bool {
    let function = u.finalize_request.map_or(0, |function| function as usize);
    let is = |hook: Finalize| function == hook as usize;
    is(hooks::finalize::<0>) || is(hooks::finalize::<1>) || is_hooked_otherwise(function)
}

/// Not inlined, or it would be asked first.
#[cold]
fn is_hooked_otherwise(function: usize) -> bool {
    function == hooks::finalize_other as *const () as usize
}

/// Hooks the end of a usual upstream request. False if it is none.
#[inline(always)]
fn hook_usual(u: &mut ngx_http_upstream_t) -> bool {
    let current = u.finalize_request.map_or(0, |function| function as usize);
    let hook: Finalize = if current == FINALIZES.at::<0>() {
        hooks::finalize::<0>
    } else if current == FINALIZES.at::<1>() {
        hooks::finalize::<1>
    } else {
        return false;
    };
    u.finalize_request = Some(hook);
    true
}

/// Hooks the end of an upstream request. Whether a hook stands there now.
pub(super) fn hook(u: &mut ngx_http_upstream_t) -> bool {
    if is_hooked(u) {
        return true;
    }
    let Some(current) = u.finalize_request.map(|function| function as usize) else { return false };
    let tag = u.output.tag as usize;
    if is_foreign(tag, current) {
        return false;
    }
    let own = FINALIZES.place(current).and_then(|at| FINALIZE_HOOKS.get(at)).copied();
    // Kept by its module in any case: where other modules come between, a hook finds it by that.
    let other = hook_other(tag, current);
    let hook = own.or(other);
    if let Some(hook) = hook {
        u.finalize_request = Some(hook);
    }
    hook.is_some()
}

/// Functions that are known to be another module's than that of the protocol.
static FOREIGN: Known<4> = Known::none();

/// Whether a function is another module's than that of the protocol, which has put it there. Such a one
/// may come to stand in front of the hook once more, and call it for ever: so it is kept for one request.
/// It can be told where it is in another library.
fn is_foreign(tag: usize, function: usize) -> bool {
    if FINALIZES.has(function) {
        return false;
    }
    if FOREIGN.has(function) {
        return true;
    }
    let foreign = library(tag) != library(function);
    foreign && FOREIGN.place(function).is_some()
}

/// Where the library begins, or the program, that an address is in (dladdr(3)).
fn library(address: usize) -> Option<usize> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked about; the answer is zeros, which are valid, or written.
    unsafe {
        let found = libc::dladdr(address as *const c_void, info.as_mut_ptr()) != 0;
        found.then(|| info.assume_init().dli_fbase as usize)
    }
}

/// The hook for a function of a module at an address. A module that sets another function for some
/// requests is left alone with those.
fn hook_other(tag: usize, current: usize) -> Option<Finalize> {
    if tag == 0 {
        return None;
    }
    let (module, original) = place(tag)?;
    if module.load(Ordering::Relaxed) == 0 {
        module.store(tag, Ordering::Relaxed);
        original.store(current, Ordering::Relaxed);
    }
    let hook: Finalize = hooks::finalize_other;
    (original.load(Ordering::Relaxed) == current).then_some(hook)
}

/// The function that the hook at this place stands for.
///
/// # Safety
/// Called by that hook: it is one only once the function is known.
#[inline(always)]
pub(super) unsafe fn original<const AT: usize>() -> Finalize {
    // SAFETY: the address of such a function, by the caller's contract.
    unsafe { std::mem::transmute::<usize, Finalize>(FINALIZES.at::<AT>()) }
}

/// The function of another module that [`hook`] replaced.
pub(super) fn other_original(u: &ngx_http_upstream_t) -> Option<Finalize> {
    let tag = u.output.tag as usize;
    let (module, original) = place(tag)?;
    let known = (module.load(Ordering::Relaxed) == tag).then(|| original.load(Ordering::Relaxed));
    // SAFETY: NULL, which no function is, or what hook() stored: the address of such a function.
    unsafe { std::mem::transmute::<usize, Option<Finalize>>(known.unwrap_or(0)) }
}
