//! What is kept outlives workers and configurations; logs and the status document are there
//! whatever becomes of them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::collections::BTreeSet;
use std::fs::{Permissions, set_permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use t::{Conf, Nginx, RefusedPort, Signal, diag};

const SOON: Duration = Duration::from_secs(5);

/// Everything but `/status` fails to connect.
fn conf(dead: &RefusedPort, http: &str) -> Conf {
    Conf::new(format!(
        "location / {{ proxy_pass http://{}; }}
         location = /status {{ upstream_diag_status; }}",
        dead.addr()
    ))
    .http("upstream_diag on; add_header X-Pid $pid always;")
    .http(http)
}

fn status(nginx: &Nginx) -> Value {
    diag::status_at(nginx, "/status")
}

/// Fails `n` times with URIs `/NAME0`, `/NAME1`, …; gives the workers that did it.
fn fail(nginx: &Nginx, name: &str, n: usize) -> BTreeSet<u64> {
    let mut client = nginx.connect();
    (0..n)
        .map(|i| {
            let response = client.get(&format!("/{name}{i}"));
            assert_eq!(response.status, 502);
            response.header("X-Pid").and_then(|pid| pid.parse().ok()).expect("a pid")
        })
        .collect()
}

/// The status once so many failures are counted. A worker counts a failure after it has answered,
/// when another one may already be asked for the status.
fn status_of(nginx: &Nginx, failures: usize) -> Value {
    t::eventually("failures are counted", SOON, || {
        Some(status(nginx)).filter(|status| status["totals"]["failed"] == failures)
    })
}

fn uris(status: &Value) -> Vec<&str> {
    let recent = status["recent"].as_array().expect("records");
    recent.iter().map(|r| r["uri"].as_str().expect("a URI")).collect()
}

/// Guards against counters and records that are lost with a configuration or with its workers.
#[test]
fn a_reload_keeps_everything() {
    let dead = t::refused_port();
    let conf = || conf(&dead, "upstream_diag_zone 256k;");
    let nginx = Nginx::start(conf());
    let mut wanted = Vec::new();
    for (round, workers) in [3, 1, 2, 1].into_iter().enumerate() {
        fail(&nginx, &format!("r{round}-"), 2);
        wanted.extend([format!("/r{round}-0"), format!("/r{round}-1")]);
        let old = nginx.reload_with(conf().workers(workers));
        nginx.wait_workers_gone(&old);
        let status = status(&nginx);
        assert_eq!(uris(&status), wanted.iter().rev().collect::<Vec<_>>());
        assert_eq!(status["totals"]["failed"], wanted.len());
        assert_eq!(status["totals"]["causes"]["connection_refused"], wanted.len());
    }
    // Another size is another zone.
    nginx.reload_with(self::conf(&dead, "upstream_diag_zone 512k;"));
    assert_eq!(status(&nginx)["totals"]["failed"], 0);
    fail(&nginx, "after", 1);
    assert_eq!(uris(&status(&nginx)), ["/after0"]);
    // And none at all is none.
    nginx.reload_with(Conf::new("location /status { upstream_diag_status; }"));
    let status = status(&nginx);
    assert_eq!((&status["zone"]["bytes"], uris(&status).len()), (&0.into(), 0));
    nginx.stop();
}

/// Guards against a worker that sees only its own records, and against those of a worker that was
/// killed being lost, or locked away.
#[test]
fn workers_share_and_survive_each_other() {
    let dead = t::refused_port();
    let mut conf = conf(&dead, "").workers(2);
    // The kernel spreads connections over the workers by their ports.
    conf.servers[0].push_str("listen 127.0.0.1:{port} reuseport;");
    let nginx = Nginx::start(conf);
    let mut failures = 0;
    let spread = |failures: &mut usize| {
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            seen.extend(fail(&nginx, "x", 1));
            *failures += 1;
            assert!(*failures < 500, "one worker takes every connection");
        }
        seen
    };
    let seen = spread(&mut failures);
    let workers: BTreeSet<_> = nginx.worker_pids().into_iter().map(u64::from).collect();
    assert_eq!(seen, workers);
    let document = status_of(&nginx, failures);
    let recent = document["recent"].as_array().expect("records");
    let pids: BTreeSet<_> = recent.iter().filter_map(|r| r["pid"].as_u64()).collect();
    assert_eq!((pids, recent.len()), (workers.clone(), failures));

    nginx.kill_worker(nginx.worker_pids()[0], Signal::KILL);
    assert_eq!(status(&nginx)["totals"]["failed"], failures);
    let now = spread(&mut failures);
    assert!(now != workers && now.len() == 2);
    assert_eq!(uris(&status_of(&nginx, failures)).len(), failures);
}

/// Guards against a lock that dies with a worker, and records torn by its death.
#[test]
fn workers_killed_under_load_leave_a_whole_zone() {
    const KILLED: u64 = 4;
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(&dead, "upstream_diag_zone 168k;").workers(2));
    // A worker that died with the lock: what is tested here, and nginx's own word for it.
    nginx.allow_log("\" was locked by ");
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let load = || {
            while !stop.load(Ordering::SeqCst) {
                // Connections to the worker that is killed end without an answer.
                let request = b"GET /load HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                if nginx.connect().try_request(request).is_ok_and(|r| r.status == 502) {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        // Also when a check here fails.
        let _stop = Stop(&stop);
        scope.spawn(load);
        scope.spawn(load);
        for _ in 0..KILLED {
            nginx.kill_worker(nginx.worker_pids()[0], Signal::KILL);
            let before = answered.load(Ordering::SeqCst);
            let more = || (answered.load(Ordering::SeqCst) > before + 20).then_some(());
            t::eventually("requests go on", SOON, more);
        }
    });
    fail(&nginx, "last", 1);
    let has_last = || Some(status(&nginx)).filter(|status| uris(status).contains(&"/last0"));
    let status = t::eventually("the last record", SOON, has_last);
    assert!(uris(&status).iter().all(|uri| ["/load", "/last0"].contains(uri)));
    // A worker may die between an answer and the counter, with one request of either thread.
    let counted = status["totals"]["failed"].as_u64().expect("a number");
    let answered = answered.into_inner() as u64;
    assert!(counted + 2 * KILLED > answered, "{counted} of {answered}");
}

/// Ends the load.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Guards against lines that go on to a file that was moved away.
#[test]
fn usr1_opens_the_logs_again() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(&dead, "upstream_diag_log {prefix}/diag.json;").workers(2));
    fail(&nginx, "old", 3);
    nginx.wait_json_lines("diag.json", 3);
    nginx.rotate("diag.json");
    fail(&nginx, "new", 2);
    let new = nginx.wait_json_lines("diag.json", 2);
    assert_eq!((&new[0]["uri"], &new[1]["uri"]), (&"/new0".into(), &"/new1".into()));
    assert_eq!(nginx.json_log("diag.json.1").len(), 3);
    nginx.stop();
}

/// Guards against a full zone that keeps the oldest records, stops counting, or complains.
#[test]
fn a_full_zone_keeps_the_newest() {
    const MANY: usize = 900;
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(&dead, "upstream_diag_zone 320k; keepalive_requests 10000;"));
    fail(&nginx, "n", MANY);
    let status = status(&nginx);
    let kept = uris(&status);
    let newest: Vec<_> = (0..MANY).rev().take(kept.len()).map(|i| format!("/n{i}")).collect();
    assert_eq!(kept, newest);
    assert!(kept.len() > 50 && kept.len() < MANY, "{}", kept.len());
    assert_eq!(status["totals"]["failed"], MANY);
    assert_eq!(status["totals"]["causes"]["connection_refused"], MANY);
    assert_eq!(status["zone"]["bytes"], 320 * 1024);
    let none = json!({"records": 0, "lines": 0, "suppressed": 0, "peers": 0});
    assert_eq!(status["dropped"], none);
    let log = nginx.error_log();
    assert!(!log.contains("[crit]") && !log.contains("[warn]"), "{log}");
    assert_eq!(log.matches("[error]").count(), log.matches("connect() failed").count(), "{log}");
}

/// Guards against a condition that is not asked, or asked of another request.
#[test]
fn conditions_and_several_logs() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(
        &dead,
        "map $upstream_diag_cause $is_reset { connection_reset 1; default 0; }
         upstream_diag_log {prefix}/all.json;
         upstream_diag_log {prefix}/cause.json if=$upstream_diag_cause;
         upstream_diag_log {prefix}/arg.json if=$arg_x;
         upstream_diag_log {prefix}/reset.json if=$is_reset;
         upstream_diag_log {prefix}/both.json if=$arg_x$arg_y;
         upstream_diag_log {prefix}/all.json;",
    ));
    for path in ["/a", "/b?x=1", "/c?x=0", "/d?y=2", "/e?x="] {
        assert_eq!(nginx.get(path).status, 502);
    }
    // Written one after another by one worker: when the last is there, all are.
    nginx.wait_json_lines("all.json", 10);
    let paths = |name| -> Vec<_> {
        nginx
            .json_log(name)
            .iter()
            .map(|r| r["uri"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(paths("cause.json"), ["/a", "/b", "/c", "/d", "/e"]);
    assert_eq!(paths("all.json").len(), 10);
    assert_eq!(paths("arg.json"), ["/b"]);
    assert_eq!(paths("both.json"), ["/b", "/d"]);
    assert!(paths("reset.json").is_empty());
}

/// Guards against a line that is cut, split or wrapped on its way to syslog.
#[test]
fn syslog_lines_arrive_whole() {
    let peers: Vec<_> = (0..30).map(|_| t::refused_port()).collect();
    let servers: String = peers.iter().map(|p| format!("server {};", p.addr())).collect();
    let dir = t::temp_dir();
    let path = dir.path().join("log.sock");
    let unix = UnixDatagram::bind(&path).expect("a datagram socket");
    set_permissions(&path, Permissions::from_mode(0o777)).expect("chmod");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
    unix.set_read_timeout(Some(SOON)).expect("a timeout");
    udp.set_read_timeout(Some(SOON)).expect("a timeout");
    let server = "location / { proxy_pass http://many; }";
    let nginx = Nginx::start(
        Conf::new(server).http(format!("upstream many {{ {servers} }}")).http(format!(
            "upstream_diag on;
             upstream_diag_log syslog:server={},tag=udp,severity=error;
             upstream_diag_log syslog:server=unix:{},tag=unix,nohostname,facility=local1;",
            udp.local_addr().expect("its port"),
            path.display(),
        )),
    );
    assert_eq!(nginx.get("/first").status, 502);
    let mut datagram = vec![0; 1 << 16];
    for (tag, priority, uri) in [("udp", 187, "/first"), ("unix", 142, "/first")] {
        let n = match tag {
            "udp" => udp.recv(&mut datagram),
            _ => unix.recv(&mut datagram),
        };
        let text = String::from_utf8_lossy(&datagram[..n.expect("a datagram")]).into_owned();
        assert!(text.starts_with(&format!("<{priority}>")), "{text}");
        let (_, json) = text.split_once(&format!(" {tag}: ")).expect("the tag");
        let record: Value = serde_json::from_str(json).expect("one whole record");
        assert_eq!(record["uri"], uri);
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(30));
        assert!(json.len() > 4096, "{}", json.len());
    }
}
