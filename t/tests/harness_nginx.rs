//! The harness starts, changes and ends nginx as it says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use t::{Conf, ErrorLog, Gate, Nginx, Signal, Upstream, eventually, script};

const SOON: Duration = Duration::from_secs(5);

/// A server that answers with this text.
fn text(text: &str) -> Conf {
    Conf::new(format!("return 200 '{text}';")).without_module()
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What the test would have failed with.
fn failure<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => "no failure".to_owned(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

/// Guards against a start that is over before every worker and server is ready.
#[test]
fn starts_workers_and_servers() {
    let nginx = Nginx::start(text("a").server("return 200 '{port} {port1}';").workers(2));
    assert_eq!(nginx.worker_pids().len(), 2);
    assert_eq!(nginx.get("/").text(), "a");
    let expected = format!("{} {}", nginx.port(), nginx.port_of(1));
    assert_eq!(nginx.connect_to(1).get("/").text(), expected);
    nginx.stop();
    assert!(nginx.worker_pids().is_empty() && !alive(nginx.pid()));
}

/// Guards against a failed start that hangs or hides why.
#[test]
fn failed_start_says_why() {
    let log = Nginx::try_start(text("").main("nonsense on;")).unwrap_err();
    assert!(log.contains("unknown directive \"nonsense\""), "{log}");
    let log = failure(|| Nginx::start(text("").http("nonsense on;")));
    assert!(log.contains("nginx did not start") && log.contains("nonsense"), "{log}");
}

/// Guards against `check` that starts nginx or loses its message.
#[test]
fn check_tests_the_configuration() {
    let (ok, said) = Nginx::check(&text("fine"));
    assert!(ok && said.contains("test is successful"), "{said}");
    let (ok, said) = Nginx::check(&text("bad").http("proxy_pass nowhere;"));
    assert!(!ok && said.contains("\"proxy_pass\" directive is not allowed here"), "{said}");
}

/// Guards against a reload that returns while the old configuration still
/// answers, or that waits for old requests.
#[test]
fn reload_returns_when_the_new_workers_serve() {
    let gate = Gate::new();
    let up = {
        let gate = gate.clone();
        Upstream::tcp(move |_, conn| {
            conn.read_request();
            conn.wait(&gate);
            conn.write(script::response("late"));
        })
    };
    let server = format!("location / {{ proxy_pass http://{}; }}", up.addr());
    let nginx = Nginx::start(Conf::new(server).without_module());
    let mut held = nginx.connect();
    held.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    up.wait_requests(1);
    let mut last = nginx.worker_pids();
    let mut first = None;
    for i in 0..3 {
        let old = nginx.reload_with(text(&format!("new {i}")).workers(2));
        assert_eq!(old, last);
        first.get_or_insert(old);
        last = nginx.worker_pids();
        assert_eq!(last.len(), 2);
        for _ in 0..10 {
            assert_eq!(nginx.get("/").text(), format!("new {i}"));
        }
    }
    let first = first.unwrap();
    assert!(nginx.all_worker_pids().contains(&first[0]));
    gate.open();
    assert_eq!(held.read_response(false).unwrap().text(), "late");
    nginx.wait_workers_gone(&first);
}

/// Guards against a refused reload that looks like a good one.
#[test]
fn refused_reload_fails_the_test() {
    let nginx = Nginx::start(text("old"));
    let failed = failure(|| nginx.reload_with(text("new").http("nonsense on;")));
    assert!(failed.contains("unknown directive \"nonsense\""), "{failed}");
    assert_eq!(nginx.get("/").text(), "old");
    nginx.allow_log("unknown directive \"nonsense\"");
    nginx.stop();
}

/// Guards against lines that still go to the old file after `rotate`.
#[test]
fn rotated_logs_are_new_files() {
    let conf = text("x").workers(2).access_log(r#"{"uri":"$uri","status":$status}"#);
    let nginx = Nginx::start(conf);
    for i in 0..20 {
        nginx.get(&format!("/old/{i}"));
    }
    assert_eq!(nginx.wait_json_lines("access.log", 20)[0]["status"], 200);
    nginx.rotate("access.log");
    for i in 0..20 {
        nginx.get(&format!("/new/{i}"));
    }
    let new = nginx.wait_json_lines("access.log", 20);
    assert!(new.iter().all(|l| l["uri"].as_str().unwrap().starts_with("/new/")), "{new:?}");
    assert_eq!(nginx.json_log("access.log.1").len(), 20);
    std::fs::remove_file(nginx.path("access.log")).unwrap();
    nginx.reopen(&[]);
    nginx.get("/again");
    assert_eq!(nginx.wait_lines("access.log", 1).len(), 1);
}

/// Guards against a namespace that has the network of the test.
#[test]
fn netns_is_reached_over_a_unix_socket() {
    if !t::netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    let up = Upstream::tcp(script::ok("outside"));
    let server = format!("location / {{ proxy_pass http://{}; }}", up.addr());
    for (snippet, error) in [
        ("true", "(101: Network is unreachable)"),
        ("ip link set lo up", "(111: Connection refused)"),
    ] {
        let nginx = Nginx::start(Conf::new(&server).netns(snippet).without_module());
        assert_eq!(nginx.get("/").status, 502);
        nginx.wait_for_log(error, SOON);
        nginx.stop();
    }
    assert_eq!(up.connections(), 0);
    let log = Nginx::try_start(text("").netns("echo >&2 in the snippet; false")).unwrap_err();
    assert!(log.contains("in the snippet"), "{log}");
}

/// Guards against a server that chooses its own listeners being unreachable.
#[test]
fn own_listen_directives_are_found() {
    let nginx =
        Nginx::start(text("a").server("listen unix:{prefix}/own.sock; return 200 'own';").server(
            "listen unix:{prefix}/both.sock; listen 127.0.0.1:{port2}; return 200 $server_port;",
        ));
    assert_eq!(nginx.connect_to(1).get("/").text(), "own");
    assert_eq!(nginx.connect_to(2).get("/").text(), nginx.port_of(2).to_string());
}

/// Guards against processes and directories left behind by a failed test.
#[test]
fn a_panicking_test_leaves_nothing() {
    let mut seen = None;
    let failed = failure(|| {
        let nginx = Nginx::start(text("x").workers(2));
        let mut pids = nginx.worker_pids();
        pids.push(nginx.pid());
        seen = Some((pids, nginx.prefix().to_owned()));
        panic!("{}", nginx.get("/").text());
    });
    let (pids, prefix) = seen.unwrap();
    assert_eq!((failed.as_str(), pids.len()), ("x", 3));
    assert!(!pids.iter().any(|pid| alive(*pid)) && !prefix.exists());
}

/// Guards against workers that outlive a master that was killed.
#[test]
fn workers_of_a_dead_master_are_ended() {
    let nginx = Nginx::start(text("x").workers(2));
    let pids = nginx.worker_pids();
    nginx.signal(Signal::KILL);
    drop(nginx);
    eventually("workers gone", SOON, || (!pids.iter().any(|p| alive(*p))).then_some(()));
}

/// Guards against a crash that nobody notices.
#[test]
fn a_crash_fails_the_test() {
    let nginx = Nginx::start(text("x"));
    let pid = nginx.worker_pids()[0];
    // Not through the harness, which would take it for intended.
    let kill = Command::new("sh").args(["-c", &format!("kill -SEGV {pid}")]).status().unwrap();
    assert!(kill.success());
    nginx.wait_for_log("exited on signal 11", SOON);
    let failed = failure(|| drop(nginx));
    assert!(failed.contains(&format!("worker process {pid} exited on signal 11")), "{failed}");
}

/// Guards against a killed worker counting as a crash, or not being replaced.
#[test]
fn a_killed_worker_is_replaced() {
    let nginx = Nginx::start(text("x").workers(2));
    let before = nginx.worker_pids();
    nginx.kill_worker(before[0], Signal::KILL);
    let after = nginx.worker_pids();
    assert!(after.len() == 2 && !after.contains(&before[0]) && after.contains(&before[1]));
    assert_eq!(nginx.get("/").text(), "x");
    nginx.stop();
}

/// Guards against workers that cannot use the directories of the prefix, or
/// error log settings that stop nginx.
#[test]
fn bodies_are_written_below_the_prefix() {
    let up = Upstream::tcp(script::ok("got it"));
    let server = format!(
        "location / {{ client_body_in_file_only clean; proxy_pass http://{}; }}",
        up.addr()
    );
    for log in [
        ErrorLog::None,
        ErrorLog::Level("debug".to_owned()),
        ErrorLog::Custom("error_log {prefix}/a.log warn; error_log {prefix}/error.log;".to_owned()),
    ] {
        let nginx = Nginx::start(Conf::new(&server).without_module().error_log(log));
        let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(nginx.request(post).text(), "got it");
        nginx.stop();
    }
    assert!(up.requests().iter().all(|r| r.ends_with(b"\r\n\r\nbody")));
}
