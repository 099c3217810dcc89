//! Subrequests whose responses are parts of the main request's body.

use serde_json::json;
use t::diag;
use t::script::{self, End};
use t::{Nginx, Upstream};

use crate::{includes, lines, page};

/// Guards against the failures of includes being mixed up, or one of them being the page's.
#[test]
fn includes_fail_one_by_one() {
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let silent = Upstream::tcp(script::silent());
    let cut = Upstream::tcp(script::partial_body(100, "part", End::Fin));
    let own = Upstream::tcp(script::status(503));
    let nginx = Nginx::start(includes(&format!(
        "location /dead {{ proxy_pass http://{}; }}
             location /good {{ proxy_pass http://{}; }}
             location /silent {{ proxy_read_timeout 150ms; proxy_pass http://{}; }}
             location /cut {{ proxy_pass http://{}; }}
             location /own {{ proxy_pass http://{}; }}
             location /held {{ proxy_pass http://{}; }}",
        dead.addr(),
        good.addr(),
        silent.addr(),
        cut.addr(),
        own.addr(),
        dead.addr(),
    )));
    // With `wait`, what follows is asked for afterwards; with `set`, the text goes nowhere.
    page(
        &nginx,
        "a<!--#include virtual=\"/dead?q=1\" -->b<!--#include virtual=\"/good\" -->c\
         <!--#include virtual=\"/silent\" wait=\"yes\" -->d<!--#include virtual=\"/own\" -->e\
         <!--#include virtual=\"/held\" set=\"text\" -->f",
    );
    let response = nginx.get("/page.html");
    let text = response.text();
    assert_eq!((response.status, response.truncated), (200, false));
    for part in ["bgood", "502 Bad Gateway", "504 Gateway", "dscripted"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let wanted = [
        ("/dead", 502, "connection_refused", "failed", dead.addr()),
        ("/silent", 504, "response_timed_out", "failed", silent.addr()),
        ("/own", 503, "upstream_response", "passed", own.addr()),
        ("/held", 502, "connection_refused", "failed", dead.addr()),
    ];
    check(&nginx, 0, &wanted);

    // The page itself goes on behind an include that was cut off.
    page(&nginx, "a<!--#include virtual=\"/cut\" -->b<!--#include virtual=\"/dead\" -->c");
    assert_eq!(nginx.get("/page.html").status, 200);
    check(
        &nginx,
        wanted.len(),
        &[
            ("/cut", 200, "response_truncated", "truncated", cut.addr()),
            ("/dead", 502, "connection_refused", "failed", dead.addr()),
        ],
    );
    diag::finish(&nginx);
}

/// Checks these records of includes, in any order, and that they are all.
fn check(nginx: &Nginx, before: usize, wanted: &[(&str, u16, &str, &str, String)]) {
    let all = before + wanted.len();
    nginx.wait_lines("diag.json", all);
    for (uri, status, cause, outcome, up) in wanted {
        let mut found = (before..all).map(|n| diag::subrequest(nginx, n));
        let seen = found.find(|seen| seen.record["uri"] == *uri);
        seen.unwrap_or_else(|| panic!("no record of {uri}"))
            .expect(
                cause,
                &json!({
                    "status": status, "outcome": outcome, "location": uri, "method": "GET",
                    "attempts": [{"peer": up, "cause": cause, "status": status}],
                }),
            )
            .explains_nothing();
    }
    assert_eq!(nginx.lines("diag.json").len(), all);
}

/// Guards against attempts of the page, of an include and of an include in that being one list.
#[test]
fn pages_and_includes_keep_their_attempts() {
    let dead = [(); 3].map(|()| t::refused_port());
    let outer =
        Upstream::tcp(script::raw("HTTP/1.1 200 OK\r\n\r\na<!--#include virtual=\"/inner\" -->b"));
    let inner = Upstream::tcp(script::raw(
        "HTTP/1.1 200 OK\r\n\r\nc<!--#include virtual=\"/innermost\" -->d",
    ));
    let nginx = Nginx::start(
        diag::conf(format!(
            "ssi on; ssi_types *;
             location / {{ proxy_pass http://outer; }}
             location /inner {{ proxy_pass http://inner; }}
             location /innermost {{ proxy_pass http://{}; }}",
            dead[2].addr()
        ))
        .http(format!("upstream outer {{ server {}; server {}; }}", dead[0].addr(), outer.addr()))
        .http(format!(
            "upstream inner {{ server {}; server {}; }}",
            dead[1].addr(),
            inner.addr()
        )),
    );
    let text = nginx.get("/page").text();
    assert!(text.starts_with("ac") && text.ends_with("db"), "{text}");
    let masked = |dead: String, up: &Upstream| {
        json!({"status": 200, "outcome": "masked", "subrequest": null,
               "attempts": [{"peer": dead, "cause": "connection_refused"},
                            {"peer": up.addr(), "cause": null, "status": 200}]})
    };
    let main = diag::seen(&nginx, 2);
    main.expect("connection_refused", &masked(dead[0].addr(), &outer));
    assert_eq!((&main.record["uri"], &main.record["upstream"]), (&"/page".into(), &"outer".into()));
    let subs = [0, 1].map(|n| diag::subrequest(&nginx, n));
    let find = |uri: &str| subs.iter().find(|seen| seen.record["uri"] == uri).expect("a record");
    let mut wanted = masked(dead[1].addr(), &inner);
    wanted["subrequest"] = true.into();
    wanted["upstream"] = "inner".into();
    find("/inner").expect("connection_refused", &wanted);
    find("/innermost").expect(
        "connection_refused",
        &json!({"status": 502, "outcome": "failed", "attempts": [{"peer": dead[2].addr()}]}),
    );
    diag::finish(&nginx);
}

/// Guards against the groups of one include being one list with another's, and against memory or
/// time running out over many records of one request.
#[test]
fn many_includes() {
    const COUNT: usize = 150;
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(includes(&format!(
        "location /part {{ error_page 502 = @good; proxy_pass http://{}; }}
         location @good {{ proxy_pass http://{}; }}",
        dead.addr(),
        good.addr()
    )));
    let part = |n| format!("<!--#include virtual=\"/part/{n}\" -->");
    page(&nginx, &(0..COUNT).map(part).collect::<String>());
    assert_eq!(nginx.get("/page.html").text(), "good".repeat(COUNT));
    nginx.wait_lines("diag.json", COUNT);
    let mut uris = Vec::new();
    for record in nginx.json_log("diag.json") {
        let differences = diag::differences(
            &json!({"outcome": "masked", "status": 200, "location": "/part", "subrequest": true,
                    "attempts": [{"peer": dead.addr(), "cause": "connection_refused"},
                                 {"peer": good.addr(), "cause": null, "status": 200}]}),
            &record,
        );
        assert_eq!(differences, [""; 0], "{record:#}");
        uris.extend(record["uri"].as_str().map(str::to_owned));
    }
    uris.sort();
    uris.dedup();
    assert_eq!(uris.len(), COUNT);
}

/// Guards against what is added around a page failing unseen, or as the page.
#[test]
fn additions() {
    let dead = t::refused_port();
    let silent = Upstream::tcp(script::silent());
    let good = Upstream::tcp(script::ok("good"));
    let conf = diag::conf(format!(
        "addition_types *;
         location / {{ add_before_body /before; add_after_body /after; proxy_pass http://{}; }}
         location = /before {{ proxy_pass http://{}; }}
         location = /after {{ proxy_read_timeout 150ms; proxy_pass http://{}; }}",
        good.addr(),
        dead.addr(),
        silent.addr(),
    ));
    if !Nginx::check(&conf).0 {
        eprintln!("not tested: this nginx has no add_before_body");
        return;
    }
    let nginx = Nginx::start(conf);
    assert!(nginx.get("/").text().contains("good"));
    check(
        &nginx,
        0,
        &[
            ("/before", 502, "connection_refused", "failed", dead.addr()),
            ("/after", 504, "response_timed_out", "failed", silent.addr()),
        ],
    );
    diag::finish(&nginx);
}

/// One slice of four bytes, out of twelve.
fn slice(range: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 206 Partial\r\nContent-Length: 4\r\nContent-Range: bytes {range}/12\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A second slice, or nobody to ask for it, and what is to be said of that.
struct Second {
    answer: Option<Vec<u8>>,
    /// Of the subrequest, and of the attempt.
    status: [u16; 2],
    cause: &'static str,
    outcome: &'static str,
    message: Option<&'static str>,
}

impl Second {
    fn check(self) {
        let Self { answer, status, cause, outcome, message } = self;
        let refused = answer.is_none();
        let port = t::refused_port();
        let gate = t::Gate::new();
        let closed = gate.clone();
        let mut up = Upstream::tcp_at(&port, move |n, conn| {
            conn.read_request();
            if refused {
                conn.wait(&closed);
            }
            conn.write(match n {
                0 => slice("0-3", "abcd"),
                1 => answer.clone().unwrap_or_default(),
                _ => slice("8-11", "ijkl"),
            });
        });
        let nginx = Nginx::start(diag::conf(format!(
            "location / {{ slice 4; proxy_set_header Range $slice_range; postpone_output 0;
                           proxy_pass http://{}; }}",
            up.addr()
        )));
        let mut client = nginx.connect();
        // Otherwise nginx leaves the connection open after a slice that was cut.
        let request = b"GET /big?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.send(request).expect("a request");
        up.wait_connections(1);
        if refused {
            up.close_listener();
            gate.open();
        }
        let response = client.read_response(false).expect("a part of a response");
        assert_eq!((response.status, response.truncated), (200, true), "{cause}");
        let seen = diag::subrequest(&nginx, 0);
        let attempt = json!({"peer": up.addr(), "cause": cause, "status": status[1]});
        let wanted = json!({"uri": "/big", "status": status[0], "outcome": outcome,
                            "attempts": [attempt]});
        seen.expect(cause, &wanted);
        if let Some(message) = message {
            // Newer versions of nginx say more.
            let said = seen.attempt(0)["message"].as_str().unwrap_or_default();
            assert!(said.starts_with(message), "{said}");
        }
        assert_eq!(lines(&nginx, 1).len(), 1);
        assert_eq!(seen.variable("status"), "200");
        assert_eq!(nginx.lines("diag.json").len(), 1);
        diag::finish(&nginx);
    }
}

/// Guards against a response of which a later slice failed counting as whole.
#[test]
fn slices() {
    for (answer, status, cause, outcome) in [
        (None, [502, 502], "connection_refused", "failed"),
        (Some(script::response_with(503, "")), [503, 503], "upstream_response", "passed"),
        (Some(b"HTTP/1.1 206 Part".to_vec()), [502, 502], "closed_in_header", "failed"),
        // The filter makes a 200 of a 206.
        (Some(slice("4-7", "ef")), [200, 206], "response_truncated", "truncated"),
    ] {
        Second { answer, status, cause, outcome, message: None }.check();
    }
}

/// Guards against a slice that nginx refuses, which ends the response there and then, leaving no
/// trace.
#[test]
fn slices_that_do_not_fit() {
    for (answer, status, message) in [
        (slice("0-3", "abcd"), 206, "unexpected range in slice response: 0-4"),
        (script::response("whole"), 200, "unexpected status code 200 in slice response"),
    ] {
        let (cause, outcome) = ("unknown", "truncated");
        let status = [status, status];
        Second { answer: Some(answer), status, cause, outcome, message: Some(message) }.check();
    }
}
