//! Workers that die.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use t::{Nginx, Signal, Upstream, diag, script};

use super::{SOON, counts, groups};

/// Guards against counts that die with the worker that made them.
#[test]
fn while_idle() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    for workers in [1, 2] {
        let (good, dead) = (good.addr(), dead.addr());
        let nginx = Nginx::start(groups(&[("u", &[&good, &dead])]).workers(workers));
        for round in 1..=3 {
            let mut client = nginx.connect();
            for _ in 0..4 {
                assert_eq!(client.get("/u").text(), "good");
            }
            t::eventually("attempts and records are counted", SOON, || {
                let status = diag::status(&nginx);
                let found = counts(&status, "u");
                let all = found[0].1 == [4 * round, 0, 0];
                (all && status["totals"]["masked"] == found[1].1[1]).then_some(())
            });
            let before = diag::status(&nginx);
            for pid in nginx.worker_pids() {
                nginx.kill_worker(pid, Signal::KILL);
            }
            let after = diag::status(&nginx);
            assert_eq!(counts(&after, "u"), counts(&before, "u"));
            assert_eq!(
                (&after["totals"], &after["recent"]),
                (&before["totals"], &before["recent"])
            );
        }
        nginx.stop();
    }
}

/// Ends the load, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Guards against a place that is half made, a lock that nobody gives back, and a document that
/// cannot be read while others write.
#[test]
fn while_places_are_made_and_records_pushed() {
    const KILLED: usize = 4;
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let mut conf = groups(&[("u", &[good.addr().as_str()]), ("dead", &[dead.addr().as_str()])])
        .workers(2)
        .http("upstream_diag_zone 632k peers=400;");
    conf.servers[0].push_str("location /to { proxy_pass http://$arg_to; }");
    let nginx = Nginx::start(conf);
    // A worker that died with the lock: nginx's own word for it.
    nginx.allow_log("\" was locked by ");
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // Connections to the worker that is killed end without an answer.
        let response = nginx.connect().try_request(request.as_bytes());
        if response.is_ok_and(|response| matches!(response.status, 200 | 502)) {
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for thread in 0..2 {
            let (ask, stop, port) = (&ask, &stop, dead.port());
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    n += 1;
                    ask("/u");
                    ask("/dead");
                    // Nobody listens in 127.1.0.0/16: each is a new place.
                    ask(&format!("/to?to=127.1.{thread}.{}:{port}", n % 250));
                }
            });
        }
        for _ in 0..KILLED {
            let before = answered.load(Ordering::SeqCst);
            let more = || (answered.load(Ordering::SeqCst) > before + 60).then_some(());
            t::eventually("requests go on", SOON * 4, more);
            // Any of it is a valid document.
            let mut client = nginx.connect_to(1);
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            if let Ok(response) = client.try_request(request) {
                diag::status_in(&response);
            }
            nginx.kill_worker(nginx.worker_pids()[0], Signal::KILL);
        }
    });
    let status = diag::status(&nginx);
    let answered = answered.into_inner() as u64;
    let requests = status["totals"]["requests"].as_u64().expect("a number");
    // One request of either thread is under way when a worker dies.
    let lost = 2 * KILLED as u64;
    assert!(requests + lost >= answered && requests <= answered + lost, "{requests}, {answered}");
    let all = status["upstreams"].as_object().expect("upstreams");
    let sum: u64 = all
        .keys()
        .flat_map(|name| counts(&status, name))
        .map(|(_, counts)| counts.iter().sum::<u64>())
        .sum();
    assert!(sum + lost >= requests && sum <= requests + lost, "{sum} of {requests}");
    // It is a zone like any other.
    let before = counts(&status, "u")[0].1[0];
    assert_eq!(nginx.get("/u").status, 200);
    t::eventually("counting goes on", SOON, || {
        (counts(&diag::status(&nginx), "u")[0].1[0] == before + 1).then_some(())
    });
}
