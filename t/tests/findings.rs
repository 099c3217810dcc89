//! What is concluded of failures of a running nginx: for each finding one that is to be drawn, those
//! that are almost so and must not be, and what the operator is told, word for word.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "findings/away.rs"]
mod away;
#[path = "findings/backlog.rs"]
mod backlog;
#[path = "findings/buffer.rs"]
mod buffer;
#[path = "findings/ejected.rs"]
mod ejected;
#[path = "findings/far.rs"]
mod far;
#[path = "findings/idle.rs"]
mod idle;
#[path = "findings/listening.rs"]
mod listening;
#[path = "findings/never.rs"]
mod never;
#[path = "findings/not_retried.rs"]
mod not_retried;
#[path = "findings/outages.rs"]
mod outages;
#[path = "findings/requests.rs"]
mod requests;
#[path = "findings/single.rs"]
mod single;

use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use t::{Conf, Gate, Nginx, diag};

/// A group with the name `u` of these servers, and what else is to be said of asking them.
fn group(servers: &str, location: &str) -> Conf {
    diag::conf(format!("location / {{ {location} proxy_pass http://u; }}"))
        .http(format!("upstream u {{ {servers} }}"))
}

/// The same with connections that are kept.
fn keepalive(servers: &str, location: &str) -> Conf {
    let kept = "proxy_http_version 1.1; proxy_set_header Connection '';";
    group(&format!("{servers} keepalive 32;"), &format!("{kept} {location}"))
}

/// Asks, and the gateway fails; what is said of that.
fn fails(nginx: &Nginx, n: usize) -> diag::Seen {
    let status = nginx.get("/").status;
    assert!(matches!(status, 502..=504), "{status}");
    diag::seen(nginx, n)
}

/// Asks until an attempt fails, as every other one does of two servers; what is said of that.
fn fails_in_turn(nginx: &Nginx, path: &str) -> diag::Seen {
    for _ in 0..3 {
        let before = nginx.lines("access.log").len();
        nginx.get(path);
        let lines = nginx.wait_json_lines("access.log", before + 1);
        let failed = |line: &&Value| line["cause"] != "";
        if lines.last().is_some_and(|line| failed(&line)) {
            return diag::seen(nginx, lines.iter().filter(failed).count() - 1);
        }
    }
    panic!("{path} does not fail");
}

/// Lets time pass that is the matter of the test, and has no event to wait for.
fn pass(millis: u64) {
    sleep(Duration::from_millis(millis));
}

/// Lets a server have several requests before it answers one, so that each is on a connection of
/// its own.
#[derive(Clone, Default)]
struct Together(Arc<Mutex<Gate>>);

impl Together {
    /// What the next ones wait for.
    fn gate(&self) -> Gate {
        self.0.lock().unwrap().clone()
    }

    /// Answers those that are there.
    fn answer(&self) {
        std::mem::take(&mut *self.0.lock().unwrap()).open();
    }
}

/// Ages at which a server closed connections, milliseconds.
#[derive(Default)]
struct Ages(Vec<u64>);

impl Ages {
    fn add(&mut self, seconds: f64) {
        self.0.push((seconds * 1000.0).round() as u64);
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether they are as near to each other.
    fn are_within(&self, millis: u64) -> bool {
        let (least, most) = (self.0.iter().min(), self.0.iter().max());
        least.zip(most).is_none_or(|(least, most)| most - least <= millis)
    }

    /// Their mean as people read it, in seconds, and the timeout that it is taken for.
    fn words(&self) -> (String, String) {
        let mean = self.0.iter().sum::<u64>() / self.0.len() as u64;
        let tenths = (mean + 50) / 100;
        let tenths = format!("{}.{}", tenths / 10, tenths % 10);
        let whole = (mean + 500) / 1000;
        let near = whole > 0 && (whole * 1000).abs_diff(mean) <= (mean / 50).max(100);
        let timeout = if near { format!("{whole} s") } else { format!("{tenths} s") };
        (tenths, timeout)
    }
}
