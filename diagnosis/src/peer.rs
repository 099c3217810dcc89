//! What nginx's round-robin bookkeeping says of a peer, and of a whole group.

use crate::record::PeerState;
use crate::seconds::Seconds;
use crate::slugs::slugs;

/// The fields of `ngx_http_upstream_rr_peer_t` that decide whether a peer may be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// `name`: the address as nginx prints it.
    pub name: String,
    /// `fails`.
    pub fails: u64,
    /// `max_fails`; 0 turns the accounting off.
    pub max_fails: u64,
    /// `fail_timeout`, seconds.
    pub fail_timeout: u64,
    /// `ngx_time() - checked`, seconds; negative when the clock was set back.
    pub since_checked: i64,
    /// `ngx_time() - accessed`, seconds: `accessed` is when nginx counted a failure of it last.
    pub since_accessed: i64,
    /// `down`.
    pub down: bool,
    /// The peer stands in the group's list of backup servers (`peers->next`).
    pub backup: bool,
    /// `weight`.
    pub weight: u64,
    /// `conns`: connections in use by this worker, by all workers with a `zone`.
    pub conns: u64,
    /// `max_conns`; 0 is no limit.
    pub max_conns: u64,
}

/// Whether nginx may choose a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may be chosen.
    Up,
    /// `max_fails` was reached less than `fail_timeout` ago.
    Unavailable,
    /// Marked `down`.
    Down,
    /// At `max_conns`.
    Busy,
}

slugs! {
    State, "state":
    Up = "up",
    Unavailable = "unavailable",
    Down = "down",
    Busy = "busy",
}

impl Peer {
    /// The conditions of `ngx_http_upstream_get_peer`, in its order.
    pub fn state(&self) -> State {
        if self.down {
            State::Down
        } else if self.unavailable_for().is_some() {
            State::Unavailable
        } else if self.max_conns > 0 && self.conns >= self.max_conns {
            State::Busy
        } else {
            State::Up
        }
    }

    /// For how long still nginx will not choose it, seconds.
    fn unavailable_for(&self) -> Option<u64> {
        let reached = self.max_fails > 0 && self.fails >= self.max_fails;
        let timeout = i64::try_from(self.fail_timeout).unwrap_or(i64::MAX);
        // nginx compares with "<=", so a peer is out during the second of its fail_timeout too.
        (reached && self.since_checked <= timeout)
            .then(|| timeout.saturating_sub(self.since_checked).max(0).unsigned_abs())
    }

    /// How long ago nginx counted a failure of it last.
    pub fn counted(&self) -> Seconds {
        Seconds::Whole(self.since_accessed.max(0).unsigned_abs())
    }

    /// As it is written into a record.
    pub fn report(&self) -> PeerState {
        PeerState {
            state: self.state(),
            fails: self.fails,
            max_fails: self.max_fails,
            fail_timeout: Seconds::Whole(self.fail_timeout),
            unavailable_for: self.unavailable_for().map(Seconds::Whole),
            down: self.down,
            backup: self.backup,
            weight: self.weight,
            conns: self.conns,
            max_conns: self.max_conns,
        }
    }
}

/// What a group could take when nginx found no peer in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// At least one peer was kept from being chosen by nothing but its `max_conns`.
    Full,
    /// No peer was waiting only for a connection to end.
    None,
}

/// Tells a group that is full from one that is dead.
pub fn capacity(peers: &[Peer]) -> Capacity {
    // A peer that is still up was tried by this request already (max_fails=0, or not reached):
    // had it been free to take, nginx would have taken it. It says nothing of the group.
    if peers.iter().any(|peer| peer.state() == State::Busy) {
        Capacity::Full
    } else {
        Capacity::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { max_fails: 1, fail_timeout: 10, weight: 1, since_checked: 3, ..Peer::default() }
    }

    #[test]
    fn states_follow_nginx() {
        assert_eq!(peer().state(), State::Up);
        let out = Peer { fails: 1, ..peer() };
        assert_eq!(out.state(), State::Unavailable);
        assert_eq!(out.report().unavailable_for, Some(Seconds::Whole(7)));
        assert_eq!(Peer { since_checked: 10, ..out.clone() }.state(), State::Unavailable);
        assert_eq!(Peer { since_checked: 11, ..out.clone() }.state(), State::Up);
        assert_eq!(Peer { down: true, ..out.clone() }.state(), State::Down);
        assert_eq!(Peer { max_fails: 0, ..out }.state(), State::Up);
        assert_eq!(Peer { max_conns: 2, conns: 2, ..peer() }.state(), State::Busy);
        assert_eq!(Peer { max_conns: 2, conns: 1, ..peer() }.state(), State::Up);
    }

    #[test]
    fn a_full_group_is_told_from_a_dead_one() {
        let busy = Peer { max_conns: 1, conns: 1, ..peer() };
        let out = Peer { fails: 1, ..peer() };
        assert_eq!(capacity(&[busy.clone(), out.clone()]), Capacity::Full);
        assert_eq!(capacity(std::slice::from_ref(&out)), Capacity::None);
        assert_eq!(capacity(&[busy, peer()]), Capacity::Full);
        assert_eq!(capacity(&[]), Capacity::None);
    }

    /// The clock may be set back: no underflow, no century out of rotation.
    #[test]
    fn a_clock_set_back_is_survived() {
        let peer = Peer { fails: 1, since_checked: i64::MIN, ..peer() };
        assert_eq!(peer.state(), State::Unavailable);
    }
}
