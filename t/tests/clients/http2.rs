//! Requests on one HTTP/2 connection, where all share what HTTP/1 has for one.

use serde_json::json;
use t::diag;
use t::{Nginx, Streams, Upstream, script, streams};

use crate::REFUSED;

/// A server that speaks HTTP/2, in front of upstreams of several kinds.
struct World {
    nginx: Nginx,
    dead: Vec<t::RefusedPort>,
    silent: Upstream,
    _others: Vec<Upstream>,
}

impl World {
    fn new() -> Self {
        let dead: Vec<_> = (0..2).map(|_| t::refused_port()).collect();
        let silent = Upstream::tcp(script::silent());
        let good = Upstream::tcp(script::ok("good"));
        let own = Upstream::tcp(script::status(503));
        let cut = Upstream::tcp(script::partial_body(100, "part", script::End::Fin));
        let reset = Upstream::tcp(|_, conn| {
            conn.read_some();
            conn.reset();
        });
        let nginx = Nginx::start(
            diag::conf(format!(
                "{} location /dead {{ proxy_pass http://{}; }}
                 location /good {{ proxy_pass http://{}; }}
                 location /own {{ proxy_pass http://{}; }}
                 location /cut {{ proxy_pass http://{}; }}
                 location /masked {{ proxy_pass http://masked; }}
                 location /silent {{ proxy_pass http://{}; }}
                 location /retried {{ proxy_pass http://retried; }}
                 location /upload {{ proxy_request_buffering off; proxy_http_version 1.1;
                                     proxy_pass http://{}; }}
                 location /local {{ return 503; }}",
                streams::listen(),
                dead[0].addr(),
                good.addr(),
                own.addr(),
                cut.addr(),
                silent.addr(),
                reset.addr(),
            ))
            .http(format!(
                "upstream masked {{ server {dead} max_fails=0; server {} backup; }}
                 upstream retried {{ server {dead} max_fails=0; server {} backup; }}",
                good.addr(),
                silent.addr(),
                dead = dead[1].addr(),
            )),
        );
        Self { nginx, dead, silent, _others: vec![good, own, cut, reset] }
    }

    /// The records of this URI, by number.
    fn records(&self, uri: &str) -> Vec<usize> {
        let records = self.nginx.json_log("diag.json");
        (0..records.len()).filter(|n| records[*n]["uri"] == uri).collect()
    }
}

/// Guards against the records of streams, which share a connection and its log, being mixed up.
#[test]
fn streams_in_parallel() {
    let world = World::new();
    let nginx = &world.nginx;
    let wanted = [
        ("/good", 200, "", "", 1),
        ("/dead", 502, REFUSED, "failed", 1),
        ("/own", 503, "upstream_response", "passed", 1),
        ("/masked", 200, REFUSED, "masked", 2),
        ("/cut", 200, "response_truncated", "truncated", 1),
        ("/local", 503, "local_return", "failed", 0),
    ];
    const ROUNDS: usize = 3;
    let mut client = Streams::connect(nginx);
    let numbers: Vec<u32> = (0..).map(|n| 2 * n + 1).take(ROUNDS * wanted.len()).collect();
    for (stream, (path, ..)) in numbers.iter().zip(wanted.iter().cycle()) {
        client.ask(*stream, "GET", path);
    }
    client.send().expect("sent");
    let streams = client.wait(&numbers);
    drop(client);
    for (stream, (path, status, cause, ..)) in streams.iter().zip(wanted.iter().cycle()) {
        assert_eq!(stream.status, *status, "{path}");
        assert_eq!(stream.complete, *cause != "response_truncated", "{path}: {stream:?}");
    }
    nginx.wait_lines("access.log", numbers.len());
    for (path, status, cause, outcome, attempts) in wanted {
        let found = world.records(path);
        assert_eq!(found.len(), if cause.is_empty() { 0 } else { ROUNDS }, "{path}");
        for n in found {
            let seen = diag::seen(nginx, n);
            seen.expect(cause, &json!({"status": status, "outcome": outcome}));
            assert_eq!(seen.record["attempts"].as_array().map(Vec::len), Some(attempts), "{path}");
        }
    }
    diag::finish(nginx);
}

/// Guards against a stream that the client has ended being a failure, or the end of the others.
#[test]
fn streams_are_cancelled() {
    for close in [false, true] {
        let world = World::new();
        let nginx = &world.nginx;
        let mut client = Streams::connect(nginx);
        client.ask(1, "GET", "/silent").ask(3, "GET", "/retried").ask(5, "GET", "/masked");
        client.send().expect("sent");
        world.silent.wait_requests(2);
        assert_eq!(client.wait(&[5])[0].status, 200);
        if !close {
            client.cancel(1).cancel(3).ask(7, "GET", "/dead").send().expect("sent");
            assert_eq!(client.wait(&[7])[0].status, 502);
        }
        drop(client);
        let lines = nginx.wait_json_lines("access.log", if close { 3 } else { 4 });
        let line = lines.iter().find(|line| line["uri"] == "/silent").expect("its line");
        assert_eq!(line["status"], "499");
        diag::assert_empty(line);
        assert_eq!(world.records("/silent"), [0; 0]);
        let retried = world.records("/retried");
        diag::seen(nginx, retried[0]).expect(
            REFUSED,
            &json!({
                "status": 499, "outcome": "aborted",
                "attempts": [{"peer": world.dead[1].addr(), "status": 502},
                             {"peer": world.silent.addr(), "cause": null}],
            }),
        );
        let other = if close { "/masked" } else { "/dead" };
        assert_eq!((retried.len(), world.records(other).len()), (1, 1));
        diag::finish(nginx);
    }
}

/// Guards against the failure of an upload on one stream being taken for another stream's, or for
/// the client's.
#[test]
fn streams_upload() {
    let world = World::new();
    let nginx = &world.nginx;
    let mut client = Streams::connect(nginx);
    client.ask(1, "POST", "/upload").body(1, &[b'x'; 4000], false);
    client.ask(3, "POST", "/dead").body(3, &[b'x'; 4000], true);
    client.ask(5, "POST", "/good").body(5, &[b'x'; 4000], true);
    client.send().expect("sent");
    let streams = client.wait(&[1, 3, 5]);
    drop(client);
    assert_eq!(streams.iter().map(|s| s.status).collect::<Vec<_>>(), [502, 502, 200]);
    nginx.wait_lines("access.log", 3);
    for (path, cause, phase) in
        [("/upload", "connection_reset", "send"), ("/dead", REFUSED, "connect")]
    {
        let found = world.records(path);
        diag::seen(nginx, found[0]).expect(
            cause,
            &json!({"method": "POST", "status": 502, "outcome": "failed", "phase": phase}),
        );
        assert_eq!(found.len(), 1, "{path}");
    }
    assert_eq!(nginx.lines("diag.json").len(), 2);
    diag::finish(nginx);
}

/// Guards against an upload that the client has ended being a failure, or hiding the one before.
#[test]
fn uploads_are_cancelled() {
    let dead = t::refused_port();
    let (send, receive) = std::sync::mpsc::channel();
    let up = Upstream::tcp(move |_, conn| {
        conn.read_until(|bytes| bytes.windows(4).any(|w| w == b"half"));
        let _ = send.send(());
        conn.wait_peer_close();
    });
    for behind in [false, true] {
        let first = if behind { format!("server {};", dead.addr()) } else { String::new() };
        let nginx = Nginx::start(
            diag::conf(format!(
                "{} location / {{ proxy_request_buffering off; proxy_http_version 1.1;
                                  proxy_pass http://u; }}",
                streams::listen()
            ))
            .http(format!("upstream u {{ {first} server {}; }}", up.addr())),
        );
        let mut client = Streams::connect(&nginx);
        client.ask(1, "POST", "/page").body(1, b"half", false).send().expect("sent");
        receive.recv_timeout(std::time::Duration::from_secs(5)).expect("half of the body");
        client.cancel(1).send().expect("sent");
        let line = nginx.wait_json_lines("access.log", 1).remove(0);
        if behind {
            diag::seen(&nginx, 0).expect(
                REFUSED,
                &json!({
                    "outcome": "aborted", "method": "POST",
                    "attempts": [{"peer": dead.addr()}, {"peer": up.addr(), "cause": null}],
                }),
            );
        } else {
            diag::assert_empty(&line);
            assert_eq!(nginx.lines("diag.json"), [""; 0]);
        }
        drop(client);
        diag::finish(&nginx);
    }
}
