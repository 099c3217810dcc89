//! Errors 502, 503 and 504 that no upstream made: those of the configuration and of other modules.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::diag::{self, Seen};
use t::{Conf, Gate, Nginx, Upstream, script};

const LOCAL: &str = "local_return";

/// Checks that this record is of an error that the configuration made.
fn local(seen: &Seen, status: u16, outcome: &str, path: &str) {
    seen.expect(
        LOCAL,
        &json!({
            "status": status, "outcome": outcome, "origin": "config", "phase": null, "uri": path,
            "peers": null,
        }),
    );
}

/// Guards against an operator looking for an upstream that has no part in the error.
#[test]
fn answers_of_the_configuration() {
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(diag::conf(format!(
        "location /502 {{ return 502; }}
         location /503 {{ return 503 'text $upstream_diag_cause'; }}
         location /504 {{ return 504; }}
         location /if {{ if ($arg_x) {{ return 502; }} proxy_pass http://{}; }}
         location /rewritten {{ rewrite ^ /503 last; }}
         location /tried {{ root {{prefix}}/tmp; try_files /none =503; }}
         location /page {{ error_page 503 /page.html; return 503; }}
         location /named {{ error_page 503 @named; return 503; }}
         location @named {{ return 200 named; }}
         location /turned {{ error_page 404 =502 /page.html; root {{prefix}}/tmp; }}
         location /changed {{ error_page 500 =503 @named; return 500; }}
         location = /page.html {{ root {{prefix}}/tmp; }}",
        good.addr()
    )));
    std::fs::write(nginx.path("tmp/page.html"), "page").expect("page.html");
    for (n, (path, status, body)) in [
        ("/502", 502, "502 Bad Gateway"),
        ("/503", 503, "text "),
        ("/504", 504, "504 Gateway"),
        ("/if?x=1", 502, "502 Bad Gateway"),
        ("/rewritten", 503, "text "),
        ("/tried", 503, "503 Service"),
        ("/page", 503, "page"),
        ("/named", 503, "named"),
        ("/turned/none", 502, "page"),
        ("/changed", 503, "named"),
    ]
    .into_iter()
    .enumerate()
    {
        let response = nginx.get(path);
        assert_eq!(response.status, status, "{path}");
        assert!(response.text().contains(body), "{path}: {}", response.text());
        let seen = diag::seen(&nginx, n);
        let (uri, _) = path.split_once('?').unwrap_or((path, ""));
        local(&seen, status, "failed", uri);
        seen.expect(LOCAL, &json!({"attempts": [], "upstream": null, "module": null}))
            .in_header(&response);
        assert_eq!(seen.variable("addr"), "", "{path}");
    }
    assert_eq!(nginx.get("/if").text(), "good");
    nginx.wait_lines("access.log", 11);
    assert_eq!(nginx.lines("diag.json").len(), 10);
    diag::finish(&nginx);
}

/// Guards against limits being taken for an overloaded upstream, or for nothing.
#[test]
fn limits() {
    let gate = Gate::new();
    let held = gate.clone();
    let up = Upstream::tcp(move |_, conn| {
        while conn.read_request().is_some() {
            conn.wait(&held);
            conn.write(script::response("good"));
        }
    });
    let nginx = Nginx::start(
        diag::conf(format!(
            "location /rate {{ limit_req zone=rate; return 200; }}
             location /rate/up {{ limit_req zone=rate; proxy_pass http://{up}; }}
             location /conn {{ limit_conn conn 1; proxy_pass http://{up}; }}
             location /other {{ limit_req zone=rate; limit_req_status 429; proxy_pass http://{up}; }}",
            up = up.addr()
        ))
        .http("limit_req_zone $server_port zone=rate:1m rate=1r/m;")
        .http("limit_conn_zone $server_port zone=conn:1m;"),
    );
    let mut first = nginx.connect();
    first.send(b"GET /conn HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    up.wait_requests(1);
    let response = nginx.get("/conn");
    assert_eq!(response.status, 503);
    let seen = diag::seen(&nginx, 0);
    local(&seen, 503, "failed", "/conn");
    seen.expect(LOCAL, &json!({"attempts": []})).in_header(&response);
    gate.open();
    assert_eq!(first.read_response(false).expect("a response").text(), "good");

    assert_eq!(nginx.get("/rate/up").text(), "good");
    let response = nginx.get("/rate/up");
    assert_eq!(response.status, 503);
    let seen = diag::seen(&nginx, 1);
    local(&seen, 503, "failed", "/rate/up");
    seen.expect(LOCAL, &json!({"attempts": []})).in_header(&response);
    // What the operator has named otherwise is no gateway's error.
    assert_eq!(nginx.get("/other").status, 429);
    assert_eq!(nginx.wait_lines("access.log", 5).len(), 5);
    assert_eq!(nginx.lines("diag.json").len(), 2);
    diag::finish(&nginx);
}

/// Guards against a good answer before the configuration's error being called its cause, or being
/// left out.
#[test]
fn behind_a_good_answer() {
    let missing = Upstream::tcp(script::status(404));
    let handing =
        Upstream::tcp(script::raw("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /closed\r\n\r\n"));
    let nginx = Nginx::start(diag::conf(format!(
        "location /turned {{ proxy_intercept_errors on; error_page 404 =502 @page;
                             proxy_pass http://{missing}; }}
         location @page {{ return 200 page; }}
         location /kept {{ proxy_intercept_errors on; error_page 404 = /closed;
                           proxy_pass http://{missing}; }}
         location /handed {{ proxy_pass http://{}; }}
         location /closed {{ return 503; }}",
        handing.addr(),
        missing = missing.addr(),
    )));
    for (n, (path, status, up, answered)) in [
        ("/turned", 502, &missing, 404),
        ("/kept", 503, &missing, 404),
        ("/handed", 503, &handing, 200),
    ]
    .into_iter()
    .enumerate()
    {
        let response = nginx.get(path);
        assert_eq!(response.status, status, "{path}");
        let seen = diag::seen(&nginx, n);
        local(&seen, status, "failed", path);
        seen.expect(
            LOCAL,
            &json!({"attempts": [
                {"peer": up.addr(), "cause": null, "phase": null, "status": answered}
            ]}),
        )
        .in_header(&response);
        assert_eq!((seen.variable("addr"), seen.variable("causes")), (up.addr().as_str(), "-"));
    }
    diag::finish(&nginx);
}

/// Guards against the cause of a failure giving way to the error page that its own error led to.
#[test]
fn behind_a_failure() {
    let dead = t::refused_port();
    let own = Upstream::tcp(script::status(502));
    let nginx = Nginx::start(diag::conf(format!(
        "proxy_intercept_errors on;
         location /dead {{ error_page 502 = @closed; proxy_pass http://{dead}; }}
         location /dead/changed {{ error_page 502 =504 @page; proxy_pass http://{dead}; }}
         location /own {{ error_page 502 = @closed; proxy_pass http://{}; }}
         location /auth {{ auth_request /check; error_page 500 = @closed; root {{prefix}}/tmp; }}
         location = /check {{ proxy_pass http://{dead}; }}
         location @closed {{ return 503; }}
         location @page {{ return 200 page; }}",
        own.addr(),
        dead = dead.addr(),
    )));
    let refused = "connection_refused";
    for (n, (path, status, cause, outcome, up)) in [
        ("/dead", 503, refused, "failed", dead.addr()),
        ("/dead/changed", 504, refused, "failed", dead.addr()),
        ("/own", 503, "upstream_response", "passed", own.addr()),
    ]
    .into_iter()
    .enumerate()
    {
        let response = nginx.get(path);
        assert_eq!(response.status, status, "{path}");
        diag::seen(&nginx, n)
            .expect(
                cause,
                &json!({"status": status, "outcome": outcome, "uri": path, "location": path,
                        "attempts": [{"peer": up, "cause": cause, "status": 502}]}),
            )
            .in_header(&response);
    }
    // The failure is the subrequest's, and explains the main request's error.
    let response = nginx.get("/auth");
    assert_eq!(response.status, 503);
    diag::subrequest(&nginx, 3)
        .expect(refused, &json!({"uri": "/check", "status": 502, "outcome": "failed"}))
        .explains()
        .in_header(&response);
    assert_eq!(nginx.lines("diag.json").len(), 4);
    diag::finish(&nginx);
}

/// Guards against answers that are no gateway's errors being diagnosed, and against the setting
/// of the location being forgotten for those that are.
#[test]
fn not_diagnosed() {
    let nginx = Nginx::start(
        diag::conf(
            "location /400 { return 400; }
             location /403 { deny all; }
             location /404 { return 404; }
             location /444 { return 444; }
             location /499 { return 499; }
             location /500 { return 500; }
             location /501 { return 501; }
             location /505 { return 505; }
             location /masked { error_page 503 =200 @page; return 503; }
             location /other { error_page 502 =404 @page; return 502; }
             location @page { return 200 page; }
             location /off { upstream_diag off; return 502; }
             location /if { if ($arg_x) { upstream_diag off; return 502; } return 200; }
             location /cycle { rewrite ^ /cycle last; }",
        )
        .server("upstream_diag off; return 503;"),
    );
    let requests = [
        ("/400", 400),
        ("/403", 403),
        ("/404", 404),
        ("/444", 0),
        ("/499", 0),
        ("/500", 500),
        ("/501", 501),
        ("/505", 505),
        ("/masked", 200),
        ("/other", 404),
        ("/off", 502),
        ("/if?x=1", 502),
        ("/cycle", 500),
    ];
    for (path, status) in requests {
        assert_eq!(nginx.get(path).status, status, "{path}");
    }
    assert_eq!(nginx.connect_to(2).get("/").status, 503);
    for line in nginx.wait_json_lines("access.log", requests.len() + 1) {
        diag::assert_empty(&line);
    }
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    diag::finish(&nginx);
}

/// Guards against a server without any upstream being left out, and against its log not being
/// where its configuration says.
#[test]
fn servers_without_upstreams() {
    let conf = Conf::new("return 503;").http(
        "upstream_diag on; upstream_diag_log {prefix}/closed.json if=$arg_log;
         add_header X-Cause $upstream_diag_cause always;",
    );
    let nginx = Nginx::start(conf);
    for path in ["/a", "/b?log=1"] {
        let response = nginx.get(path);
        assert_eq!((response.status, response.header("X-Cause")), (503, Some(LOCAL)), "{path}");
    }
    let record: Value = nginx.wait_json_lines("closed.json", 1).remove(0);
    assert_eq!((&record["uri"], &record["origin"]), (&"/b".into(), &"config".into()));
}
