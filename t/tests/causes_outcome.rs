//! What becomes of requests: several attempts, clients that leave, a disk of nginx's own.

use std::time::Duration;

use serde_json::json;
use t::diag;
use t::{Conf, Nginx, Upstream, script};

/// A proxy in front of these servers.
fn proxy(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {servers} }}"))
}

/// Guards against a disk of nginx's own being put down to the upstream in the middle of a
/// response: a client that does not read makes nginx keep a large one in a file.
#[test]
fn internal_error_in_the_body() {
    let up = Upstream::tcp(script::ok("r".repeat(8 << 20)));
    let server = "listen unix:{prefix}/own.sock; location / { proxy_pass http://u; }";
    let conf = diag::conf(server).http(format!("upstream u {{ server {}; }}", up.addr()));
    let nginx = Nginx::start(conf);
    let tmp = nginx.path("tmp/proxy");
    std::fs::remove_dir_all(&tmp).expect("nginx has made the directory");
    let mut client = nginx.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let seen = diag::seen(&nginx, 0);
    let response = client.read_response(false).expect("a part of a response");
    assert_eq!((response.status, response.truncated), (200, true));
    seen.expect(
        "internal_error",
        &json!({
            "phase": "body", "outcome": "truncated", "origin": "nginx", "status": 200,
            "attempts": [{"peer": up.addr(), "cause": "internal_error", "phase": "body",
                          "status": 200, "errno": 2, "errname": "ENOENT"}],
        }),
    );
    let message = seen.attempt(0)["message"].as_str().unwrap_or_default();
    let (before, after) =
        (format!("open() \"{}/", tmp.display()), "(2: No such file or directory)");
    assert!(message.starts_with(&before) && message.ends_with(after), "{message}");
    assert_eq!(seen.variable("addr"), up.addr());
    let advice = seen.record["advice"].as_str().unwrap_or_default();
    assert!(advice.starts_with("nginx could not use a file of its own"), "{advice}");
    diag::finish(&nginx);
}

/// Guards against a failure that another server made good being lost, or counted as one.
#[test]
fn masked() {
    let (a, b) = (t::refused_port(), t::refused_port());
    let up = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(proxy(&format!(
        "server {}; server {}; server {};",
        a.addr(),
        b.addr(),
        up.addr()
    )));
    let response = nginx.get("/");
    assert_eq!(response.text(), "good");
    let seen = diag::seen(&nginx, 0);
    let refused = |addr: String| {
        json!({"peer": addr, "cause": "connection_refused", "phase": "connect", "status": 502,
               "errno": 111, "reused": false})
    };
    seen.expect(
        "connection_refused",
        &json!({
            "phase": "connect", "outcome": "masked", "origin": "nginx", "status": 200,
            "attempts": [
                refused(a.addr()),
                refused(b.addr()),
                {"peer": up.addr(), "cause": null, "phase": null, "status": 200, "errno": null,
                 "message": null, "bytes_sent": up.requests()[0].len()},
            ],
        }),
    )
    .in_header(&response);
    assert_eq!(seen.variable("causes"), "connection_refused, connection_refused, -");
    assert!(seen.variable("summary").ends_with("The client was served all the same."));
    // Both are out now: the next request has nothing to report.
    assert_eq!(nginx.get("/").text(), "good");
    nginx.wait_lines("access.log", 2);
    diag::finish(&nginx);
}

/// Guards against the attempts of two upstream requests being mixed up.
#[test]
fn a_fallback_is_a_group_of_its_own() {
    let (a, b, c) = (t::refused_port(), t::refused_port(), t::refused_port());
    let up = Upstream::tcp(script::ok("fallback"));
    for (fallback, outcome, status, last) in
        [(up.addr(), "masked", 200, "-"), (c.addr(), "failed", 502, "connection_refused")]
    {
        let conf = diag::conf(format!(
            "location / {{ proxy_pass http://u; error_page 502 = @fallback; }}
             location @fallback {{ proxy_pass http://{fallback}; }}",
        ));
        let servers = format!("server {}; server {};", a.addr(), b.addr());
        let nginx = Nginx::start(conf.http(format!("upstream u {{ {servers} }}")));
        let response = nginx.get("/");
        assert_eq!(response.status, status);
        let seen = diag::seen(&nginx, 0);
        let good = outcome == "masked";
        seen.expect(
            "connection_refused",
            &json!({
                "outcome": outcome, "status": status,
                "attempts": [
                    {"peer": a.addr(), "cause": "connection_refused"},
                    {"peer": b.addr(), "cause": "connection_refused"},
                    {"peer": fallback, "status": status,
                     "cause": if good { None } else { Some("connection_refused") }},
                ],
            }),
        )
        .in_header(&response);
        let causes = format!("connection_refused, connection_refused : {last}");
        assert_eq!(seen.variable("causes"), causes);
        diag::finish(&nginx);
    }
}

/// Guards against a client that leaves while nginx tries the next server counting as served, or
/// its request as a failure of that server.
#[test]
fn aborted() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let nginx = Nginx::start(proxy(&format!("server {}; server {};", dead.addr(), silent.addr())));
    let mut client = nginx.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    silent.wait_requests(1);
    drop(client);
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({
            "phase": "connect", "outcome": "aborted", "origin": "nginx", "status": 499,
            "attempts": [
                {"peer": dead.addr(), "cause": "connection_refused", "status": 502},
                {"peer": silent.addr(), "cause": null, "phase": null, "errno": null},
            ],
        }),
    );
    assert_eq!(seen.variable("causes"), "connection_refused, -");
    nginx.wait_for_log("client prematurely closed connection", Duration::from_secs(5));
    diag::finish(&nginx);
}

/// Guards against a client that leaves by itself being reported as a failure of the upstream.
#[test]
fn a_client_that_leaves_is_no_failure() {
    let silent = Upstream::tcp(script::silent());
    let nginx = Nginx::start(proxy(&format!("server {};", silent.addr())));
    let mut client = nginx.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    silent.wait_requests(1);
    drop(client);
    let lines = nginx.wait_json_lines("access.log", 1);
    assert_eq!(lines[0]["status"], "499");
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    diag::finish(&nginx);
}

/// Guards against what is known of one attempt being taken for another's: times, sizes, socket.
#[test]
fn attempts_keep_their_own_evidence() {
    let good = Upstream::tcp(script::ok("good"));
    let size = 5000;
    for (first, cause, evidence) in [
        (
            Upstream::tcp(script::silent()),
            "response_timed_out",
            json!({"errno": 110, "header": null, "bytes_received": 0}),
        ),
        (
            Upstream::tcp(script::partial_header_then_close()),
            "closed_in_header",
            json!({"errno": null, "header": {"exact": false}}),
        ),
        (
            Upstream::tcp(script::big_header(size)),
            "header_too_big",
            json!({"errno": null, "header": {"size": size, "exact": true}}),
        ),
    ] {
        let conf = proxy(&format!("server {}; server {};", first.addr(), good.addr()))
            .http("proxy_read_timeout 150ms; proxy_buffer_size 4k;")
            .http("proxy_next_upstream error timeout invalid_header;");
        let nginx = Nginx::start(conf);
        let response = nginx.get("/");
        assert_eq!(response.text(), "good", "{cause}");
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            cause,
            &json!({
                "phase": "header", "outcome": "masked", "status": 200,
                "attempts": [
                    {"peer": first.addr(), "cause": cause, "phase": "header",
                     "bytes_sent": first.requests()[0].len()},
                    {"peer": good.addr(), "cause": null, "status": 200, "errno": null,
                     "message": null, "bytes_sent": good.requests()[0].len(),
                     "bytes_received": script::response("good").len()},
                ],
            }),
        )
        .expect(cause, &json!({"attempts": [evidence, {}]}))
        .in_header(&response);
        assert_eq!(seen.variable("causes"), format!("{cause}, -"));
        diag::finish(&nginx);
    }
}

/// Guards against nginx's name of a group being lined up with the attempts before: the group is
/// full once the server that refuses was tried.
#[test]
fn a_group_can_be_full_for_the_second_attempt() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let nginx = Nginx::start(proxy(&format!(
        "server {} max_fails=0; server {} max_conns=1;",
        dead.addr(),
        silent.addr()
    )));
    let mut held = nginx.connect();
    held.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    silent.wait_requests(1);
    let response = nginx.get("/");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "max_conns_reached",
        &json!({
            "phase": "select", "outcome": "failed", "status": 502, "origin": "nginx",
            "attempts": [
                {"peer": dead.addr(), "cause": "connection_refused", "phase": "connect",
                 "errno": 111},
                {"cause": "max_conns_reached", "phase": "select", "errno": null},
            ],
            "peers": [{"peer": dead.addr(), "state": "up"},
                      {"peer": silent.addr(), "state": "busy"}],
        }),
    )
    .in_header(&response);
    assert_eq!(seen.variable("addr"), format!("{}, u", dead.addr()));
    drop(held);
    // Its own record: it was refused before.
    diag::seen(&nginx, 1).expect("connection_refused", &json!({"outcome": "aborted"}));
    diag::finish(&nginx);
}
