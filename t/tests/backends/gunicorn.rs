//! gunicorn with workers that serve one request at a time. Its master kills one that has nothing
//! to say for `--timeout` seconds.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use t::diag;
use t::ports::Reservation;
use t::{Backend, Nginx, Signal};

use crate::{answer, ask, ask_with, expect_age, give_up_until_told, told};

const WORKERS: usize = 8;

/// What a worker says when it can take requests.
const LOADED: &str = "loaded by ";

/// The timeout in seconds unless another is set.
const USUAL: &str = "30";

/// Starts it with so many workers; returns when it has them.
fn gunicorn(port: &Reservation, workers: usize, timeout: &str) -> Backend {
    gunicorn_at(&port.addr().to_string(), workers, timeout)
}

fn gunicorn_at(addr: &str, workers: usize, timeout: &str) -> Backend {
    let number = workers.to_string();
    let args = ["--bind", addr, "--workers", &number, "--timeout", timeout, "app:application"];
    let gunicorn = Backend::start("gunicorn", &args, &[("app.py", include_str!("app.py"))]);
    gunicorn.wait_for(LOADED, workers);
    gunicorn
}

fn nginx(port: &Reservation) -> Nginx {
    nginx_for(&port.addr().to_string())
}

fn nginx_for(addr: &str) -> Nginx {
    let server = format!("location / {{ proxy_pass http://{addr}; proxy_buffering off; }}");
    Nginx::start(diag::conf(server))
}

/// The worker that has the `n`th request for this path.
fn worker(gunicorn: &Backend, path: &str, n: usize) -> u32 {
    let said = gunicorn.wait_for(&format!("{path} from "), n).swap_remove(n - 1);
    said.rsplit_once(' ').expect("a number").1.parse().expect("a number")
}

/// Guards against requests that take too long being laid to a crash, or to nginx. The operator is
/// to be told that the server itself gives them up after 2 s, which its log says, too: the timeout is
/// to be raised, or the requests made faster.
#[test]
fn gives_up_what_takes_too_long() {
    let port = Reservation::v4().expect("a port");
    let gunicorn = gunicorn(&port, WORKERS, "2");
    let start = || nginx(&port);
    let check = |seen: &diag::Seen, sent: Instant| {
        let attempt = json!({
            "peer": port.addr().to_string(), "cause": "closed_before_response",
            "reused": false, "errno": null, "bytes_received": 0, "status": 502,
            "tcp": {"state": "CLOSE_WAIT"},
        });
        seen.expect(
            "closed_before_response",
            &json!({"outcome": "failed", "phase": "header", "attempts": [attempt]}),
        );
        // The master looks once a second.
        expect_age(seen, 1.9, sent);
        told(seen, &["closed the connection without sending"], &[]);
    };
    let ready = |round: usize| drop(gunicorn.wait_for(LOADED, WORKERS * (round + 1)));
    give_up_until_told(start, WORKERS, "the supervisor that kills workers", ready, check);
    gunicorn.wait_for("WORKER TIMEOUT", WORKERS);
}

/// Guards against the ways in which the end of a process shows being told as something else: with
/// a part of the request unread it is a reset. The operator is to be told to look for a worker that
/// was killed, as by the kernel when memory runs out.
#[test]
fn worker_is_killed() {
    let port = Reservation::v4().expect("a port");
    let gunicorn = gunicorn(&port, 1, USUAL);
    let nginx = nginx(&port);
    // gunicorn reads 8192 bytes at a time, and nginx sends all of this in one piece.
    let body = "x".repeat(12_000);
    let crash = "Look for a crash";
    for (n, (path, body, cause, phase, errno, advice)) in [
        ("stuck", "", "closed_before_response", "header", None, "a worker that was killed"),
        ("half", "", "response_truncated", "body", None, "a killed worker"),
        ("unread", body.as_str(), "connection_reset", "header", Some(104), crash),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = Instant::now();
        let mut asked = ask_with(&nginx, "POST", &format!("/{path}"), body);
        if path == "half" {
            asked.wait_for(b"half");
        }
        gunicorn.signal(worker(&gunicorn, path, 1), Signal::KILL);
        let response = answer(&mut asked);
        let truncated = path == "half";
        let (status, outcome) = if truncated { (200, "truncated") } else { (502, "failed") };
        assert_eq!((response.status, response.truncated), (status, truncated), "{path}");
        let seen = diag::seen(&nginx, n);
        seen.expect(
            cause,
            &json!({
                "status": status, "outcome": outcome, "phase": phase,
                "attempts": [{"cause": cause, "reused": false, "errno": errno}],
            }),
        );
        if !truncated {
            assert_eq!(seen.attempt(0)["bytes_received"], 0);
        }
        expect_age(&seen, 0.0, sent);
        told(&seen, &[&port.addr().to_string()], &[crash, advice]);
    }
    diag::finish(&nginx);
}

/// Guards against a server that is down for a while looking like one that was never there. The
/// operator is to be told that nothing listens, and since when.
#[test]
fn stops_and_starts_again() {
    let port = Reservation::v4().expect("a port");
    let first = gunicorn(&port, 1, USUAL);
    let nginx = nginx(&port);
    assert_eq!(nginx.get("/good").text(), "good");
    drop(first);
    assert_eq!(nginx.get("/good").status, 502);
    let history = |seen: &diag::Seen| -> Value { seen.attempt(0)["history"].clone() };
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({"outcome": "failed", "phase": "connect", "attempts": [{"errno": 111}]}),
    );
    assert_eq!((&history(&seen)["ok"], &history(&seen)["failed"]), (&json!(1), &json!(1)));
    told(&seen, &["refused the connection"], &["Start the process that should listen on port"]);
    assert_eq!(seen.codes(), ["nothing_listening", "went_away"]);
    seen.finds(
        "went_away",
        "certain",
        &format!("{} answered until <last_ok> ago; the attempt since has failed.", port.addr()),
        &json!({"last_ok": [0.0, 60.0], "ok": 1, "failures": 1, "failing_for": [0.0, 60.0]}),
    );

    let second = gunicorn(&port, 1, USUAL);
    assert_eq!(nginx.get("/good").text(), "good");
    let mut asked = ask(&nginx, "GET", "/stuck");
    second.signal(worker(&second, "stuck", 1), Signal::KILL);
    assert_eq!(answer(&mut asked).status, 502);
    let seen = diag::seen(&nginx, 1);
    seen.expect("closed_before_response", &json!({"outcome": "failed"}));
    assert_eq!((&history(&seen)["ok"], &history(&seen)["failed"]), (&json!(2), &json!(2)));
    // It was refused once, which can be less than a restart.
    assert_eq!(seen.finding("restarted")["confidence"], "possible");
    assert_eq!(seen.finding("restarted")["evidence"]["failures"], 1);
    diag::finish(&nginx);
}

/// Guards against a server on a unix socket that was started anew looking like one that was there
/// all the time. The operator is to be told that nobody listens while that is so, and later when it
/// was started. That a worker ends and the server goes on is no restart.
#[test]
fn starts_again_on_a_socket() {
    let dir = t::temp_dir();
    let peer = format!("unix:{}", dir.path().join("up.sock").display());
    let first = gunicorn_at(&peer, 1, USUAL);
    let nginx = nginx_for(&format!("{peer}:"));
    // A worker that has the `stuck`th request of its kind; record `n` is of that.
    let killed = |gunicorn: &Backend, stuck: usize, n: usize| {
        let mut asked = ask(&nginx, "GET", "/stuck");
        gunicorn.signal(worker(gunicorn, "stuck", stuck), Signal::KILL);
        assert_eq!(answer(&mut asked).status, 502);
        diag::seen(&nginx, n)
    };
    assert_eq!(nginx.get("/good").text(), "good");
    killed(&first, 1, 0).is_silent("restarted");
    first.wait_for("Booting worker", 2);
    assert_eq!(nginx.get("/good").text(), "good");
    drop(first);
    assert_eq!(nginx.get("/good").status, 502);
    let seen = diag::seen(&nginx, 1);
    seen.expect("connection_refused", &json!({"outcome": "failed"}));
    told(&seen, &["refused the connection"], &["Start the upstream", "nobody listens"]);
    assert_eq!(seen.codes(), ["nothing_listening", "went_away"]);
    assert_eq!(seen.finding("went_away")["confidence"], "certain");

    // Less could be a difference between two clocks.
    sleep(Duration::from_millis(200));
    let second = gunicorn_at(&peer, 1, USUAL);
    let seen = killed(&second, 1, 2);
    seen.expect("closed_before_response", &json!({"outcome": "failed"})).finds(
        "restarted",
        "certain",
        &format!("The process that listens on {peer} (pid {}) started <started> ago, after the last good answer <last_ok> ago: it was restarted.", second.pid()),
        &json!({"last_ok": [0.2, 60.0], "pid": second.pid(), "started": [0.0, 60.0]}),
    );
    seen.advises(
        "restarted",
        &format!("See in the log of {peer} why it was restarted <started> ago: a deployment, a crash, the limit of its memory."),
    );
    // It has answered since: what is left is that it was away.
    second.wait_for("Booting worker", 2);
    assert_eq!(nginx.get("/good").text(), "good");
    let seen = killed(&second, 2, 3);
    assert_eq!(seen.finding("restarted")["confidence"], "possible");
    assert_eq!(seen.finding("restarted")["evidence"]["pid"], Value::Null);
    diag::finish(&nginx);
}
