//! Upstreams and peers whose names are alike.
//!
//! Names can come from a client (`proxy_pass http://$arg_x`), and they are cut to the room there
//! is for them: two can come out alike. Neither the document nor the metrics may have one name
//! twice, so what has the same name is added up.

use std::collections::BTreeMap;

use super::{Histogram, History, PeerStatus, Upstream};
use crate::peer::State;

/// The upstreams, each name once, and in each its peers, each name once. `name` makes the name
/// that is written of the one that is known.
pub(crate) fn distinct(upstreams: &[Upstream], name: impl Fn(&str) -> String) -> Vec<Upstream> {
    let renamed = upstreams.iter().map(|upstream| {
        let mut upstream = upstream.clone();
        upstream.name = name(&upstream.name);
        for peer in &mut upstream.peers {
            // An empty name is none: the two would be one in a label.
            peer.peer = peer.peer.as_deref().filter(|name| !name.is_empty()).map(&name);
        }
        upstream
    });
    let mut united = unite(renamed, |upstream| upstream.name.clone(), Upstream::add);
    for upstream in &mut united {
        let peers = std::mem::take(&mut upstream.peers);
        upstream.peers = unite(peers, |peer| peer.peer.clone(), PeerStatus::add);
    }
    united
}

/// The items in their order, those of one key made one.
fn unite<T, K: Ord>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
    add: impl Fn(&mut T, T),
) -> Vec<T> {
    let mut united: Vec<T> = Vec::new();
    let mut places = BTreeMap::new();
    for item in items {
        let place = *places.entry(key(&item)).or_insert(united.len());
        match united.get_mut(place) {
            Some(same) => add(same, item),
            None => united.push(item),
        }
    }
    united
}

impl Upstream {
    fn add(&mut self, other: Upstream) {
        add(&mut self.outcomes, &other.outcomes);
        self.connect.add(&other.connect);
        self.header.add(&other.header);
        self.peers.extend(other.peers);
    }
}

impl Histogram {
    fn add(&mut self, other: &Histogram) {
        if self.bounds.is_empty() {
            self.bounds = other.bounds;
        }
        add(&mut self.counts, &other.counts);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

impl PeerStatus {
    fn add(&mut self, other: PeerStatus) {
        // The address can be chosen as long as one of its servers can.
        if self.state.is_none() || other.state == Some(State::Up) {
            self.state = other.state;
            self.unavailable_for = other.unavailable_for;
        }
        self.backup &= other.backup;
        self.history.add(&other.history);
    }
}

impl History {
    fn add(&mut self, other: &History) {
        self.ok = self.ok.saturating_add(other.ok);
        self.failed = self.failed.saturating_add(other.failed);
        self.aborted = self.aborted.saturating_add(other.aborted);
        add(&mut self.causes, &other.causes);
        self.last_ok = self.last_ok.into_iter().chain(other.last_ok).min();
        let newer = match (self.last_failed, other.last_failed) {
            (Some(this), Some(that)) => that < this,
            (this, _) => this.is_none(),
        };
        if newer {
            self.last_failed = other.last_failed;
            self.last_cause = other.last_cause;
        }
        self.consecutive_failures = self.consecutive_failures.max(other.consecutive_failures);
        self.taken_out = self.taken_out.or(other.taken_out);
    }
}

fn add(counts: &mut Vec<u64>, others: &[u64]) {
    counts.resize(counts.len().max(others.len()), 0);
    for (count, other) in counts.iter_mut().zip(others) {
        *count = count.saturating_add(*other);
    }
}
