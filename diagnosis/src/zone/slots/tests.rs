use super::*;
use crate::zone::{Head, Layout, Memory, Parts};

#[test]
fn attempts_are_counted() {
    let peer = PeerSlot::default();
    assert_eq!(
        peer.history(5),
        History { causes: vec![0; Cause::ALL.len()], ..History::default() }
    );
    peer.count(Attempted::Ok, 1_000);
    peer.count(Attempted::Failed(Cause::ConnectionRefused), 2_000);
    peer.count(Attempted::Failed(Cause::ResponseTimedOut), 3_000);
    peer.count(Attempted::Aborted, 3_500);
    let history = peer.history(4_000);
    assert_eq!((history.ok, history.failed, history.aborted), (1, 2, 1));
    assert_eq!(history.last_ok, Some(Seconds::Millis(3_000)));
    assert_eq!(history.last_failed, Some(Seconds::Millis(1_000)));
    assert_eq!(history.last_cause, Some(Cause::ResponseTimedOut));
    assert_eq!(history.consecutive_failures, 2);
    assert_eq!(history.causes[Cause::ConnectionRefused.index()], 1);
    peer.count(Attempted::Ok, 4_000);
    assert_eq!(peer.history(4_000).consecutive_failures, 0);
}

/// Guards against a later failure, of a request that was under way, being taken for what put
/// the peer out.
#[test]
fn the_first_failure_took_it_out() {
    let peer = PeerSlot::default();
    peer.took_out(Cause::ConnectionRefused, 10, 1_000);
    peer.took_out(Cause::ResponseTimedOut, 10, 3_000);
    let out = |now| peer.history(now).taken_out.unwrap();
    assert_eq!(
        out(4_000),
        TakenOut { cause: Cause::ConnectionRefused, ago: Seconds::Millis(3_000) }
    );
    peer.took_out(Cause::ResponseTimedOut, 10, 12_000);
    assert_eq!(out(12_000), TakenOut { cause: Cause::ResponseTimedOut, ago: Seconds::Millis(0) });
}

#[test]
fn a_cleared_slot_is_like_a_new_one() {
    let peer = named();
    peer.count(Attempted::Ok, 1);
    peer.count(Attempted::Failed(Cause::Unknown), 1);
    peer.took_out(Cause::Unknown, 1, 1);
    peer.count(Attempted::Aborted, 1);
    down(&peer, 2);
    peer.count(Attempted::Accepted { took: 0 }, 3);
    down(&peer, 4);
    for close in [Close::Idle(2_000), Close::Waiting(2_000)] {
        closed(&peer, close, 5_000);
    }
    assert_ne!(peer.past(9_000), PeerSlot::default().past(9_000));
    peer.clear();
    assert_eq!(peer.history(9), PeerSlot::default().history(9));
    assert_eq!(peer.past(9_000), PeerSlot::default().past(9_000));
}

/// A slot with a name.
fn called(name: &[u8]) -> PeerSlot {
    let (mut peers, upstreams) = (vec![PeerSlot::default()], [UpstreamSlot::default()]);
    let index = || [const { AtomicU32::new(0) }; 4];
    let (head, peer_index, upstream_index) = (Head::default(), index(), index());
    head.begin(&Layout { peers: 1, ring: 0 }, [1, 2]);
    let parts = Parts {
        peers: &peers,
        upstreams: &upstreams,
        peer_index: &peer_index,
        upstream_index: &upstream_index,
        steps: &[],
    };
    Memory::new(&head, parts).add(b"app", name, 0).unwrap();
    peers.remove(0)
}

/// A slot that has a name of its own, as those of peers have.
fn named() -> PeerSlot {
    called(b"10.0.3.7:8080")
}

fn noted(peer: &PeerSlot, cause: Cause, close: Option<Close>, now: u64) {
    peer.count(Attempted::Failed(cause), now);
    peer.note_failure(&Noted { cause, at: now, close });
}

fn down(peer: &PeerSlot, now: u64) {
    noted(peer, Cause::ConnectionRefused, None, now);
}

fn closed(peer: &PeerSlot, close: Close, now: u64) {
    noted(peer, Cause::KeepaliveRace, Some(close), now);
}

#[test]
fn a_run_of_failures_is_known_from_its_start() {
    let peer = named();
    peer.count(Attempted::Ok, 1_000);
    assert_eq!(peer.past(9_000).failing_for, None);
    noted(&peer, Cause::ResponseTimedOut, None, 2_000);
    down(&peer, 3_000);
    let past = peer.past(9_000);
    assert_eq!((past.failures, past.failing_for, past.last_ok), (2, Some(7_000), Some(8_000)));
    peer.count(Attempted::Ok, 9_000);
    let past = peer.past(9_000);
    assert_eq!((past.failures, past.failing_for, past.last_ok), (0, None, Some(0)));
}

/// Guards against a peer that is slow to start, or has answered, being called stale.
#[test]
fn connections_of_a_peer_that_never_answered() {
    let peer = named();
    noted(&peer, Cause::ResponseTimedOut, None, 2_000);
    down(&peer, 3_000);
    let connections = |now| {
        let past = peer.past(now);
        (peer.may_be_stale(now), past.reached, past.not_reached)
    };
    assert_eq!(connections(STALE - 1), (false, 0, 0));
    assert_eq!(connections(STALE), (true, 1, 1));
    peer.count(Attempted::Ok, 20_000);
    assert_eq!(connections(30_000), (false, 0, 0));
}

/// Guards against an outage that is taken for over because of what a process that is told to stop
/// still answers, on old connections and to requests that were under way.
#[test]
fn only_a_new_connection_ends_an_outage() {
    let peer = named();
    down(&peer, 10_000);
    for late in [Attempted::Ok, Attempted::Reused { took: 5 }, Attempted::Accepted { took: 2_001 }]
    {
        peer.count(late, 12_000);
        assert!(peer.past(12_000).outage.is_some(), "{late:?}");
    }
    peer.count(Attempted::Accepted { took: 1_500 }, 13_000);
    let past = peer.past(20_000);
    assert_eq!((past.outage, past.outages.len()), (None, 1));
    assert_eq!((past.outages[0].from, past.outages[0].to), (10_000, 8_500));
}

/// Guards against a failure that is noted late, at the end of a request that went on for long on
/// another peer, being taken for a new outage.
#[test]
fn a_failure_before_the_last_answer_is_over() {
    let peer = named();
    peer.count(Attempted::Accepted { took: 1 }, 10_000);
    peer.count(Attempted::Failed(Cause::ConnectionRefused), 20_000);
    peer.note_failure(&Noted { cause: Cause::ConnectionRefused, at: 9_000, close: None });
    let past = peer.past(20_000);
    assert_eq!((past.outage, past.failing_for, past.failures), (None, None, 1));
}

#[test]
fn ages_are_kept_apart() {
    let peer = named();
    closed(&peer, Close::Idle(5_000), 10_000);
    closed(&peer, Close::Waiting(2_000), 20_000);
    closed(&peer, Close::Waiting(2_010), 30_000);
    let past = peer.past(40_000);
    assert_eq!((past.idle.total, past.waiting.total), (1, 2));
    assert_eq!(past.idle.clusters[0].mean, 5_000);
    assert_eq!((past.waiting.clusters[0].from, past.waiting.clusters[0].to), (2_000, 2_010));
}

/// Guards against an age being taken for a timeout that connections have outlived.
#[test]
fn connections_that_outlive_others() {
    let peer = named();
    let used = |idle: u64, now: u64| {
        peer.count(Attempted::Ok, now - idle - 10);
        peer.count(Attempted::Reused { took: 10 }, now);
    };
    used(5_000, 10_000);
    closed(&peer, Close::Idle(5_000), 20_000);
    assert_eq!(peer.past(20_000).outlived, 1);
    // What was seen before that close says nothing of the next.
    closed(&peer, Close::Idle(5_000), 30_000);
    assert_eq!((peer.past(30_000).outlived, peer.past(30_000).idle.latest), (1, 2));
    used(4_999, 40_000);
    closed(&peer, Close::Idle(5_000), 50_000);
    assert_eq!(peer.past(50_000).outlived, 1);
    // A failed attempt may have been the last use of that connection.
    peer.count(Attempted::Ok, 60_000);
    noted(&peer, Cause::UpstreamResponse, None, 64_000);
    peer.count(Attempted::Reused { took: 0 }, 66_000);
    closed(&peer, Close::Idle(5_000), 70_000);
    assert_eq!(peer.past(70_000).outlived, 1);
    // Only of the latest it is known.
    (0..20).for_each(|n| closed(&peer, Close::Idle(5_000), 80_000 + n * 200));
    assert_eq!((peer.past(90_000).outlived, peer.past(90_000).idle.latest), (0, 16));
}

/// Guards against the peers without a place of their own having one history.
#[test]
fn what_stands_for_others_has_no_history() {
    for peer in [called(crate::zone::OTHER.as_bytes()), called(b"")] {
        noted(&peer, Cause::ConnectionRefused, Some(Close::Waiting(2_000)), 1_000);
        let past = peer.past(2_000);
        assert_eq!((past.outage, past.waiting.total, past.failing_for), (None, 0, None));
    }
}
