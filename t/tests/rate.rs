//! Lines that are not written: left out by `rate=`, or lost on a disk or on their way to syslog.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::collections::BTreeMap;
use std::fs::{Permissions, set_permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use t::schema::check_record;
use t::{Conf, Nginx, RefusedPort, diag};

const SOON: Duration = Duration::from_secs(5);

/// What nginx's error log says of a line that was lost.
const LOST: &str = "upstream_diag: a line of upstream_diag_log could not be written";

/// Everything but `/status` fails to connect.
fn conf(dead: &RefusedPort, http: &str) -> Conf {
    Conf::new(format!(
        "location / {{ proxy_pass http://{}; }} location = /status {{ upstream_diag_status; }}",
        dead.addr()
    ))
    .http("upstream_diag on; keepalive_requests 100000;")
    .http(http)
}

/// Fails so many times on one connection.
fn fail(nginx: &Nginx, path: &str, n: usize) {
    let mut client = nginx.connect();
    for _ in 0..n {
        assert_eq!(client.get(path).status, 502);
    }
}

/// The `dropped` of the status document.
fn dropped(nginx: &Nginx, what: &str) -> u64 {
    diag::status_at(nginx, "/status")["dropped"][what].as_u64().expect("a number")
}

/// The lines of a log, each a valid record.
fn lines(nginx: &Nginx, name: &str) -> Vec<Value> {
    let lines = nginx.json_log(name);
    lines.iter().for_each(check_record);
    lines
}

/// How many lines were left out, as the lines say.
fn suppressed(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["suppressed"].as_u64().unwrap_or(0)).sum()
}

/// The most lines in a second.
fn most_in_a_second(lines: &[Value]) -> usize {
    let mut seconds: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let time = line["time"].as_str().and_then(|time| time.get(..19)).expect("a time");
        *seconds.entry(time).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}

/// Fails once a while until a line is written again, and gives how often.
fn until_a_line(nginx: &Nginx, name: &str) -> usize {
    let before = nginx.lines(name).len();
    let mut asked = 0;
    t::eventually("another line", SOON, || {
        fail(nginx, "/again", 1);
        asked += 1;
        // Written before the next response is begun.
        diag::status_at(nginx, "/status");
        (nginx.lines(name).len() > before).then_some(())
    });
    asked
}

/// Guards against more lines than were asked for, and against some that are left out without
/// anybody being told how many.
#[test]
fn the_next_line_tells_how_many_were_left_out() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(&dead, "upstream_diag_log {prefix}/diag.json rate=2r/s;"));
    fail(&nginx, "/burst", 50);
    let all = 50 + until_a_line(&nginx, "diag.json");
    let lines = lines(&nginx, "diag.json");
    assert!(most_in_a_second(&lines) <= 2, "{lines:#?}");
    assert_eq!(lines[0]["suppressed"], Value::Null);
    assert!(suppressed(&lines) > 0, "{lines:#?}");
    // The last line is of the last request: no number is lost or told twice.
    assert_eq!(lines.len() as u64 + suppressed(&lines), all as u64);
    assert_eq!(dropped(&nginx, "suppressed"), suppressed(&lines));
    assert_eq!(dropped(&nginx, "lines"), 0);
    // Counted and kept are all of them, and what is kept says nothing of other requests.
    let status = diag::status_at(&nginx, "/status");
    assert_eq!(status["totals"]["failed"], all);
    let recent = status["recent"].as_array().expect("records");
    assert_eq!((recent.len(), suppressed(recent)), (all, 0));
    nginx.stop();
}

/// Guards against each worker having the whole rate, and against numbers that are lost between
/// them.
#[test]
fn workers_share_a_rate() {
    let dead = t::refused_port();
    let mut conf = conf(&dead, "upstream_diag_log {prefix}/diag.json rate=2r/s;").workers(4);
    // The kernel spreads connections over the workers by their ports.
    conf.servers[0].push_str("listen 127.0.0.1:{port} reuseport;");
    let nginx = Nginx::start(conf);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    fail(&nginx, "/burst", 1);
                }
            });
        }
    });
    let all = 400 + until_a_line(&nginx, "diag.json");
    t::eventually("all are counted", SOON, || {
        (diag::status_at(&nginx, "/status")["totals"]["failed"] == all).then_some(())
    });
    let lines = lines(&nginx, "diag.json");
    // A second may have begun for one worker and not yet for another, for some milliseconds. Each
    // with a rate of its own would have written eight.
    assert!(most_in_a_second(&lines) <= 5, "{lines:#?}");
    let left_out = dropped(&nginx, "suppressed");
    assert_eq!(lines.len() as u64 + left_out, all as u64);
    // Those that came after the last line are told with the next.
    assert!(suppressed(&lines) <= left_out && suppressed(&lines) > 0);
    nginx.stop();
}

/// Guards against logs that use up each other's lines, or tell each other's numbers; and against
/// a condition that is asked too late.
#[test]
fn each_log_has_its_own_rate() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(
        &dead,
        "upstream_diag_log {prefix}/one.json rate=1r/s;
         upstream_diag_log {prefix}/all.json;
         upstream_diag_log {prefix}/five.json rate=5r/s;
         upstream_diag_log {prefix}/some.json if=$arg_x rate=1r/s;
         upstream_diag_log {prefix}/many.json rate=1000000r/s;",
    ));
    fail(&nginx, "/burst", 40);
    nginx.wait_lines("all.json", 40);
    fail(&nginx, "/this?x=1", 1);
    nginx.wait_lines("all.json", 41);
    diag::status_at(&nginx, "/status");
    let [one, all, five, some, many] =
        ["one.json", "all.json", "five.json", "some.json", "many.json"]
            .map(|name| lines(&nginx, name));
    assert_eq!((all.len(), suppressed(&all)), (41, 0));
    assert_eq!((many.len(), suppressed(&many)), (41, 0));
    assert!(most_in_a_second(&one) == 1 && most_in_a_second(&five) <= 5);
    assert!(five.len() > one.len());
    // Those that the condition rules out are not left out: nobody wanted them.
    assert_eq!((some.len(), suppressed(&some)), (1, 0));
    assert_eq!(some[0]["uri"], "/this");
    let left_out = (41 - one.len()) + (41 - five.len());
    assert_eq!(dropped(&nginx, "suppressed"), left_out as u64);
    nginx.stop();
}

/// Guards against a rate that every location has for itself, though the log is the same; and
/// against one that reaches a log of the same name with another.
#[test]
fn locations_share_the_log_above_them() {
    let dead = t::refused_port();
    let mut conf = conf(&dead, "upstream_diag_log {prefix}/diag.json rate=1r/s;");
    conf.servers[0].push_str(&format!(
        "location /a {{ proxy_pass http://{addr}; }} location /b {{ proxy_pass http://{addr}; }}
         location /own {{ upstream_diag_log {{prefix}}/own.json; proxy_pass http://{addr}; }}",
        addr = dead.addr()
    ));
    let nginx = Nginx::start(conf);
    for _ in 0..10 {
        for path in ["/a", "/b", "/c", "/own"] {
            fail(&nginx, path, 1);
        }
    }
    nginx.wait_lines("own.json", 10);
    let (shared, own) = (lines(&nginx, "diag.json"), lines(&nginx, "own.json"));
    assert_eq!((most_in_a_second(&shared), own.len()), (1, 10));
    assert_eq!(dropped(&nginx, "suppressed"), 30 - shared.len() as u64);
    nginx.stop();
}

/// Guards against numbers that are left out being told of the log that now has another's place.
#[test]
fn a_reload_begins_anew() {
    let dead = t::refused_port();
    let conf = |http: &str| conf(&dead, http);
    let nginx = Nginx::start(conf("upstream_diag_log {prefix}/a.json rate=1r/s;"));
    fail(&nginx, "/a", 20);
    t::eventually("lines are left out", SOON, || (dropped(&nginx, "suppressed") > 0).then_some(()));
    let before = dropped(&nginx, "suppressed");
    nginx.reload_with(conf("upstream_diag_log {prefix}/b.json rate=5r/s;"));
    until_a_line(&nginx, "b.json");
    assert_eq!(lines(&nginx, "b.json")[0]["suppressed"], Value::Null);
    assert!(dropped(&nginx, "suppressed") >= before);
    nginx.stop();
}

/// Guards against a log that cannot be written being noticed by the client, or by nobody, or being
/// complained of with each line.
#[test]
fn a_full_disk() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(
        &dead,
        "upstream_diag_log /dev/full; upstream_diag_log {prefix}/diag.json;
         upstream_diag_log /dev/full rate=1r/s if=$arg_x;",
    ));
    nginx.allow_log(LOST);
    fail(&nginx, "/x", 5);
    fail(&nginx, "/x?x=1", 1);
    assert_eq!(nginx.wait_lines("diag.json", 6).len(), 6);
    let status = diag::status_at(&nginx, "/status");
    assert_eq!((&status["dropped"]["lines"], &status["totals"]["failed"]), (&7.into(), &6.into()));
    assert_eq!(status["dropped"]["records"], 0);
    assert_eq!(status["recent"].as_array().map(Vec::len), Some(6));
    let log = nginx.error_log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(LOST)).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("[alert]"), "{said:?}");
    assert!(!log.contains("[crit]") && !log.contains("[warn]"), "{log}");
    assert_eq!(log.matches("[error]").count(), log.matches("connect() failed").count(), "{log}");
    nginx.stop();
}

/// Guards against a syslog that is not there holding up requests, or losing lines unnoticed.
#[test]
fn a_syslog_that_is_not_there() {
    let dead = t::refused_port();
    let dir = t::temp_dir();
    let missing = dir.path().join("missing.sock");
    let udp =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    for (server, at_least) in [(format!("unix:{}", missing.display()), 12), (udp.to_string(), 4)] {
        let nginx = Nginx::start(conf(
            &dead,
            &format!(
                "upstream_diag_log syslog:server={server};
                 upstream_diag_log {{prefix}}/diag.json;"
            ),
        ));
        nginx.allow_log(LOST);
        // That syslog does not answer is for nginx to say, at its own level.
        nginx.allow_log("while logging to syslog");
        // nginx 1.22 says only this.
        nginx.allow_log(": connect() failed (2: No such file or directory)");
        fail(&nginx, "/x", 12);
        nginx.wait_lines("diag.json", 12);
        let lost = dropped(&nginx, "lines");
        // To a closed port every other datagram is known to be lost, by then with nobody's help.
        assert!((at_least..=12).contains(&lost), "{server}: {lost}");
        assert_eq!(nginx.error_log().matches(LOST).count(), 1, "{server}");
        nginx.stop();
    }
}

/// Guards against a syslog that does not read holding up requests, or never being written to again.
#[test]
fn a_syslog_that_does_not_read() {
    let dead = t::refused_port();
    let dir = t::temp_dir();
    let path = dir.path().join("log.sock");
    let syslog = UnixDatagram::bind(&path).expect("a datagram socket");
    set_permissions(&path, Permissions::from_mode(0o777)).expect("chmod");
    syslog.set_nonblocking(true).expect("not blocking");
    let nginx = Nginx::start(conf(
        &dead,
        &format!(
            "upstream_diag_log syslog:server=unix:{};
             upstream_diag_log {{prefix}}/diag.json;",
            path.display()
        ),
    ));
    nginx.allow_log(LOST);
    nginx.allow_log("while logging to syslog");
    let mut sent = 0;
    let mut received = 0;
    let mut datagram = vec![0; 1 << 16];
    for _ in 0..2 {
        // More than the kernel keeps for it.
        fail(&nginx, "/x", 1_000);
        sent += 1_000;
        nginx.wait_lines("diag.json", sent);
        let lost = dropped(&nginx, "lines");
        assert!(lost > 0, "the kernel keeps everything");
        while let Ok(n) = syslog.recv(&mut datagram) {
            let text = String::from_utf8_lossy(&datagram[..n]);
            let (_, json) = text.split_once(": ").expect("a tag");
            check_record(&serde_json::from_str(json).expect("a whole record"));
            received += 1;
        }
        assert_eq!(received + lost, sent as u64);
    }
    assert_eq!(nginx.error_log().matches(LOST).count(), 1);
    nginx.stop();
}

/// Guards against a record that is larger than a datagram being cut, or taking others with it.
#[test]
fn a_record_that_no_datagram_can_hold() {
    let dead: Vec<_> = (0..320).map(|_| t::refused_port()).collect();
    let servers: String = dead.iter().map(|port| format!("server {};", port.addr())).collect();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
    udp.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut conf = conf(
        &dead[0],
        &format!(
            "upstream many {{ {servers} }}
             upstream_diag_log syslog:server={};
             upstream_diag_log {{prefix}}/diag.json;",
            udp.local_addr().expect("its port")
        ),
    );
    conf.servers[0].push_str("location /many { proxy_pass http://many; }");
    let nginx = Nginx::start(conf);
    nginx.allow_log(LOST);
    nginx.allow_log("while logging to syslog");
    // nginx 1.22 does not say what for.
    nginx.allow_log("send() failed (90: Message too long)");
    assert_eq!(nginx.get("/many").status, 502);
    assert_eq!(nginx.get("/after").status, 502);
    nginx.wait_lines("diag.json", 2);
    let lines = lines(&nginx, "diag.json");
    assert!(lines[0].to_string().len() > 65_507, "{}", lines[0].to_string().len());
    assert_eq!(dropped(&nginx, "lines"), 1);
    let mut datagram = vec![0; 1 << 16];
    let n = udp.recv(&mut datagram).expect("a datagram");
    assert!(String::from_utf8_lossy(&datagram[..n]).contains("\"uri\":\"/after\""));
    nginx.stop();
}
