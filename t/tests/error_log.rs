//! The user's own error log neither loses a line to the module nor gains one from it.
//!
//! The same failures are scripted for an nginx with the module and one without, and what the two
//! have logged is compared, whatever `error_log` there is.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::collections::BTreeMap;
use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;

use t::{Conf, ErrorLog, Nginx};

#[path = "error_log/compare.rs"]
mod compare;
use compare::{
    FAILURES, REQUESTS, With, World, comparable, conf, difference, level_of, lines, normal, run,
    same,
};

/// Guards against a head whose level is lower than that of the log behind it (lines are lost),
/// or whose level becomes that of the log (lines are gained, or nothing is diagnosed).
#[test]
fn main_level_log() {
    let world = World::new();
    for level in ["emerg", "crit", "error", "warn", "info"] {
        let logs =
            same(level, &["error.log"], |with| conf(&world, with, [""; 3], "").log_level(level));
        let lines = &logs["error.log"];
        let count = |level| level_of(lines, level).len();
        assert_eq!(count("crit"), usize::from(level != "emerg"), "{lines:#?}");
        assert_eq!(count("error") >= 17, matches!(level, "error" | "warn" | "info"), "{lines:#?}");
    }
}

/// Guards against a head made for a log that nginx completes only later, and that has then
/// another level or another place.
#[test]
fn no_log_and_a_log_behind_the_http_block() {
    let world = World::new();
    let none = same("none", &["error.log"], |with| {
        conf(&world, with, [""; 3], "").error_log(ErrorLog::None)
    });
    assert!(level_of(&none["error.log"], "error").len() >= 17, "{none:#?}");
    for (level, errors) in [("crit", false), ("info", true)] {
        let logs = same(level, &["error.log", "second.log"], |with| {
            conf(&world, with, [""; 3], "").error_log(ErrorLog::None).after(format!(
                "error_log {{prefix}}/second.log error;\nerror_log {{prefix}}/error.log {level};"
            ))
        });
        assert_eq!(level_of(&logs["error.log"], "error").len() >= 17, errors, "{logs:#?}");
        assert!(level_of(&logs["second.log"], "error").len() >= 17, "{logs:#?}");
    }
}

/// Guards against lines that go to the log of another block.
#[test]
fn logs_of_blocks() {
    let world = World::new();
    let files = ["error.log", "server.log", "one.log", "two.log", "three.log"];
    let own = [
        "error_log {prefix}/one.log crit;",
        "error_log {prefix}/two.log info;",
        "error_log {prefix}/three.log error; error_log {prefix}/three.log crit;",
    ];
    for server in ["", "error_log {prefix}/server.log error;"] {
        let logs = same("blocks", &files, |with| conf(&world, with, own, server).log_level("warn"));
        assert_eq!(logs["server.log"].is_empty(), server.is_empty());
        assert_eq!(level_of(&logs["two.log"], "error").len(), 3, "{logs:#?}");
        assert!(logs["one.log"].is_empty() && logs["three.log"].is_empty(), "{logs:#?}");
    }
}

/// Guards against a chain of logs that is cut, or written twice, behind the head.
#[test]
fn several_logs_in_one_block() {
    let world = World::new();
    let files = ["error.log", "a.log", "b.log", "c.log"];
    let three = "error_log {prefix}/a.log crit; error_log {prefix}/b.log info;
                 error_log {prefix}/c.log error;";
    let main = same("main", &files, |with| {
        let log = ErrorLog::Custom(format!("error_log {{prefix}}/error.log warn; {three}"));
        conf(&world, with, [""; 3], "").error_log(log)
    });
    let server = same("server", &files, |with| conf(&world, with, [""; 3], three));
    let location = same("location", &files, |with| conf(&world, with, [three; 3], ""));
    for logs in [main, server, location] {
        assert!(logs["b.log"].len() >= logs["c.log"].len() && !logs["c.log"].is_empty());
        assert!(logs["c.log"].len() > logs["a.log"].len(), "{logs:#?}");
    }
}

/// Guards against the writer of a syslog log being lost to the tap's.
#[test]
fn logs_that_go_to_syslog() {
    let world = World::new();
    // The kernel keeps ten datagrams for a unix socket, and drops what comes then.
    let few = &REQUESTS[1..7];
    let run = |with, local: bool, level: &str| {
        let dir = t::temp_dir();
        let path = dir.path().join("log.sock");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
        let unix = UnixDatagram::bind(&path).expect("a datagram socket");
        set_permissions(&path, Permissions::from_mode(0o777)).expect("chmod");
        let server = match local {
            true => format!("unix:{}", path.display()),
            false => udp.local_addr().expect("its port").to_string(),
        };
        let log = format!("error_log syslog:server={server},nohostname,tag=t {level};");
        let file = "error_log {prefix}/error.log error;";
        let log = ErrorLog::Custom(format!("{log} {file}"));
        let conf = conf(&world, with, [""; 3], "");
        let (mut logs, records) = self::run(conf.error_log(log), few, &["error.log"]);
        udp.set_nonblocking(true).expect("fcntl");
        unix.set_nonblocking(true).expect("fcntl");
        let receive = |part: &mut [u8]| -> io::Result<usize> {
            if local { unix.recv(part) } else { udp.recv(part) }
        };
        let mut lines = Vec::new();
        let mut part = [0; 4096];
        while let Ok(n) = receive(&mut part) {
            let line = String::from_utf8_lossy(&part[..n]);
            // <187>Nov 21 01:45:45 t: and then what a file gets.
            lines.extend(line.split_once(" t: ").and_then(|(_, line)| normal(line)));
        }
        lines.sort();
        logs.insert("syslog".to_owned(), lines);
        (logs, records)
    };
    for local in [false, true] {
        for (level, lines) in [("crit", 1), ("error", 7), ("warn", 9)] {
            let (plain, _) = run(With::Nothing, local, level);
            let (on, records) = run(With::On, local, level);
            assert_eq!((difference(&plain, &on), records), (Vec::new(), few.len()), "{level}");
            assert_eq!(plain["syslog"].len(), lines, "{plain:#?}");
        }
    }
}

/// Guards against debug lines being lost behind a head, of a debug log or of the connections
/// that `debug_connection` names.
#[test]
fn debug_logs() {
    let world = World::new();
    let files = ["error.log", "debug.log"];
    for place in ["main", "server", "connection"] {
        let conf = |with| {
            let debug = "error_log {prefix}/debug.log debug;";
            let conf = |server| conf(&world, with, [""; 3], server);
            let also =
                |text: &str| ErrorLog::Custom(format!("{text} error_log {{prefix}}/error.log;"));
            match place {
                "main" => conf("").error_log(also(debug)),
                "server" => conf(debug),
                _ => conf("")
                    .events("debug_connection 127.0.0.1;")
                    .error_log(also("error_log {prefix}/debug.log warn;")),
            }
        };
        let (plain, on) =
            (run(conf(With::Nothing), &REQUESTS, &files), run(conf(With::On), &REQUESTS, &files));
        assert_eq!(on.1, FAILURES, "{place}");
        let (plain, on) = (comparable(plain.0), comparable(on.0));
        assert!(plain["debug.log"].len() > 500, "{plain:#?}");
        assert_eq!(difference(&plain, &on), [""; 0], "{place}");
    }
}

/// Guards against a listener that copies a head which has no level yet: what is logged of a
/// connection before its first request would be lost.
#[test]
fn connections_without_a_request() {
    for level in ["error", "info", "debug"] {
        let ask = |with| {
            let server = "listen 127.0.0.1:{port} proxy_protocol; return 200;";
            let conf = Conf::new(server).server("return 200;").log_level(level);
            let conf = match with {
                With::Nothing => conf.without_module(),
                With::Off => conf,
                With::On => conf.http("upstream_diag on;"),
            };
            let nginx = Nginx::start(conf);
            // The first is no PROXY protocol header, which is an error; the second says nothing,
            // which is worth an info.
            nginx.request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut client = nginx.connect_to(1);
            client.shutdown_write().expect("shutdown");
            assert!(client.wait_closed());
            nginx.stop();
            comparable(BTreeMap::from([("error.log".to_owned(), lines(&nginx, "error.log"))]))
        };
        let plain = ask(With::Nothing);
        assert_eq!(level_of(&plain["error.log"], "error").len(), 1, "{plain:#?}");
        assert_eq!(level_of(&plain["error.log"], "info").len() == 1, level != "error");
        assert_eq!(difference(&plain, &ask(With::Off)), [""; 0], "{level}: off");
        assert_eq!(difference(&plain, &ask(With::On)), [""; 0], "{level}: on");
    }
}
