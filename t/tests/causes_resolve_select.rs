//! Each cause of the phases "resolve" and "select": nginx finds nobody to connect to.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::diag::{self, Seen, assert_in};
use t::dns::{NXDOMAIN, REFUSED, SERVFAIL};
use t::{Answer, Conf, Dns, Gate, Nginx, Upstream, script};

/// One request of which the only attempt fails with neither an address nor a connection.
fn fails(nginx: &Nginx, n: usize, headers: &str, cause: &str, rest: &Value) -> Seen {
    let response = nginx.get_with("/", headers);
    let seen = diag::seen(nginx, n);
    seen.expect(cause, &json!({"outcome": "failed", "origin": "nginx"}))
        .expect(cause, rest)
        .expect(
            cause,
            &json!({"attempts": [{
                "cause": cause, "connect_time": null, "reused": null,
                "bytes_sent": null, "bytes_received": null, "header": null, "tcp": null,
            }]}),
        )
        .in_header(&response);
    assert_eq!(u64::from(response.status), seen.record["status"]);
    seen
}

/// Guards against the answer of the DNS server being read from a line that starts with the name,
/// and against an attempt being lost for which nginx has no entry.
#[test]
fn names_that_cannot_be_resolved() {
    let dns = Dns::start([
        ("nx.example", NXDOMAIN),
        ("fail.example", SERVFAIL),
        ("refused.example", REFUSED),
        ("silent.example", Answer::Silent),
        ("empty.example", Answer::Empty),
    ]);
    let nginx = Nginx::start(diag::conf(format!(
        "resolver {} ipv6=off; resolver_timeout 200ms;
         location / {{ proxy_pass http://$http_x_name:80; }}",
        dns.addr()
    )));
    let timeout = json!({"errno": 110, "errname": "ETIMEDOUT"});
    let answer = json!({"errno": null, "errname": null});
    for (n, (name, cause, proxy_error, why, errno)) in [
        ("nx.example", "dns_not_found", "dns_error", "3: Host not found", &answer),
        ("empty.example", "dns_not_found", "dns_error", "3: Host not found", &answer),
        ("fail.example", "dns_failure", "dns_error", "2: Server failure", &answer),
        ("refused.example", "dns_failure", "dns_error", "5: Operation refused", &answer),
        ("silent.example", "dns_timed_out", "dns_timeout", "110: Operation timed out", &timeout),
    ]
    .into_iter()
    .enumerate()
    {
        let message = format!("{name} could not be resolved ({why})");
        let seen = fails(
            &nginx,
            n,
            &format!("X-Name: {name}\r\n"),
            cause,
            &json!({
                "phase": "resolve", "status": 502, "proxy_error": proxy_error,
                "upstream": name, "module": "proxy",
                "attempts": [{"phase": "resolve", "message": message}],
            }),
        );
        seen.expect(cause, &json!({"attempts": [errno]}));
        assert_eq!((seen.variable("addr"), seen.variable("causes")), ("", cause));
    }
    diag::finish(&nginx);
}

/// Guards against a name without a resolver being taken for one that does not exist.
#[test]
fn dns_no_resolver() {
    let nginx = Nginx::start(diag::conf("location / { proxy_pass http://$http_x_name; }"));
    let seen = fails(
        &nginx,
        0,
        "X-Name: some.example\r\n",
        "dns_no_resolver",
        &json!({
            "phase": "resolve", "status": 502, "proxy_error": "proxy_configuration_error",
            "upstream": "some.example", "module": "proxy",
            "attempts": [{"phase": "resolve", "errno": null,
                          "message": "no resolver defined to resolve some.example"}],
        }),
    );
    assert_eq!((seen.variable("addr"), seen.variable("causes")), ("", "dns_no_resolver"));
    diag::finish(&nginx);
}

/// Guards against a failure after a name was resolved being taken for one of resolving it, and
/// against a peer that is reported by its name.
#[test]
fn a_resolved_name_can_be_refused() {
    let dns = Dns::start([("dead.example", Answer::localhost())]);
    let port = t::refused_port();
    let nginx = Nginx::start(diag::conf(format!(
        "resolver {} ipv6=off; location / {{ proxy_pass http://$http_x_name:{}; }}",
        dns.addr(),
        port.port()
    )));
    nginx.get_with("/", "X-Name: dead.example\r\n");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({
            "phase": "connect", "outcome": "failed", "status": 502, "upstream": "dead.example",
            "attempts": [{
                "peer": port.addr(), "cause": "connection_refused", "status": 502,
                "errno": 111, "errname": "ECONNREFUSED", "reused": false,
            }],
        }),
    );
    assert_eq!(seen.variable("addr"), port.addr());
    diag::finish(&nginx);
}

/// Guards against a URL that nginx refuses being missed: that happens before there is an upstream
/// request.
#[test]
fn invalid_upstream_url() {
    let nginx = Nginx::start(diag::conf("location / { proxy_pass $http_x_url; }"));
    for (n, (url, message)) in [
        ("", "invalid URL prefix in \"\""),
        ("nonsense", "invalid URL prefix in \"nonsense\""),
        ("ftp://a.example/", "invalid URL prefix in \"ftp://a.example/\""),
        ("http://", "invalid URL prefix in \"http://\""),
        ("http:///uri", "no host in upstream \"/uri\""),
        ("http://:80", "no host in upstream \":80\""),
        ("http://127.0.0.1:99999/", "invalid port in upstream \"127.0.0.1:99999/\""),
        ("http://127.0.0.1:x/", "invalid port in upstream \"127.0.0.1:x/\""),
        ("http://[::1/", "invalid host in upstream \"[::1/\""),
        ("http://[::z]/", "invalid IPv6 address in upstream \"[::z]/\""),
        ("http://unix:", "no path in the unix domain socket in upstream \"unix:\""),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = fails(
            &nginx,
            n,
            &format!("X-Url: {url}\r\n"),
            "invalid_upstream_url",
            &json!({
                "phase": "select", "status": 500, "proxy_error": "proxy_configuration_error",
                // Not known yet when nginx looks at the URL.
                "upstream": null, "module": null,
                "attempts": [{"peer": null, "phase": "select", "errno": null, "errname": null,
                              "message": message}],
            }),
        );
        assert_eq!((seen.variable("addr"), seen.variable("causes")), ("", "invalid_upstream_url"));
    }
    diag::finish(&nginx);
}

/// A group of these servers.
fn group(servers: &str) -> Conf {
    diag::conf("location / { proxy_pass http://u; }").http(format!("upstream u {{ {servers} }}"))
}

/// What there is to say when none of the group could be chosen.
fn none_chosen(nginx: &Nginx, n: usize, cause: &str, proxy_error: &str, peers: &Value) -> Seen {
    let rest = json!({
        "phase": "select", "status": 502, "proxy_error": proxy_error,
        "upstream": "u", "module": "proxy",
        "attempts": [{"phase": "select", "status": 502, "errno": null, "errname": null,
                      "message": "no live upstreams"}],
        "peers": peers,
    });
    let seen = fails(nginx, n, "", cause, &rest);
    // nginx gives the group's name for an address here.
    assert_eq!((seen.variable("addr"), seen.variable("causes")), ("u", cause));
    assert!(seen.variable("summary").starts_with("Upstream \"u\": "), "{seen:?}");
    seen
}

/// Guards against a group that was switched off being taken for one that failed.
#[test]
fn no_live_upstreams_with_all_down() {
    let port = t::refused_port();
    let addr = port.addr();
    let nginx = Nginx::start(group(&format!(
        "zone u 64k; server {addr} down; server 127.0.0.2:9 down; server {addr} down backup;"
    )));
    none_chosen(
        &nginx,
        0,
        "no_live_upstreams",
        "destination_unavailable",
        &json!([
            {"peer": addr, "state": "down", "unavailable_for": null, "backup": null},
            {"peer": "127.0.0.2:9", "state": "down", "unavailable_for": null, "backup": null},
            {"peer": addr, "state": "down", "unavailable_for": null, "backup": true},
        ]),
    );
    diag::finish(&nginx);
}

/// Guards against peers that were taken out being listed without for how long, and against the
/// failures that did it being lost.
#[test]
fn no_live_upstreams_after_failures() {
    let (a, b, spare) = (t::refused_port(), t::refused_port(), t::refused_port());
    for zone in ["", "zone u 64k;"] {
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} fail_timeout=30; server {} fail_timeout=60 max_fails=1;
             server {} backup max_fails=1 fail_timeout=90;",
            a.addr(),
            b.addr(),
            spare.addr()
        )));
        let response = nginx.get("/");
        let refused = |addr: String, timeout: u64, backup: bool| {
            json!({
                "peer": addr, "cause": "connection_refused", "phase": "connect", "status": 502,
                "errno": 111,
                "peer_state": {"state": "unavailable", "fails": 1, "max_fails": 1,
                               "fail_timeout": timeout, "down": false, "backup": backup},
            })
        };
        let seen = diag::seen(&nginx, 0);
        seen.expect(
            "connection_refused",
            &json!({
                "outcome": "failed", "status": 502, "peers": null,
                "attempts": [refused(a.addr(), 30, false), refused(b.addr(), 60, false),
                             refused(spare.addr(), 90, true)],
            }),
        )
        .in_header(&response);
        for (n, timeout) in [30.0, 60.0, 90.0].into_iter().enumerate() {
            let state = &seen.attempt(n)["peer_state"];
            assert_in(&state["unavailable_for"], timeout - 10.0..timeout + 1.0);
        }
        let none = none_chosen(
            &nginx,
            1,
            "no_live_upstreams",
            "destination_unavailable",
            &json!([
                {"peer": a.addr(), "state": "unavailable", "backup": null},
                {"peer": b.addr(), "state": "unavailable", "backup": null},
                {"peer": spare.addr(), "state": "unavailable", "backup": true},
            ]),
        );
        for (n, timeout) in [30.0, 60.0, 90.0].into_iter().enumerate() {
            let peer = &none.record["peers"][n];
            assert_in(&peer["unavailable_for"], timeout - 10.0..timeout + 1.0);
        }
        diag::finish(&nginx);
    }
}

/// Guards against a backup server that served the client being counted among those that failed.
#[test]
fn a_backup_server_masks_a_failure() {
    let port = t::refused_port();
    let up = Upstream::tcp(script::ok("spare"));
    let nginx =
        Nginx::start(group(&format!("server {}; server {} backup;", port.addr(), up.addr())));
    let response = nginx.get("/");
    assert_eq!(response.text(), "spare");
    let seen = diag::seen(&nginx, 0);
    seen.expect(
        "connection_refused",
        &json!({
            "phase": "connect", "outcome": "masked", "origin": "nginx", "status": 200,
            "attempts": [
                {"peer": port.addr(), "cause": "connection_refused", "status": 502},
                {"peer": up.addr(), "cause": null, "phase": null, "status": 200, "errno": null,
                 "message": null},
            ],
        }),
    )
    .in_header(&response);
    assert_eq!(seen.variable("causes"), "connection_refused, -");
    diag::finish(&nginx);
}

/// Guards against a group that is full being taken for one that is dead, with the connections
/// counted by each worker and by all of them.
#[test]
fn max_conns_reached() {
    for zone in ["", "zone u 64k;"] {
        let gate = Gate::new();
        let held = gate.clone();
        let up = Upstream::tcp(move |_, conn| {
            conn.read_request();
            conn.wait(&held);
            conn.write(script::response("at last"));
        });
        let dead = t::refused_port();
        let nginx = Nginx::start(group(&format!(
            "{zone} server {} max_conns=1; server {} down;",
            up.addr(),
            dead.addr()
        )));
        let mut first = nginx.connect();
        first.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        up.wait_requests(1);
        none_chosen(
            &nginx,
            0,
            "max_conns_reached",
            "connection_limit_reached",
            &json!([
                {"peer": up.addr(), "state": "busy", "unavailable_for": null},
                {"peer": dead.addr(), "state": "down"},
            ]),
        );
        gate.open();
        assert_eq!(first.read_response(false).expect("a response").text(), "at last");
        // With the connection given back the same server is chosen again.
        assert_eq!(nginx.get("/").status, 200);
        nginx.wait_lines("access.log", 3);
        diag::finish(&nginx);
    }
}
