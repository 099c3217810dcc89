use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::seconds::Seconds;
use crate::zone::Layout;

struct Owned {
    head: Head,
    peers: Vec<PeerSlot>,
    upstreams: Vec<UpstreamSlot>,
    indexes: [Vec<AtomicU32>; 2],
    steps: Vec<Step>,
}

impl Owned {
    fn new(peers: usize) -> Owned {
        let layout = Layout { peers, ring: 0 };
        let index = |places| (0..places).map(|_| AtomicU32::new(0)).collect();
        let owned = Owned {
            head: Head::default(),
            peers: (0..layout.peer_slots()).map(|_| PeerSlot::default()).collect(),
            upstreams: (0..layout.upstream_slots()).map(|_| UpstreamSlot::default()).collect(),
            indexes: [index(layout.peer_index()), index(layout.upstream_index())],
            steps: (0..layout.steps()).map(|_| Step::default()).collect(),
        };
        owned.head.begin(&layout, [1, 2]);
        owned.memory().begin(0);
        owned
    }

    fn memory(&self) -> Memory<'_> {
        let parts = Parts {
            peers: &self.peers,
            upstreams: &self.upstreams,
            peer_index: &self.indexes[0],
            upstream_index: &self.indexes[1],
            steps: &self.steps,
        };
        Memory::new(&self.head, parts)
    }
}

/// Counts an attempt the way the module does: looked up, and added where that finds nothing.
fn count(memory: Memory<'_>, upstream: &str, peer: &str, attempted: Attempted, now: u64) {
    let (upstream, peer) = (upstream.as_bytes(), peer.as_bytes());
    let place = memory.find(upstream, peer).or_else(|| memory.add(upstream, peer, now));
    place.unwrap().count(memory.head(), attempted, now);
}

/// Names of upstreams and peers with the numbers of their attempts.
fn shown(memory: Memory<'_>) -> Vec<(String, String, u64)> {
    let read = memory.read(0, 0);
    let peers = |upstream: Upstream| {
        let name = upstream.name;
        upstream
            .peers
            .into_iter()
            .map(move |peer| (name.clone(), peer.peer.unwrap_or_default(), peer.history.requests()))
    };
    read.all.into_iter().flat_map(peers).collect()
}

fn entry(upstream: &str, peer: &str, requests: u64) -> (String, String, u64) {
    (upstream.to_owned(), peer.to_owned(), requests)
}

#[test]
fn every_configured_peer_is_there_from_the_start() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    memory
        .configure(&[("app", vec!["10.0.0.1:80", "10.0.0.2:80"]), ("db", vec!["unix:/run/db"])], 5);
    let wanted = [
        entry("app", "10.0.0.1:80", 0),
        entry("app", "10.0.0.2:80", 0),
        entry("db", "unix:/run/db", 0),
    ];
    assert_eq!(shown(memory), wanted);
    assert_eq!(memory.read(0, 0).peers, Usage { used: 3, limit: 16 });
    count(memory, "app", "10.0.0.2:80", Attempted::Ok, 9);
    assert_eq!(shown(memory)[1], entry("app", "10.0.0.2:80", 1));
}

/// Guards against counts that are lost by a reload, and against peers that stay for ever.
#[test]
fn a_reload_keeps_what_is_configured() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    let configure = |peers: &[&str]| memory.configure(&[("app", peers.to_vec())], 1);
    configure(&["a", "b"]);
    for peer in ["a", "b", "b"] {
        count(memory, "app", peer, Attempted::Ok, 2);
    }
    configure(&["b", "c"]);
    assert_eq!(shown(memory), [entry("app", "b", 2), entry("app", "c", 0)]);
    // A worker of the configuration before ends its requests.
    count(memory, "app", "a", Attempted::Ok, 3);
    configure(&["a"]);
    assert_eq!(shown(memory), [entry("app", "a", 2)]);
    // What nothing names any more gives way when there is no other room.
    let many: Vec<String> = (0..16).map(|n| format!("n{n}")).collect();
    configure(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(shown(memory).len(), 16);
    for round in 0..200 {
        let names: Vec<String> = (0..16).map(|n| format!("{round}.{n}")).collect();
        configure(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(shown(memory).len(), 16, "{round}");
    }
}

/// Guards against names that clients make up pushing out those of the configuration, and against
/// attempts that are not counted at all.
#[test]
fn past_capacity_there_is_other() {
    let owned = Owned::new(8);
    let memory = owned.memory();
    memory.configure(&[("app", vec!["0", "1", "2", "3"])], 1);
    for n in 0..100 {
        count(memory, "app", &format!("run time {n}"), Attempted::Ok, 10 + n);
        count(memory, &format!("host {n}"), "10.0.0.1:80", Attempted::Ok, 10 + n);
        count(memory, "app", "", Attempted::Failed(Cause::NoLiveUpstreams), 10 + n);
        count(memory, "app", "0", Attempted::Ok, 10 + n);
    }
    let all = shown(memory);
    let sum: u64 = all.iter().map(|(_, _, requests)| requests).sum();
    assert_eq!(sum, 400);
    assert!(
        all.contains(&entry("app", "0", 100)) && all.contains(&entry("app", "", 100)),
        "{all:?}"
    );
    let others = all.iter().filter(|(_, peer, _)| peer == OTHER);
    assert_eq!(others.map(|(_, _, n)| n).sum::<u64>(), memory.read(0, 0).dropped.peers);
    // An hour later those of the run time have not been used: they give way.
    let later = 1_000 + KEPT;
    count(memory, "app", "new", Attempted::Ok, later);
    assert!(shown(memory).contains(&entry("app", "new", 1)));
    assert!(shown(memory).contains(&entry("app", "3", 0)));
}

/// Guards against a full table in which a new group takes over what another had, counts and all.
#[test]
fn a_reload_of_a_full_table_moves_nothing() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    let names: Vec<String> = (1..=16).map(|n| format!("a{n:02}")).collect();
    let groups = |names: &[&str]| -> Vec<(String, Vec<&'static str>)> {
        names.iter().map(|name| ((*name).to_owned(), vec!["10.0.0.1:80"])).collect()
    };
    let configure = |names: &[&str]| {
        let groups = groups(names);
        let groups: Vec<_> = groups.iter().map(|(n, p)| (n.as_str(), p.clone())).collect();
        memory.configure(&groups, 1)
    };
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    configure(&all);
    for (at, name) in all.iter().enumerate() {
        (0..=at).for_each(|_| count(memory, name, "10.0.0.1:80", Attempted::Ok, 2));
    }
    let old = memory.find(b"a16", b"10.0.0.1:80").unwrap();
    let with_b: Vec<&str> = std::iter::once("b").chain(all[..15].iter().copied()).collect();
    configure(&with_b);
    let mut left = shown(memory);
    left.sort();
    let mut wanted: Vec<_> =
        (1..=15).map(|n| entry(&format!("a{n:02}"), "10.0.0.1:80", n)).collect();
    wanted.push(entry("b", "10.0.0.1:80", 0));
    assert_eq!(left, wanted);
    // A worker of before does not count its last requests with another's.
    assert!(!old.holds(b"10.0.0.1:80"));
}

/// Guards against a peer that is in use being shown no more because a configuration of before
/// named it.
#[test]
fn what_is_in_use_is_shown() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    memory.configure(&[("app", vec!["a"])], 1);
    memory.configure(&[("app", vec!["b"])], 1);
    assert_eq!(shown(memory), [entry("app", "b", 0)]);
    let place = memory.find(b"app", b"a").unwrap();
    place.count(memory.head(), Attempted::Ok, 2);
    memory.revive(place);
    assert_eq!(shown(memory), [entry("app", "a", 1), entry("app", "b", 0)]);
}

/// Guards against names that clients make up, with nothing but failures to resolve them, taking
/// the places for good.
#[test]
fn made_up_names_give_way() {
    let owned = Owned::new(8);
    let memory = owned.memory();
    for n in 0..500 {
        count(memory, &format!("{n}.example"), "", Attempted::Failed(Cause::DnsNotFound), n);
    }
    memory.configure(&[("app", vec!["a", "b"])], 1_000);
    let all = shown(memory);
    assert!(all.contains(&entry("app", "a", 0)) && all.contains(&entry("app", "b", 0)), "{all:?}");
    for n in 0..200 {
        count(memory, "app", &format!("p{n}"), Attempted::Ok, 2_000 + n);
        count(memory, &format!("u{n}"), "", Attempted::Ok, 2_000 + n);
    }
    // And they come back to their own when there is room.
    count(memory, "app", "fresh", Attempted::Ok, 10_000 + KEPT);
    assert!(shown(memory).contains(&entry("app", "fresh", 1)));
}

/// Guards against a worker that was killed while it changed a table leaving peers twice.
#[test]
fn a_killed_worker_leaves_no_peer_twice() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    for n in 0..10 {
        count(memory, "app", &format!("p{n}"), Attempted::Ok, 1);
    }
    owned.indexes[0].iter().for_each(|place| place.store(0, Relaxed));
    memory.peers.remove(|_, _| false);
    owned.indexes[0].iter().skip(3).for_each(|place| place.store(0, Relaxed));
    // As rebuild() leaves it half way.
    owned.head.peers_state.set_unfinished();
    for n in 0..10 {
        count(memory, "app", &format!("p{n}"), Attempted::Ok, 2);
    }
    let wanted: Vec<_> = (0..10).map(|n| entry("app", &format!("p{n}"), 2)).collect();
    assert_eq!(shown(memory), wanted);
}

/// Guards against workers that count into each other's peers, or lose counts, while others add.
#[test]
fn many_at_once() {
    let owned = Owned::new(300);
    let memory = owned.memory();
    let lock = Mutex::new(());
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let lock = &lock;
            scope.spawn(move || {
                for n in 0..20_000_u64 {
                    let (upstream, peer) =
                        (format!("u{}", n % 7), format!("p{}", (n + worker) % 40));
                    let (upstream, peer) = (upstream.as_bytes(), peer.as_bytes());
                    let place = memory.find(upstream, peer).or_else(|| {
                        let _guard = lock.lock().unwrap();
                        memory.add(upstream, peer, n)
                    });
                    let place = place.unwrap();
                    assert!(place.holds(peer));
                    place.count(memory.head(), Attempted::Ok, n);
                    place.upstream.count_connect(n % 3);
                    memory.head().count_request();
                }
            });
        }
    });
    let read = memory.read(0, 0);
    assert_eq!(read.totals.requests, 80_000);
    assert_eq!(shown(memory).iter().map(|(_, _, n)| n).sum::<u64>(), 80_000);
    assert_eq!(read.all.iter().map(|upstream| upstream.connect.count()).sum::<u64>(), 80_000);
    assert_eq!(shown(memory).len(), 280);
}

#[test]
fn records_are_counted_everywhere() {
    let owned = Owned::new(8);
    let memory = owned.memory();
    let verdict = (Outcome::Masked, Cause::ConnectionRefused);
    memory.count_record(Some("app"), verdict, 5, 1_800_000_000);
    memory.count_record(None, (Outcome::Failed, Cause::LocalReturn), 5, 1_800_000_000);
    let read = memory.read(5, 1_800_000_000);
    let of = |name: &str| read.all.iter().find(|upstream| upstream.name == name).unwrap();
    assert_eq!(of("app").outcomes[Outcome::Masked.index()], 1);
    assert_eq!(of("").outcomes[Outcome::Failed.index()], 1);
    assert_eq!(read.totals.outcomes.iter().sum::<u64>(), 2);
    assert_eq!(read.totals.causes[Cause::LocalReturn.index()], 1);
    assert_eq!(read.timeline.causes.len(), 2);
}

#[test]
fn long_and_strange_names_are_peers_of_their_own() {
    let owned = Owned::new(16);
    let memory = owned.memory();
    let long = |last: &str| format!("{}{last}", "x".repeat(300));
    for (upstream, peer) in
        [(long("a"), long("b")), (long("c"), long("d")), ("u".into(), long("e"))]
    {
        for _ in 0..3 {
            count(memory, &upstream, &peer, Attempted::Ok, 1);
        }
    }
    let counts: HashMap<_, _> = shown(memory).into_iter().map(|(u, p, n)| ((u, p), n)).collect();
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|n| *n == 3));
    let place = memory.add(b"u", b"\xff\xfe", 1).unwrap();
    assert!(std::ptr::eq(memory.find(b"u", b"\xff\xfe").unwrap().peer, place.peer));
}

/// Guards against memory of another kind, or damaged, taking a worker down.
#[test]
fn nonsense_is_survived() {
    let owned = Owned::new(8);
    for slot in &owned.peers {
        slot.count(Attempted::Failed(Cause::Unknown), u64::MAX);
    }
    owned.head.begin(&Layout { peers: usize::MAX, ring: usize::MAX }, [0, 0]);
    owned.indexes.iter().flatten().for_each(|place| place.store(77, Relaxed));
    let memory = owned.memory();
    let _ = memory.add(b"a", b"b", 0);
    let _ = memory.read(0, 0);
    assert_eq!(owned.peers[0].history(0).last_failed, Some(Seconds::Millis(0)));
}
