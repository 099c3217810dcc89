//! Each cause of the phase "connect", in an nginx whose connects fail that way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use t::diag::{self, Seen, assert_in};
use t::ports::Reservation;
use t::{Client, Conf, Nginx, Upstream, netns_available, script};

const SOON: Duration = Duration::from_secs(5);

/// A proxy in front of one server.
fn proxy(server: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {server} }}"))
}

/// One request of which the only attempt fails before there is a connection.
fn fails(conf: Conf, cause: &str, rest: &Value) -> Seen {
    let nginx = Nginx::start(conf);
    let response = nginx.get("/a/b?c=d");
    let seen = diag::seen(&nginx, 0);
    seen.expect(cause, &json!({"phase": "connect", "outcome": "failed", "origin": "nginx"}))
        .expect(cause, &json!({"uri": "/a/b", "location": "/", "upstream": "u", "module": "proxy"}))
        .expect(
            cause,
            &json!({"attempts": [{"phase": "connect", "reused": false, "header": null}]}),
        )
        .expect(cause, rest)
        .in_header(&response);
    // Only a connect that hangs has a socket to look at: all else would be another connection's.
    let hangs = cause == "connection_timed_out";
    assert_eq!(seen.attempt(0)["tcp"].is_null(), !hangs, "{seen:?}");
    assert_eq!(u64::from(response.status), seen.record["status"]);
    diag::finish(&nginx);
    seen
}

/// Guards against a refusal that is missed on one of the ways nginx learns of it: later for TCP,
/// at once for a unix socket.
#[test]
fn connection_refused() {
    let dir = t::temp_dir();
    let port = t::refused_port();
    let v6 = Reservation::v6().expect("a port on ::1");
    let v6_addr = v6.addr().to_string();
    let unix = t::dead_unix(&dir.path().join("stale.sock"));
    let at_once = format!("connect() to {unix} failed (111: Connection refused)");
    let later = "connect() failed (111: Connection refused)";
    for (addr, message) in
        [(port.addr(), later), (v6_addr, later), (unix.clone(), at_once.as_str())]
    {
        let seen = fails(
            proxy(&format!("server {addr};")),
            "connection_refused",
            &json!({
                "status": 502, "proxy_error": "connection_refused",
                "attempts": [{
                    "peer": addr, "cause": "connection_refused", "status": 502,
                    "errno": 111, "errname": "ECONNREFUSED", "message": message,
                    "peer_state": {"state": "up", "fails": 0, "max_fails": 1, "fail_timeout": 10,
                                   "down": false, "backup": false, "weight": 1, "max_conns": 0},
                }],
            }),
        );
        assert_eq!(seen.variable("addr"), addr);
        let summary = format!("{addr} refused the connection (ECONNREFUSED).");
        assert_eq!(seen.variable("summary"), summary);
        assert_in(&seen.attempt(0)["connect_time"], 0.0..5.0);
    }
}

/// Guards against a connect that hangs being reported without how long it did.
#[test]
fn connection_timed_out() {
    let full = t::full_backlog_tcp();
    let seen = fails(
        proxy(&format!("server {};", full.addr())).http("proxy_connect_timeout 150ms;"),
        "connection_timed_out",
        &json!({
            "status": 504, "proxy_error": "connection_timeout",
            "attempts": [{
                "peer": full.addr(), "cause": "connection_timed_out", "status": 504,
                "errno": 110, "errname": "ETIMEDOUT",
                "message": "upstream timed out (110: Connection timed out)",
                "bytes_sent": 0, "bytes_received": 0,
                "tcp": {"state": "SYN_SENT", "idle": null, "since_sent": null},
            }],
        }),
    );
    for time in ["connect_time", "elapsed"] {
        assert_in(&seen.attempt(0)[time], 0.15..5.0);
    }
    let time: f64 = seen.variable("connect_time").parse().expect("seconds");
    assert!(seen.variable("summary").contains(&format!("within {time:.3} s")), "{seen:?}");
}

/// Guards against a missing route being taken for a refusal.
#[test]
fn unreachable() {
    if !netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    // The loopback interface of a new namespace is down.
    fails(
        proxy("server 127.0.0.1:9;").netns("true"),
        "unreachable",
        &json!({
            "status": 502, "proxy_error": "destination_ip_unroutable",
            "attempts": [{
                "peer": "127.0.0.1:9", "cause": "unreachable", "status": 502,
                "errno": 101, "errname": "ENETUNREACH",
                "message": "connect() to 127.0.0.1:9 failed (101: Network is unreachable)",
            }],
        }),
    );
}

/// Guards against a socket that may not be used being taken for one that is not there.
#[test]
fn permission_denied() {
    let dir = t::temp_dir();
    let path = dir.path().join("private.sock");
    let up = Upstream::unix(&path, script::ok("never"));
    set_permissions(&path, Permissions::from_mode(0o000)).expect("chmod");
    fails(
        proxy(&format!("server {};", up.addr())),
        "permission_denied",
        &json!({
            "status": 502, "proxy_error": "proxy_configuration_error",
            "attempts": [{
                "peer": up.addr(), "cause": "permission_denied", "status": 502,
                "errno": 13, "errname": "EACCES",
                "message": format!("connect() to {} failed (13: Permission denied)", up.addr()),
            }],
        }),
    );
    assert_eq!(up.connections(), 0);
}

/// Guards against a missing socket being taken for one nobody listens on.
#[test]
fn socket_not_found() {
    let dir = t::temp_dir();
    let addr = format!("unix:{}", dir.path().join("none.sock").display());
    fails(
        proxy(&format!("server {addr};")),
        "socket_not_found",
        &json!({
            "status": 502, "proxy_error": "destination_not_found",
            "attempts": [{
                "peer": addr, "cause": "socket_not_found", "status": 502,
                "errno": 2, "errname": "ENOENT",
                "message": format!("connect() to {addr} failed (2: No such file or directory)"),
            }],
        }),
    );
}

/// Guards against EAGAIN of a unix socket being taken for that of TCP, which is something else.
#[test]
fn listen_queue_full() {
    let dir = t::temp_dir();
    let full = t::full_backlog_unix(&dir.path().join("full.sock"));
    let addr = full.addr();
    fails(
        proxy(&format!("server {addr};")),
        "listen_queue_full",
        &json!({
            "status": 502, "proxy_error": "destination_unavailable",
            "attempts": [{
                "peer": addr, "cause": "listen_queue_full", "status": 502,
                "errno": 11, "errname": "EAGAIN",
                "message": format!("connect() to {addr} failed (11: Resource temporarily unavailable)"),
            }],
        }),
    );
}

/// Guards against a host without local ports being blamed on the upstream.
#[test]
fn local_ports_exhausted() {
    if !netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    // The namespace has one port for outgoing connections, and nginx listens on it. Any other
    // number would do as well: nobody else has ports there.
    let one_port = "ip link set lo up\necho 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range";
    let conf = diag::conf(
        "listen unix:{prefix}/http0.sock; listen 127.0.0.1:40000;
         location / { proxy_pass http://u; }",
    );
    fails(
        conf.http("upstream u { server 127.0.0.1:9; }").netns(one_port),
        "local_ports_exhausted",
        &json!({
            "status": 502, "proxy_error": "proxy_internal_error",
            "attempts": [{
                "peer": "127.0.0.1:9", "cause": "local_ports_exhausted", "status": 502,
                "errno": 99, "errname": "EADDRNOTAVAIL",
                "message": "connect() to 127.0.0.1:9 failed (99: Cannot assign requested address)",
            }],
        }),
    );
}

/// An nginx that has given all of something to clients that say half a request: what it logs when
/// there is none left, and the request it then accepts on a connection it has.
fn exhausted(conf: Conf, full: &str, failed: &str, cause: &str, attempt: &Value) {
    let up = Upstream::tcp(script::ok("never"));
    let nginx = Nginx::start(conf.http(format!("upstream u {{ server {}; }}", up.addr())));
    nginx.allow_log(full.trim_end());
    nginx.allow_log(failed);
    let mut first = nginx.connect();
    first.send(b"GET / HTTP/1.1\r\n").expect("half a request");
    let mut others: Vec<Client> = Vec::new();
    t::eventually(full, SOON, || {
        let mut other = nginx.connect();
        // The last ones find the connection closed.
        let _ = other.send(b"GET / HTTP/1.1\r\n");
        others.push(other);
        nginx.error_log().contains(full).then_some(())
    });
    let response = first.request(b"Host: localhost\r\n\r\n");
    assert_eq!(response.status, 500);
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        cause,
        &json!({
            "phase": "connect", "outcome": "failed", "origin": "nginx", "status": 500,
            "proxy_error": "proxy_internal_error", "attempts": [attempt],
        }),
    )
    .expect(
        cause,
        &json!({"attempts": [{"peer": up.addr(), "cause": cause, "phase": "connect",
                              "reused": false, "tcp": null, "header": null}]}),
    )
    .in_header(&response);
    // nginx has no address for an attempt without a connection.
    assert_eq!((seen.variable("addr"), seen.variable("causes")), ("", cause));
    assert_eq!(up.connections(), 0);
    drop((first, others));
    diag::finish(&nginx);
}

/// Guards against a worker without descriptors being blamed on the upstream, and against an
/// attempt being lost of which nginx keeps no address.
#[test]
fn local_fds_exhausted() {
    let conf = diag::conf("location / { proxy_pass http://u; }").main("worker_rlimit_nofile 40;");
    exhausted(
        conf,
        "accept4() failed (24: Too many open files)",
        "socket() failed (24: Too many open files) while connecting to upstream",
        "local_fds_exhausted",
        &json!({"errno": 24, "errname": "EMFILE",
                "message": "socket() failed (24: Too many open files)"}),
    );
}

/// Guards against the same with connections, whose message has no errno.
#[test]
fn worker_connections_exhausted() {
    let conf = diag::conf("location / { proxy_pass http://u; }").events("worker_connections 24;");
    exhausted(
        conf,
        // Not "…, reusing connections": that is said while there are some left.
        "24 worker_connections are not enough\n",
        "24 worker_connections are not enough while connecting to upstream",
        "worker_connections_exhausted",
        &json!({"errno": null, "errname": null,
                "message": "24 worker_connections are not enough"}),
    );
}

/// Guards against the address in the message being taken for the peer's.
#[test]
fn bind_failed() {
    let up = Upstream::tcp(script::ok("never"));
    // An address for documentation, which no host has: nothing is sent.
    let conf = proxy(&format!("server {};", up.addr())).http("proxy_bind 192.0.2.1;");
    let seen = fails(
        conf,
        "bind_failed",
        &json!({
            "status": 500, "proxy_error": "proxy_configuration_error",
            "attempts": [{
                "peer": up.addr(), "cause": "bind_failed",
                "errno": 99, "errname": "EADDRNOTAVAIL",
                "message": "bind(192.0.2.1) failed (99: Cannot assign requested address)",
            }],
        }),
    );
    assert_eq!((seen.variable("addr"), seen.variable("causes")), ("", "bind_failed"));
    assert_eq!(up.connections(), 0);
}
