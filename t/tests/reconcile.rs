//! A mixed load with every kind of fault, reloads and killed workers: what the module says it
//! counted, in each place where it says it, is what the clients and the upstreams have seen.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "reconcile/books.rs"]
mod books;
#[path = "reconcile/check.rs"]
mod check;
#[path = "reconcile/kinds.rs"]
mod kinds;
#[path = "reconcile/list.rs"]
mod list;
#[path = "reconcile/load.rs"]
mod load;
#[path = "reconcile/world.rs"]
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use books::Books;
use check::{Left, Losses};
use t::{Conf, Nginx, Signal};
use world::World;

/// Where in the load, in requests begun, nginx reloads and workers are killed.
const RELOADS: [usize; 3] = [1_500, 4_500, 7_500];
const KILLS: [usize; 5] = [1_000, 3_000, 5_500, 7_000, 9_000];

/// Runs the load on an nginx.
fn run(world: &World, kills: &[usize]) -> Left {
    let nginx = Nginx::start(world.conf());
    // A worker that died with a lock, in nginx's own words.
    nginx.allow_log("was locked by ");
    let first = prime(&nginx);
    let (mut reloads, mut kills) = (RELOADS.iter(), kills.iter());
    let (mut reload, mut kill) = (reloads.next(), kills.next());
    let mut old = Vec::new();
    let mut counted = load::run(world, &nginx, |begun| {
        if reload.is_some_and(|at| *at <= begun) {
            old.extend(nginx.reload());
            reload = reloads.next();
        }
        if kill.is_some_and(|at| *at <= begun) {
            nginx.kill_worker(nginx.worker_pids()[0], Signal::KILL);
            kill = kills.next();
        }
    });
    assert_eq!((reload, kill), (None, None), "the load ended before that");
    counted.adds.add_all(&first, 1);
    // An old worker ends when its requests have.
    old.extend(nginx.reload());
    nginx.wait_workers_gone(&old);
    let text = |accept: &str| nginx.get_with("/metrics", accept).text();
    Left {
        counted,
        status: serde_json::from_str(&nginx.get("/status").text()).expect("JSON"),
        openmetrics: books::metrics(&text("Accept: application/openmetrics-text\r\n")),
        text: books::metrics(&text("")),
        records: nginx.json_log("diag.json"),
        access: nginx.json_log("access.log"),
        rate: nginx.json_log("rate.json"),
        nginx,
    }
}

/// Fills the cache, and gives what that adds.
fn prime(nginx: &Nginx) -> Books {
    let mut adds = Books::default();
    // One after the other: the lines of two workers may come in any order.
    let prime = |path: &str, status, lines| {
        assert_eq!(nginx.get(path).status, status, "{path}");
        let line = nginx.wait_json_lines("access.log", lines).swap_remove(lines - 1);
        line["addr"].as_str().expect("an address").to_owned()
    };
    let (own, good) = (prime("/cached/0", 502, 1), prime("/hit/0", 200, 2));
    for (name, n) in [
        ("requests".to_owned(), 2),
        (format!("peer {own} {own} requests"), 1),
        (format!("peer {own} {own} failed"), 1),
        (format!("peer {own} {own} cause upstream_response"), 1),
        (format!("headers {own}"), 1),
        ("outcome passed".to_owned(), 1),
        ("cause upstream_response".to_owned(), 1),
        ("timeline upstream_response".to_owned(), 1),
        (format!("upstream {own} passed"), 1),
        (format!("peer {good} {good} requests"), 1),
        (format!("peer {good} {good} ok"), 1),
        (format!("headers {good}"), 1),
    ] {
        adds.add(name, n);
    }
    adds
}

/// Guards against requests, attempts or records that are counted twice, not at all, or under
/// different names in different places, in any outcome and across reloads.
#[test]
fn nothing_is_lost() {
    let world = World::new();
    let left = run(&world, &[]);
    left.check(&world, &Losses::none());
    left.nginx.stop();
}

/// Guards against a worker that takes more with it than the requests it held: a lock, or what
/// others have counted.
#[test]
fn a_killed_worker_loses_only_what_it_held() {
    let world = World::new();
    let left = run(&world, &KILLS);
    left.check(&world, &Losses::of(&world, &left.counted, KILLS.len()));
    left.nginx.stop();
}

/// Ends what runs beside it, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Guards against a scrape that misses what a new configuration has not come to yet: the counters
/// would seem to be gone, and then to begin again.
#[test]
fn a_reload_hides_nothing() {
    const PEERS: usize = 1_000;
    let server = |n| format!(" server 127.0.{}.{}:9;", n / 250, n % 250 + 1);
    let servers: String = (0..PEERS).map(server).collect();
    let nginx = Nginx::start(
        Conf::new("location = /metrics { upstream_diag_status prometheus; }")
            .http(format!("upstream many {{{servers} }} upstream_diag on;"))
            .http("upstream_diag_zone 4m peers=1100;")
            .workers(2),
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let scrape = || {
            while !stop.load(Ordering::SeqCst) {
                let text = nginx.get("/metrics").text();
                let peers = text.matches("\nnginx_upstream_diag_requests_total{upstream=\"many\"");
                assert_eq!(peers.count(), PEERS);
            }
        };
        let scrapers = [scope.spawn(scrape), scope.spawn(scrape)];
        for _ in 0..30 {
            nginx.reload();
            assert!(!scrapers.iter().any(|scraper| scraper.is_finished()), "a scrape failed");
        }
    });
    nginx.stop();
}
