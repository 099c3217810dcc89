//! Subrequests that fail: each has a record of its own, under its own URI, and the main request
//! has only what is its own.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs;

use serde_json::{Value, json};
use t::diag;
use t::{Conf, Nginx, Upstream, script};

#[path = "subrequests/body.rs"]
mod body;
#[path = "subrequests/mirrors.rs"]
mod mirrors;

/// The lines of the access log, once there are so many.
fn lines(nginx: &Nginx, n: usize) -> Vec<Value> {
    nginx.wait_json_lines("access.log", n)
}

/// Guards against an authorization that could not be asked for being reported under the main
/// request's URI, with its status or as nobody's; and against one that said no being a failure.
#[test]
fn authorization() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let cut = Upstream::tcp(script::partial_header_then_close());
    let [own502, own503, own500, no] =
        [502, 503, 500, 403].map(|status| Upstream::tcp(script::status(status)));
    for (auth, main, sub, cause, outcome) in [
        (dead.addr(), 500, 502, "connection_refused", "failed"),
        (silent.addr(), 500, 504, "response_timed_out", "failed"),
        (cut.addr(), 500, 502, "closed_in_header", "failed"),
        (own502.addr(), 500, 502, "upstream_response", "passed"),
        (own503.addr(), 500, 503, "upstream_response", "passed"),
        // That is no failure of an upstream, nor is a refusal.
        (own500.addr(), 500, 0, "", ""),
        (no.addr(), 403, 0, "", ""),
        (good.addr(), 200, 0, "", ""),
    ] {
        let timeout = if auth == silent.addr() { "proxy_read_timeout 150ms;" } else { "" };
        let nginx = Nginx::start(diag::conf(format!(
            "location / {{ auth_request /check; proxy_pass http://{}; }}
             location = /check {{ internal; {timeout} proxy_pass http://{auth}/asked?a=b; }}",
            good.addr()
        )));
        let asked = good.requests().len();
        let response = nginx.get("/page?c=d");
        assert_eq!(response.status, main, "{auth}");
        assert_eq!(good.requests().len() - asked, if main == 200 { 2 } else { 0 }, "{auth}");
        if cause.is_empty() {
            diag::assert_empty(&lines(&nginx, 1)[0]);
            assert_eq!(nginx.lines("diag.json"), [""; 0]);
        } else {
            let seen = diag::subrequest(&nginx, 0);
            seen.expect(
                cause,
                &json!({
                    "uri": "/check", "location": "/check", "status": sub, "outcome": outcome,
                    "attempts": [{"peer": auth, "cause": cause, "status": sub}],
                }),
            )
            .explains()
            .in_header(&response);
            assert_eq!((seen.variable("status"), seen.variable("addr")), ("500", ""));
        }
        diag::finish(&nginx);
    }
}

/// Guards against a failure in the authorization that was made good being shown for the main
/// request, or taking the place of the main request's own.
#[test]
fn authorization_made_good() {
    let (dead, main) = (t::refused_port(), t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    for (pass, status) in [(good.addr(), 200), (main.addr(), 502)] {
        let nginx = Nginx::start(
            diag::conf(format!(
                "location / {{ auth_request /check; proxy_pass http://{pass}; }}
                 location = /check {{ internal; proxy_pass http://u; }}"
            ))
            .http(format!(
                "upstream u {{ server {}; server {}; }}",
                dead.addr(),
                good.addr()
            )),
        );
        let response = nginx.get("/page");
        assert_eq!(response.status, status);
        let sub = diag::subrequest(&nginx, 0);
        sub.expect(
            "connection_refused",
            &json!({
                "uri": "/check", "status": 200, "outcome": "masked", "upstream": "u",
                "attempts": [{"peer": dead.addr()}, {"peer": good.addr(), "cause": null}],
            }),
        );
        if status == 200 {
            sub.explains_nothing();
            assert_eq!(nginx.lines("diag.json").len(), 1);
        } else {
            diag::seen(&nginx, 1)
                .expect(
                    "connection_refused",
                    &json!({"uri": "/page", "status": 502, "outcome": "failed",
                            "attempts": [{"peer": pass}]}),
                )
                .in_header(&response);
        }
        diag::finish(&nginx);
    }
}

/// Guards against a subrequest that was served by another attempt being the reason of an error
/// that the main request ends with, and hiding the true one.
#[test]
fn authorization_made_good_explains_nothing() {
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let own500 = Upstream::tcp(script::status(500));
    let nginx = Nginx::start(
        diag::conf(format!(
            "auth_request /check;
             location /own {{ proxy_pass http://{}; }}
             location /local {{ error_page 404 =503 @closed; root {{prefix}}/tmp; }}
             location @closed {{ return 200 closed; }}
             location = /check {{ internal; auth_request off; proxy_pass http://u; }}",
            own500.addr()
        ))
        .http(format!(
            "upstream u {{ server {} max_fails=0; server {} backup; }}",
            dead.addr(),
            good.addr()
        )),
    );
    let masked = json!({"uri": "/check", "status": 200, "outcome": "masked"});
    let response = nginx.get("/local");
    assert_eq!(response.status, 503);
    diag::subrequest(&nginx, 0).expect("connection_refused", &masked);
    diag::seen(&nginx, 1)
        .expect("local_return", &json!({"uri": "/local", "origin": "config", "attempts": []}))
        .in_header(&response);
    assert_eq!(nginx.get("/own").status, 500);
    diag::subrequest(&nginx, 2).expect("connection_refused", &masked).explains_nothing();
    diag::finish(&nginx);
}

/// Guards against the cause being lost on the way to the error page of the main request, and in
/// a variable that `auth_request_set` keeps; and against it being shown where the error page is
/// the better answer, or has a failure of its own.
#[test]
fn authorization_behind_an_error_page() {
    let (dead, other) = (t::refused_port(), t::refused_port());
    let nginx = Nginx::start(diag::conf(format!(
        "auth_request_set $why $upstream_diag_cause; root {{prefix}}/tmp;
         location /sorry {{ auth_request /check; error_page 500 @sorry; }}
         location @sorry {{ return 200 'why=$why cause=$upstream_diag_cause'; }}
         location /fine {{ auth_request /check; error_page 500 =200 @fine; }}
         location @fine {{ return 200 'why=$why'; }}
         location /dead {{ auth_request /check; error_page 500 = @dead; }}
         location @dead {{ proxy_pass http://{}; }}
         location = /check {{ internal; auth_request off; proxy_pass http://{}; }}",
        other.addr(),
        dead.addr(),
    )));
    let refused = "connection_refused";
    let wanted = json!({"uri": "/check", "status": 502, "attempts": [{"peer": dead.addr()}]});
    let response = nginx.get("/sorry");
    let text = "why=connection_refused cause=connection_refused";
    assert_eq!((response.status, response.text().as_str()), (500, text));
    diag::subrequest(&nginx, 0).expect(refused, &wanted).explains().in_header(&response);

    let response = nginx.get("/fine");
    assert_eq!((response.status, response.text().as_str()), (200, "why=connection_refused"));
    diag::subrequest(&nginx, 1).expect(refused, &wanted).explains_nothing();

    let response = nginx.get("/dead");
    assert_eq!(response.status, 502);
    diag::subrequest(&nginx, 2).expect(refused, &wanted);
    diag::seen(&nginx, 3)
        .expect(
            refused,
            &json!({"uri": "/dead", "location": "@dead", "outcome": "failed",
                    "attempts": [{"peer": other.addr()}]}),
        )
        .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against a subrequest's own line in the access log having another's values.
#[test]
fn subrequests_have_lines_of_their_own() {
    let dead = [(); 2].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(
        diag::conf(format!(
            "location = /page.html {{ ssi on; root {{prefix}}/tmp; }}
             location /one {{ proxy_pass http://{}; }}
             location /two {{ proxy_pass http://u; }}
             location /good {{ proxy_pass http://{}; }}",
            dead[0].addr(),
            good.addr(),
        ))
        .http("log_subrequest on;")
        .http(format!(
            "upstream u {{ server {}; server {}; }}",
            dead[1].addr(),
            good.addr()
        )),
    );
    page(
        &nginx,
        "<!--#include virtual=\"/one\" --><!--#include virtual=\"/good\" --><!--#include virtual=\"/two\" -->",
    );
    assert_eq!(nginx.get("/page.html").status, 200);
    let lines = lines(&nginx, 4);
    for (uri, cause, causes, addr) in [
        ("/one", "connection_refused", "connection_refused", dead[0].addr()),
        (
            "/two",
            "connection_refused",
            "connection_refused, -",
            format!("{}, {}", dead[1].addr(), good.addr()),
        ),
        ("/good", "", "", good.addr()),
        ("/page.html", "", "", String::new()),
    ] {
        let line = lines.iter().find(|line| line["uri"] == uri).expect("a line of its own");
        assert_eq!((&line["cause"], &line["causes"]), (&cause.into(), &causes.into()), "{uri}");
        assert_eq!(line["addr"], addr, "{uri}");
        if cause.is_empty() {
            diag::assert_empty(line);
        } else {
            let json: Value = serde_json::from_str(line["json"].as_str().unwrap_or("")).expect(uri);
            assert_eq!((&json["uri"], &json["subrequest"]), (&uri.into(), &true.into()));
        }
    }
    assert_eq!(nginx.lines("diag.json").len(), 2);
    diag::finish(&nginx);
}

/// Guards against what a subrequest's location says of diagnosis being asked of the main
/// request's, and the reverse.
#[test]
fn locations_of_subrequests_decide() {
    let dead = t::refused_port();
    let nginx = Nginx::start(diag::conf(format!(
        "location /off {{ auth_request /quiet; }}
         location = /quiet {{ upstream_diag off; proxy_pass http://{dead}; }}
         location /on {{ upstream_diag off; auth_request /loud; }}
         location = /loud {{ proxy_pass http://{dead}; }}
         location /else {{ auth_request /elsewhere; }}
         location = /elsewhere {{ upstream_diag_log {{prefix}}/else.json; proxy_pass http://{dead}; }}",
        dead = dead.addr()
    )));
    assert_eq!(nginx.get("/off").status, 500);
    diag::assert_empty(&lines(&nginx, 1)[0]);
    assert_eq!(nginx.lines("diag.json"), [""; 0]);
    assert_eq!(nginx.get("/on").status, 500);
    diag::subrequest(&nginx, 0).expect("connection_refused", &json!({"uri": "/loud"})).explains();
    assert_eq!(nginx.get("/else").status, 500);
    let other = nginx.wait_json_lines("else.json", 1).remove(0);
    assert_eq!((&other["uri"], &other["subrequest"]), (&"/elsewhere".into(), &true.into()));
    assert_eq!(lines(&nginx, 3)[2]["cause"], "connection_refused");
    assert_eq!(nginx.lines("diag.json").len(), 1);
}

/// Guards against a client that leaves during a subrequest being a failure of it.
#[test]
fn clients_leave_during_subrequests() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    for servers in [
        format!("server {};", silent.addr()),
        format!("server {}; server {};", dead.addr(), silent.addr()),
    ] {
        let retried = servers.contains(&dead.addr());
        let nginx = Nginx::start(
            diag::conf(
                "location / { auth_request /check; } location = /check { proxy_pass http://u; }",
            )
            .http(format!("upstream u {{ {servers} }}")),
        );
        let asked = silent.requests().len();
        let mut client = nginx.connect();
        client.send(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        silent.wait_requests(asked + 1);
        drop(client);
        let line = lines(&nginx, 1).remove(0);
        assert_eq!(line["status"], "499");
        diag::assert_empty(&line);
        if retried {
            diag::subrequest(&nginx, 0).expect(
                "connection_refused",
                &json!({
                    "uri": "/check", "status": 499, "outcome": "aborted",
                    "attempts": [{"peer": dead.addr()}, {"peer": silent.addr(), "cause": null}],
                }),
            );
        }
        assert_eq!(nginx.lines("diag.json").len(), usize::from(retried));
        diag::finish(&nginx);
    }
}

/// Writes `page.html`.
fn page(nginx: &Nginx, text: &str) {
    fs::write(nginx.path("tmp/page.html"), text).expect("page.html");
}

/// A server whose `page.html` has server-side includes.
fn includes(server: &str) -> Conf {
    diag::conf(format!(
        "location = /page.html {{ ssi on; ssi_silent_errors off; root {{prefix}}/tmp; }} {server}"
    ))
}
