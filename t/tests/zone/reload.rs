//! Other peers, other sizes, and configurations that nginx refuses.

use serde_json::json;
use t::{Conf, Gate, Nginx, RefusedPort, Signal, Upstream, diag, script};

use super::{EMPTY, SOON, counts, groups};

/// Asks a group so many times.
fn ask(nginx: &Nginx, name: &str, times: usize) {
    for _ in 0..times {
        nginx.get(&format!("/{name}"));
    }
}

/// Name of a group, and the counts of its peers.
type Group<'a> = (&'a str, &'a [(&'a str, [u64; 3])]);

/// Guards against counts that are lost with a reload, shown of peers that are not there any more,
/// or forgotten when those are back.
#[test]
fn peers_come_and_go() {
    let good = Upstream::tcp(script::ok("good"));
    let [dead, late] = [(); 2].map(|()| t::refused_port());
    let (good, dead, late) = (good.addr(), dead.addr(), late.addr());
    let conf = |all: &[(&str, &[&str])]| groups(all).http("upstream_diag_zone 1m;");
    let nginx = Nginx::start(conf(&[("u", &[&good]), ("v", &[&dead])]));
    let shown = |wanted: &[Group<'_>]| {
        let status = diag::status(&nginx);
        let names: Vec<_> = status["upstreams"].as_object().expect("upstreams").keys().collect();
        let mut expected: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (name, peers) in wanted {
            let peers: Vec<_> = peers.iter().map(|(peer, n)| ((*peer).to_owned(), *n)).collect();
            assert_eq!(counts(&status, name), peers, "{name}");
        }
        assert_eq!(nginx.error_log().matches(EMPTY).count(), 0);
    };
    ask(&nginx, "u", 3);
    ask(&nginx, "v", 2);
    let (three, two) = ([3, 0, 0], [0, 2, 0]);
    shown(&[("u", &[(&good, three)]), ("v", &[(&dead, two)])]);
    // The same.
    nginx.reload();
    shown(&[("u", &[(&good, three)]), ("v", &[(&dead, two)])]);
    // More: another peer, another upstream, and a known peer in another upstream.
    nginx.reload_with(conf(&[("u", &[&good]), ("v", &[&dead, &late]), ("w", &[&good])]));
    shown(&[
        ("u", &[(&good, three)]),
        ("v", &[(&dead, two), (&late, [0; 3])]),
        ("w", &[(&good, [0; 3])]),
    ]);
    ask(&nginx, "w", 1);
    // Fewer.
    nginx.reload_with(conf(&[("u", &[&good]), ("v", &[&late])]));
    shown(&[("u", &[(&good, three)]), ("v", &[(&late, [0; 3])])]);
    ask(&nginx, "v", 1);
    // Under another name.
    nginx.reload_with(conf(&[("x", &[&good]), ("v", &[&late])]));
    shown(&[("x", &[(&good, [0; 3])]), ("v", &[(&late, [0, 1, 0])])]);
    // Nothing but the status.
    nginx.reload_with(conf(&[]));
    shown(&[]);
    let status = diag::status(&nginx);
    assert_eq!(
        (&status["totals"]["requests"], &status["totals"]["failed"]),
        (&7.into(), &3.into())
    );
    assert_eq!(status["recent"].as_array().map(Vec::len), Some(3));
    // All back.
    nginx.reload_with(conf(&[("u", &[&good]), ("v", &[&late, &dead]), ("w", &[&good])]));
    let status = diag::status(&nginx);
    assert_eq!(counts(&status, "u"), [(good.clone(), three)]);
    assert_eq!(counts(&status, "w"), [(good.clone(), [1, 0, 0])]);
    let mut both = counts(&status, "v");
    both.sort_unstable();
    let mut wanted = [(dead.clone(), two), (late.clone(), [0, 1, 0])];
    wanted.sort_unstable();
    assert_eq!(both, wanted);
    // And counted on.
    ask(&nginx, "u", 1);
    assert_eq!(counts(&diag::status(&nginx), "u"), [(good.clone(), [4, 0, 0])]);
    diag::finish(&nginx);
}

/// Guards against a zone that is full of peers that are gone, and against their counts being
/// given to those that take their places.
#[test]
fn places_of_the_gone_are_taken_over() {
    let good: Vec<_> = (0..8).map(|_| Upstream::tcp(script::ok("good"))).collect();
    let addrs: Vec<String> = good.iter().map(Upstream::addr).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let conf = |name: &str, servers: &[&str]| {
        groups(&[(name, servers)]).http("upstream_diag_zone 1m peers=4;")
    };
    let nginx = Nginx::start(conf("a", &addrs[..4]));
    ask(&nginx, "a", 4);
    for (name, servers) in [("a", &addrs[4..]), ("b", &addrs[2..6]), ("c", &addrs[..4])] {
        nginx.reload_with(conf(name, servers));
        let zero: Vec<_> = servers.iter().map(|addr| ((*addr).to_owned(), [0; 3])).collect();
        let mut found = counts(&diag::status(&nginx), name);
        found.sort_unstable();
        let mut wanted = zero.clone();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{name}");
        ask(&nginx, name, 4);
        let status = diag::status(&nginx);
        assert!(counts(&status, name).iter().all(|(_, counts)| *counts == [1, 0, 0]), "{status:#}");
        assert_eq!(status["upstreams"].as_object().map(|all| all.len()), Some(1));
        assert_eq!(status["dropped"]["peers"], 0);
    }
    diag::finish(&nginx);
}

/// Guards against memory of one layout being read as of another, and against nobody being told
/// that it was begun anew.
#[test]
fn other_sizes_begin_anew() {
    let dead = t::refused_port();
    let conf = |zone: &str| groups(&[("u", &[dead.addr().as_str()])]).workers(2).http(zone);
    let nginx = Nginx::start(conf(""));
    let mut said = 0;
    for (zone, anew) in [
        ("upstream_diag_zone 2m;", false),
        ("upstream_diag_zone 1m;", true),
        ("upstream_diag_zone 1m peers=100;", true),
        ("upstream_diag_zone 1m peers=100;", false),
        ("upstream_diag_zone 1m peers=101;", true),
        ("upstream_diag_zone 1m events=100;", true),
        ("upstream_diag_zone 1m events=200;", true),
        ("upstream_diag_zone 1m events=200 peers=50;", true),
        ("upstream_diag_zone 2m events=200 peers=50;", true),
        ("upstream_diag_zone 2m peers=50 events=200;", false),
        ("", true),
    ] {
        ask(&nginx, "u", 1);
        t::eventually("the failure is counted", SOON, || {
            (diag::status(&nginx)["totals"]["failed"] != 0).then_some(())
        });
        let before = diag::status(&nginx)["totals"]["failed"].clone();
        let old = nginx.reload_with(conf(zone));
        nginx.wait_workers_gone(&old);
        said += usize::from(anew);
        let status = diag::status(&nginx);
        let wanted = if anew { json!(0) } else { before };
        assert_eq!(status["totals"]["failed"], wanted, "{zone}");
        let kept = status["recent"].as_array().map(Vec::len);
        assert_eq!(kept, wanted.as_u64().and_then(|n| usize::try_from(n).ok()), "{zone}");
        let log = nginx.error_log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(EMPTY)).collect();
        assert_eq!(lines.len(), said, "{zone}: {lines:#?}");
        assert!(lines.iter().all(|line| line.contains("[notice]")), "{lines:#?}");
    }
    nginx.stop();
}

/// A configuration that nginx refuses when it reads it, or when it is about to use it.
fn refused(dead: &RefusedPort, how: &str, zone: &str) -> Conf {
    let conf = groups(&[("other", &[dead.addr().as_str()])]).http(zone);
    match how {
        "syntax" => conf.http("nonsense;"),
        "host" => conf.http("upstream no { server host.invalid:1; }"),
        "log" => conf.http("upstream_diag_log /nowhere/diag.json;"),
        _ => conf.server("listen 192.0.2.1:80;"),
    }
}

/// Guards against a configuration that is not used changing what is counted, shown or said.
#[test]
fn a_reload_that_fails_changes_nothing() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let (good_addr, dead_addr) = (good.addr(), dead.addr());
    let conf =
        || groups(&[("u", &[&good_addr]), ("v", &[&dead_addr])]).http("upstream_diag_zone 1m;");
    for (how, error) in [
        ("syntax", "unknown directive \"nonsense\""),
        ("host", "host not found in upstream"),
        ("log", "open() \"/nowhere/diag.json\" failed"),
        ("listen", "bind() to 192.0.2.1:80 failed"),
    ] {
        for zone in ["upstream_diag_zone 1m;", "upstream_diag_zone 2m peers=10;"] {
            let nginx = Nginx::start(conf());
            ask(&nginx, "u", 2);
            ask(&nginx, "v", 1);
            let before = diag::status(&nginx);
            let workers = nginx.worker_pids();
            nginx.write_conf(refused(&dead, how, zone));
            nginx.allow_log("[emerg]");
            nginx.signal(Signal::HUP);
            nginx.wait_for_log(error, SOON);
            // Answered when the master is back in its loop.
            nginx.write_conf(conf());
            nginx.reopen(&[]);
            assert_eq!(nginx.worker_pids(), workers, "{how}");
            let after = diag::status(&nginx);
            for key in ["totals", "zone", "dropped", "recent"] {
                assert_eq!(after[key], before[key], "{how} {zone}: {key}");
            }
            ask(&nginx, "u", 1);
            ask(&nginx, "v", 1);
            let status = diag::status(&nginx);
            assert_eq!(counts(&status, "u"), [(good_addr.clone(), [3, 0, 0])], "{how}");
            assert_eq!(counts(&status, "v"), [(dead_addr.clone(), [0, 2, 0])], "{how}");
            assert_eq!(status["upstreams"].as_object().map(|all| all.len()), Some(2));
            // The next one that succeeds goes on from there.
            let old = nginx.reload();
            nginx.wait_workers_gone(&old);
            let status = diag::status(&nginx);
            assert_eq!(counts(&status, "u"), [(good_addr.clone(), [3, 0, 0])], "{how}");
            assert_eq!(status["recent"].as_array().map(Vec::len), Some(2));
            // Nothing began anew, so nothing of the kind is said.
            assert!(!nginx.error_log().contains(EMPTY), "{how} {zone}");
            nginx.stop();
        }
    }
}

/// Guards against what the workers of the old configuration still do being lost, or counted with
/// a peer of the new one.
#[test]
fn old_workers_go_on_counting() {
    let gate = Gate::new();
    let held = gate.clone();
    let slow = Upstream::tcp(move |_, conn| {
        conn.read_request();
        conn.wait(&held);
        conn.write(script::response("late"));
    });
    let good = Upstream::tcp(script::ok("good"));
    let (slow_addr, good_addr) = (slow.addr(), good.addr());
    let nginx = Nginx::start(groups(&[("slow", &[&slow_addr]), ("good", &[&good_addr])]));
    let mut kept = nginx.connect();
    kept.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    slow.wait_requests(1);
    let old = nginx.reload_with(groups(&[("good", &[&good_addr])]));
    ask(&nginx, "good", 1);
    gate.open();
    assert_eq!(kept.read_response(false).expect("a response").text(), "late");
    drop(kept);
    nginx.wait_workers_gone(&old);
    let status = diag::status(&nginx);
    assert_eq!(counts(&status, "good"), [(good_addr.clone(), [1, 0, 0])]);
    assert_eq!(status["totals"]["requests"], 2);
    assert!(status["upstreams"]["slow"].is_null());
    nginx.reload_with(groups(&[("slow", &[&slow_addr]), ("good", &[&good_addr])]));
    let status = diag::status(&nginx);
    assert_eq!(counts(&status, "slow"), [(slow_addr.clone(), [1, 0, 0])]);
    diag::finish(&nginx);
}
