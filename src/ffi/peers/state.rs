//! What nginx keeps of single peers.

use diagnosis::peer::Peer;
use nginx_sys::ngx_http_upstream_rr_peer_t;

use super::{MOST, Numbers, PeerAt, address, find, list};
use crate::ffi::string;
use crate::ffi::upstream::Upstream;
use crate::record::SPREAD;

/// What nginx keeps of a peer now, if it is one that stays where it is for as long as its
/// configuration. A group has any number of peers: such a one is not looked for among them.
pub(crate) fn fixed_state(upstream: Upstream<'_>, at: PeerAt) -> Option<Peer> {
    let servers = list(upstream)?;
    upstream.main_conf().filter(|main| main.groups.has_fixed(upstream.group_at(), at))?;
    let same = |peer: &ngx_http_upstream_rr_peer_t| (address(peer) == at).then_some(());
    // SAFETY: one of the group's own peers, which nobody but this worker has, and a list of
    // nginx's. Backup servers are few.
    let (numbers, backup) = unsafe {
        let peer = &*(at.0 as *const ngx_http_upstream_rr_peer_t);
        (Numbers::of(peer), find((*servers).next, usize::MAX, same).is_some())
    };
    Some(numbers.into_peer(String::new(), backup))
}

/// As [`fixed_state`], of peers by their names, in the order in which they are given. All are
/// looked for together.
pub(crate) fn states(upstream: Upstream<'_>, names: &[&str]) -> Vec<Option<Peer>> {
    struct Wanted<'n> {
        end: u64,
        name: &'n [u8],
        found: Option<(Numbers, bool)>,
    }
    // Most names differ in their ends, which are compared sooner.
    let end = |name: &[u8]| name.last_chunk().copied().map_or(0, u64::from_ne_bytes);
    let wanted = names.iter().map(|name| name.as_bytes());
    let mut wanted: Vec<Wanted<'_>> =
        wanted.map(|name| Wanted { end: end(name), name, found: None }).collect();
    wanted.sort_unstable_by_key(|wanted| (wanted.end, wanted.name));
    let mut left = wanted.len();
    // One of 64 bits for each end, by which most peers are told to be none of these.
    let bit = |end: u64| 1_u64 << (end.wrapping_mul(SPREAD) >> 58);
    let any = wanted.iter().fold(0, |any, wanted| any | bit(wanted.end));
    let mut look = |peer: &ngx_http_upstream_rr_peer_t, backup: bool| {
        // SAFETY: the name lives as long as the peer.
        let (name, numbers) = (unsafe { string::bytes(&peer.name) }, || Numbers::of(peer));
        let end = end(name);
        if any & bit(end) == 0 {
            return None;
        }
        let from = wanted.partition_point(|wanted| wanted.end < end);
        let alike = wanted.iter_mut().skip(from).take_while(|wanted| wanted.end == end);
        for wanted in alike.filter(|wanted| wanted.name == name && wanted.found.is_none()) {
            wanted.found = Some((numbers(), backup));
            left = left.saturating_sub(1);
        }
        (left == 0).then_some(())
    };
    if let Some(servers) = list(upstream) {
        // SAFETY: lists that nginx made.
        unsafe {
            let all = find(servers, MOST, |peer| look(peer, false));
            all.or_else(|| find((*servers).next, MOST, |peer| look(peer, true)));
        }
        super::shared::look_up(upstream);
    }
    let found = |name: &&str| {
        let name = (end(name.as_bytes()), name.as_bytes());
        // Of several with this name, all have the same.
        let at = wanted.binary_search_by(|wanted| (wanted.end, wanted.name).cmp(&name)).ok()?;
        let (numbers, backup) = wanted.get(at)?.found?;
        Some(numbers.into_peer(String::new(), backup))
    };
    names.iter().map(found).collect()
}
