//! The causes of the phase "connect" that come of a worker that has nothing left. The others are
//! rows of `faults`.

#![allow(
    clippy::expect_used,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::time::Duration;

use serde_json::{Value, json};
use t::diag;
use t::{Client, Conf, Nginx, Upstream, script};

const SOON: Duration = Duration::from_secs(5);

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
