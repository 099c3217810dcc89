use super::*;

fn counted(ages: impl IntoIterator<Item = u64>) -> Closes {
    let kept = Ages::default();
    for (now, age) in (0..).step_by(1_000).zip(ages) {
        assert_eq!(kept.count(age, now, 3), 1);
    }
    kept.read()
}

/// Guards against an interval that cannot be read back, at the limits too.
#[test]
fn words_hold_a_cluster() {
    for from in [SHORTEST, 5_000, Packed::MOST] {
        for width in [0, WIDTH, Packed::MOST / 8] {
            for count in [1, 216, Packed::MOST_COUNTED] {
                let packed = Packed { from, width, count };
                assert_eq!(Packed::of(packed.word()), Some(packed));
            }
        }
    }
    assert_eq!(Packed::of(0), None);
    let full = Packed { count: Packed::MOST_COUNTED, ..Packed::begin(5_000) };
    assert_eq!(full.with(5_000), Some(full));
}

/// Guards against a timeout that is lost among closes at other ages, before it and after.
#[test]
fn a_timeout_is_kept_among_others() {
    let noise = (0..40).map(|n| 1_000 + n * 1_313);
    let timeout = [4_990, 5_000, 5_010, 5_004].into_iter().cycle();
    let ages = noise.clone().zip(timeout).flat_map(|(noise, age)| [noise, age, age]);
    let read = counted(noise.chain(ages));
    assert_eq!((read.total, read.latest), (160, 16));
    let largest = read.clusters.iter().max_by_key(|cluster| cluster.count).unwrap();
    assert!((4_800..=5_010).contains(&largest.from), "{largest:?}");
    assert!((5_010..=5_300).contains(&largest.to), "{largest:?}");
    assert!((4_990..=5_010).contains(&largest.mean), "{largest:?}");
    // A few are lost while it is one of many.
    assert!((70..=83).contains(&largest.count) && largest.latest >= 10, "{largest:?}");
}

/// Guards against a change of the timeout that is told of only when most closes ever were at
/// the new one.
#[test]
fn the_latest_are_known_in_their_order() {
    let read = counted([5_000; 200].into_iter().chain([20_000; 14]));
    let at = |age| *read.clusters.iter().find(|cluster| cluster.from == age).unwrap();
    assert_eq!((at(5_000).count, at(5_000).latest), (200, 2));
    assert_eq!((at(20_000).count, at(20_000).latest), (14, 14));
}

/// Guards against the closes of a cluster that was given up being counted as those of what
/// took its place.
#[test]
fn what_is_given_up_is_forgotten() {
    let read = counted((10..22).map(|n| 1 << n));
    assert_eq!((read.total, read.latest, read.clusters.len()), (12, 12, CLUSTERS));
    assert!(read.clusters.iter().all(|cluster| (cluster.count, cluster.latest) == (1, 1)));
    assert_eq!(read.clusters.iter().map(|cluster| cluster.from).max(), Some(1 << 21));
}

#[test]
fn what_is_too_short_or_too_long_is_only_counted() {
    let read = counted([0, SHORTEST - 1, Packed::MOST + 1, u64::MAX]);
    assert_eq!(read, Closes { total: 4, latest: 4, clusters: vec![] });
}

/// Guards against one crash being taken for many, because it closed many connections.
#[test]
fn closes_at_once_are_one_event() {
    let kept = Ages::default();
    let numbers: Vec<u64> = (0..12).map(|n| kept.count(12_300, 50_000 + n * 9, 3)).collect();
    assert_eq!(numbers, [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let read = kept.read();
    assert_eq!((read.total, read.latest), (12, 3));
    assert_eq!((read.clusters[0].count, read.clusters[0].latest), (12, 3));
    // The next begins a tenth of a second after the first.
    assert_eq!(kept.count(12_300, 50_101, 3), 1);
    assert_eq!(kept.read().latest, 4);
}

/// Guards against nonsense where two workers write at once: a count may be lost, an age may
/// not be made up.
#[test]
fn workers_write_at_once() {
    let kept = Ages::default();
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let kept = &kept;
            scope.spawn(move || {
                for n in 0..5_000_u64 {
                    kept.count(
                        [5_000, 20_000, 60_000, 1_000 + (n * 7 + worker) % 60_000][n as usize % 4],
                        n * 101,
                        3,
                    );
                }
            });
        }
    });
    let read = kept.read();
    assert_eq!(read.total, 20_000);
    for Cluster { from, to, mean, .. } in &read.clusters {
        assert!(from <= mean && mean <= to && to - from <= WIDTH.max(from / 8), "{read:?}");
    }
    // Two may share an age, where others near it came first. Of those that come at any time some
    // are near it too.
    let ages = [5_000, 20_000, 60_000];
    let has = |cluster: &Cluster, age: u64| (cluster.from..=cluster.to).contains(&age);
    for age in ages {
        let counts = read.clusters.iter().filter(|cluster| has(cluster, age)).map(|c| c.count);
        assert!((4_500..6_000).contains(&counts.sum::<u64>()), "{age}: {read:?}");
    }
    let mut large = read.clusters.iter().filter(|cluster| cluster.count > 1_000);
    assert!(large.all(|cluster| ages.iter().any(|age| has(cluster, *age))), "{read:?}");
}
