//! Peers that come back: `restarted` and `flapping`.

use serde_json::json;
use t::{Conn, Gate, Nginx, RefusedPort, Upstream, diag, script};

use crate::{fails, group, pass};

/// Longer than an outage has to be to count as one, by more than what the module rounds.
const OUTAGE: u64 = 1_200;

/// What a time near that can be on a machine that has other things to do.
const ABOUT: [f64; 2] = [1.0, 20.0];
const LATELY: [f64; 2] = [0.0, 10.0];

/// Answers the first connection, and closes the others before a byte.
fn once(index: usize, conn: &mut Conn) {
    if conn.read_request().is_some() && index == 0 {
        conn.write(script::response("good"));
    }
}

/// Starts a server, and looks whether it answers.
fn up(port: &RefusedPort, nginx: &Nginx) -> Upstream {
    // Of what happens within one of nginx's milliseconds it is not known what came first.
    pass(20);
    let up = Upstream::tcp_at(port, once);
    assert_eq!(nginx.get("/").text(), "good");
    up
}

/// Guards against what fails after a restart being told as if the server had been there all the
/// time. While it is away, it has not been restarted.
#[test]
fn away_and_back() {
    let port = t::refused_port();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    drop(up(&port, &nginx));
    fails(&nginx, 0).is_silent("restarted");
    pass(OUTAGE);
    fails(&nginx, 1).is_silent("restarted");
    let _up = up(&port, &nginx);
    let seen = fails(&nginx, 2);
    seen.expect("closed_before_response", &json!({})).finds(
        "restarted",
        "likely",
        &format!("{addr} accepted no connections for <took>, until <ended> ago, and accepts them again: it was restarted."),
        &json!({"began": ABOUT, "ended": LATELY, "took": ABOUT, "failures": 2}),
    );
    // What it says of the failure is that of the cause: it may have nothing to do with it.
    seen.advises(
        "restarted",
        "Look for a crash, a worker that was killed or a timeout of its own in the upstream's log at that moment.",
    );
    assert_eq!(seen.codes(), ["restarted", "single_server"]);
    diag::finish(&nginx);
}

/// Guards against one connection that was refused counting for as much as an outage.
#[test]
fn refused_once() {
    let port = t::refused_port();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    drop(up(&port, &nginx));
    fails(&nginx, 0);
    let _up = up(&port, &nginx);
    fails(&nginx, 1).finds(
        "restarted",
        "possible",
        &format!("{addr} accepted no connections for <took>, until <ended> ago, and accepts them again: it may have been restarted."),
        &json!({"began": LATELY, "ended": LATELY, "took": LATELY, "failures": 1}),
    );
    diag::finish(&nginx);
}

/// Guards against a restart without an outage, and against a response that was under way being
/// taken for a sign that connections are accepted again: a server that stops ends those first.
#[test]
fn under_way() {
    let gate = Gate::new();
    let mut up = {
        let gate = gate.clone();
        Upstream::tcp(move |index, conn| {
            if conn.read_request().is_some() && (index > 0 || conn.wait(&gate)) && index < 2 {
                conn.write(script::response("good"));
            }
        })
    };
    let nginx = Nginx::start(group(&format!("server {};", up.addr()), ""));
    let mut slow = nginx.connect();
    slow.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    up.wait_requests(1);
    assert_eq!(nginx.get("/").text(), "good");
    let seen = fails(&nginx, 0);
    seen.expect("closed_before_response", &json!({}));
    assert_eq!(seen.codes(), ["single_server"]);

    up.close_listener();
    fails(&nginx, 1);
    fails(&nginx, 2);
    gate.open();
    assert_eq!(slow.read_response(false).expect("a response").text(), "good");
    let seen = fails(&nginx, 3);
    seen.expect("connection_refused", &json!({})).is_silent("restarted");
    assert_eq!(seen.codes(), ["nothing_listening", "went_away", "single_server"]);
    diag::finish(&nginx);
}

/// Guards against a request that met the outage being told, when it ends after it, that the server
/// is away; and against nobody asking why that was.
#[test]
fn over_by_now() {
    let port = t::refused_port();
    let addr = port.addr();
    let gate = Gate::new();
    let backup = {
        let gate = gate.clone();
        Upstream::tcp(move |index, conn| {
            if conn.read_request().is_some() && (index != 2 || conn.wait(&gate)) {
                conn.write(script::response("backup"));
            }
        })
    };
    let servers = format!("server {addr} max_fails=0; server {} backup;", backup.addr());
    let nginx = Nginx::start(group(&servers, ""));
    drop(up(&port, &nginx));
    assert_eq!(nginx.get("/").text(), "backup");
    pass(OUTAGE);
    assert_eq!(nginx.get("/").text(), "backup");
    let mut slow = nginx.connect();
    slow.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    backup.wait_requests(3);
    let _up = up(&port, &nginx);
    gate.open();
    assert_eq!(slow.read_response(false).expect("a response").text(), "backup");
    let seen = diag::seen(&nginx, 2);
    seen.expect("connection_refused", &json!({"uri": "/slow", "outcome": "masked"})).finds(
        "restarted",
        "likely",
        &format!("{addr} accepted no connections for <took>, until <ended> ago, and accepts them again: it was restarted."),
        &json!({"began": ABOUT, "ended": LATELY, "took": ABOUT, "failures": 2}),
    );
    seen.is_silent("went_away");
    diag::finish(&nginx);
}

/// Guards against a server that is started over and over looking like one that failed just now. Two
/// times are no rule, and one that goes on is not over.
#[test]
fn down_and_up() {
    let port = t::refused_port();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    drop(up(&port, &nginx));
    let mut records = 0;
    let mut next = || {
        records += 1;
        fails(&nginx, records - 1)
    };
    for n in 1..=3 {
        next().is_silent("flapping");
        pass(OUTAGE);
        let _up = up(&port, &nginx);
        let seen = next();
        if n < 3 {
            seen.is_silent("flapping");
            continue;
        }
        seen.expect("closed_before_response", &json!({})).finds(
            "flapping",
            "likely",
            &format!("{addr} went down and came back 3 times in the last <within>."),
            &json!({"outages": 3, "within": [3.0, 60.0]}),
        );
        seen.advises(
            "flapping",
            &format!("Look for a crash loop on {addr}: its log, how often its supervisor restarted it (systemctl status), its memory limit and health checks."),
        );
        assert_eq!(seen.codes(), ["flapping", "single_server", "restarted"]);
    }
    diag::finish(&nginx);
}

/// Guards against servers that refuse some connections and take others, as several behind one
/// address of which one is down, being as surely told to be restarted over and over.
#[test]
fn in_turns() {
    let port = t::refused_port();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!("server {addr};"), ""));
    for n in 0..4 {
        let seen = fails(&nginx, n);
        if n < 3 {
            seen.is_silent("flapping");
        }
        drop(up(&port, &nginx));
    }
    let seen = fails(&nginx, 4);
    seen.expect("connection_refused", &json!({})).finds(
        "flapping",
        "possible",
        &format!("{addr} went down and came back at least 4 times in the last <within>."),
        &json!({"outages": 4, "within": LATELY}),
    );
    diag::finish(&nginx);
}
