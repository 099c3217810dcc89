//! `never_connected`.

use std::time::Instant;

use serde_json::json;
use t::{Nginx, Upstream, diag, script};

use crate::{fails_in_turn, pass};

/// For how long a peer has to be known, and a little more. Milliseconds.
pub(crate) const KNOWN: u64 = 10_300;

/// Lets as much time pass as is left of that.
pub(crate) fn get_to_know(since: Instant) {
    let passed = u64::try_from(since.elapsed().as_millis()).expect("a short time");
    pass(KNOWN.saturating_sub(passed));
}

/// Guards against an address that is wrong, or that of a server that is long gone, being asked for
/// ever because the others of its group answer; and against that being said too soon, of a server
/// that has been connected to, or where nobody answers.
#[test]
fn nobody_was_ever_there() {
    let good = Upstream::tcp(script::ok("good"));
    let [dead, other] = [(); 2].map(|()| t::refused_port());
    let left = t::refused_port();
    let up = Upstream::tcp_at(&left, script::close_at_once());
    let (dead, other, good) = (dead.addr(), other.addr(), good.addr());
    let groups = [
        ("stale", format!("server {dead} max_fails=0; server {good};")),
        ("few", format!("server {dead} max_fails=0; server {good};")),
        ("alone", format!("server {dead} max_fails=0; server {other} max_fails=0;")),
        ("left", format!("server {} max_fails=0; server {good};", left.addr())),
        // It is not asked, and has not answered.
        ("idle", format!("server {dead} max_fails=0; server {good} backup;")),
    ];
    let (mut locations, mut blocks) = (String::new(), String::new());
    for (name, servers) in &groups {
        let off = if *name == "idle" { "proxy_next_upstream off;" } else { "" };
        locations.push_str(&format!("location /{name} {{ {off} proxy_pass http://{name}; }}"));
        blocks.push_str(&format!("upstream {name} {{ {servers} }}"));
    }
    let nginx = Nginx::start(diag::conf(locations).http(blocks));
    let known = Instant::now();
    let fails = |group: &str| fails_in_turn(&nginx, &format!("/{group}"));
    fails("left").expect("closed_before_response", &json!({}));
    drop(up);
    for _ in 0..3 {
        for group in ["stale", "alone", "left", "idle"] {
            let seen = fails(group);
            seen.expect("connection_refused", &json!({})).is_silent("never_connected");
        }
    }
    get_to_know(known);
    // The others of the group are to have answered lately.
    let seen = fails("stale");
    seen.expect("connection_refused", &json!({"outcome": "masked"})).finds(
        "never_connected",
        "possible",
        &format!("{dead} has accepted none of 4 connections in the <known_for> for which nginx has known it, and another server of its group answers: its address may be wrong or stale."),
        &json!({"known_for": [10.0, 60.0], "failures": 4, "siblings": 1}),
    );
    assert_eq!(seen.codes(), ["nothing_listening", "never_connected"]);
    for group in ["alone", "left", "idle", "few", "few"] {
        let seen = fails(group);
        seen.expect("connection_refused", &json!({})).is_silent("never_connected");
    }
    // The third of this one.
    fails("few").finding("never_connected");
    diag::finish(&nginx);
}
