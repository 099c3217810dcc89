//! Errors that an upstream answers with itself: nginx logs nothing of them, and after a redirect
//! nothing tells where they happened.

#![allow(
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::json;
use t::diag;
use t::script;
use t::{Conf, Nginx, Upstream};

/// A server in which nothing is diagnosed but what says so.
fn conf(server: &str) -> Conf {
    diag::conf(format!("upstream_diag off; {server}"))
}

/// Guards against the record being lost when the error page is in a location without diagnosis,
/// and against the variables being empty there.
#[test]
fn an_error_page_elsewhere() {
    let up = Upstream::tcp(script::status(502));
    let nginx = Nginx::start(conf(&format!(
        "location / {{ upstream_diag on; upstream_diag_log {{prefix}}/diag.json;
                       proxy_intercept_errors on; error_page 502 /50x;
                       proxy_pass http://{}; }}
         location /50x {{ return 502 \"sorry\"; }}",
        up.addr()
    )));
    let response = nginx.get("/a");
    assert_eq!(response.status, 502);
    diag::seen(&nginx, 0)
        .expect(
            "upstream_response",
            &json!({"status": 502, "outcome": "passed", "origin": "upstream", "uri": "/a",
                    "location": "/", "attempts": [{"peer": up.addr(), "status": 502}]}),
        )
        .in_header(&response);
    diag::finish(&nginx);
}

/// Guards against an answer being said to have been passed on of which the client got nothing: an
/// error page took its place, with its status or another, a subrequest had asked, or nginx went on to
/// another server or location. Those leave the client with an error that is not the upstream's own.
#[test]
fn what_became_of_the_answer() {
    let up = Upstream::tcp(script::status(503));
    let other = Upstream::tcp(script::status(500));
    let good = Upstream::tcp(script::ok("fine"));
    let handing = Upstream::tcp(script::raw(
        "HTTP/1.1 503 Scripted\r\nX-Accel-Redirect: /local/x\r\nContent-Length: 0\r\n\r\n",
    ));
    let groups = [("failing", other.addr()), ("served", good.addr())];
    let groups = groups.map(|(name, next)| {
        format!("upstream {name} {{ server {}; server {next} backup; }}", up.addr())
    });
    let nginx = Nginx::start(
        diag::conf(format!(
            "proxy_intercept_errors on;
         location /passed {{ proxy_pass http://{0}; }}
         location /page {{ error_page 503 /50x; proxy_pass http://{0}; }}
         location /other {{ error_page 503 =502 /50x; proxy_pass http://{0}; }}
         location /fine {{ error_page 503 =200 /50x; proxy_pass http://{0}; }}
         location /50x {{ return 200 sorry; }}
         location /auth {{ auth_request /check; root {{prefix}}; }}
         location = /check {{ internal; proxy_pass http://{0}; }}
         proxy_next_upstream http_503;
         location /failing {{ proxy_pass http://failing; }}
         location /served {{ proxy_pass http://served; }}
         location /handing {{ proxy_pass http://{1}; }}
         location ~ ^/variable(.*) {{ set $to {1}; proxy_pass http://$to; }}
         location /local {{ return 500; }}",
            up.addr(),
            handing.addr(),
        ))
        .http(groups.concat()),
    );
    let (passed, failed, masked) = ("passed", "failed", "masked");
    for (n, (uri, status, outcome, summary, advice)) in [
        ("/passed", 503, passed, ".", ": nginx passed its answer on."),
        (
            "/failing",
            500,
            failed,
            ". The client got 500.",
            "; nginx went on to another server (proxy_next_upstream).",
        ),
        (
            "/served",
            200,
            masked,
            ". The client was served all the same.",
            "; nginx went on to another server (proxy_next_upstream).",
        ),
        (
            "/handing",
            500,
            failed,
            ". The client got 500.",
            "; nginx followed the X-Accel-Redirect in it.",
        ),
        (
            "/variable",
            500,
            failed,
            ". The client got 500.",
            "; nginx followed the X-Accel-Redirect in it.",
        ),
        (
            "/page",
            503,
            passed,
            ". The client got an error page in its place.",
            "; the client got an error_page in its place (proxy_intercept_errors).",
        ),
        (
            "/other",
            502,
            passed,
            ". The client got 502.",
            "; the client got an error_page in its place (proxy_intercept_errors).",
        ),
        (
            "/fine",
            200,
            masked,
            ". The client was served all the same.",
            "; the client got an error_page in its place (proxy_intercept_errors).",
        ),
        (
            "/auth",
            500,
            passed,
            ".",
            "; it answered a subrequest of nginx's (auth_request, mirror, an include), not the client.",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(nginx.get(uri).status, status, "{uri}");
        let record = nginx.wait_json_lines("diag.json", n + 1).remove(n);
        assert_eq!(record["cause"], "upstream_response", "{uri}");
        assert_eq!(record["outcome"], outcome, "{uri}");
        let peer = record["attempts"][0]["peer"].as_str().unwrap();
        assert_eq!(record["summary"], format!("{peer} answered 503 itself{summary}"), "{uri}");
        let wanted = format!("Look at the upstream's own log for the 503{advice}");
        assert_eq!(record["advice"], wanted, "{uri}");
    }
    diag::finish(&nginx);
}

/// Guards against a location without diagnosis being diagnosed because its error page is one with.
#[test]
fn an_error_page_does_not_diagnose_what_led_to_it() {
    let bad = Upstream::tcp(script::status(503));
    let good = Upstream::tcp(script::ok("fine"));
    let nginx = Nginx::start(conf(&format!(
        "location / {{ proxy_intercept_errors on; error_page 503 = @on; proxy_pass http://{}; }}
         location @on {{ upstream_diag on; proxy_pass http://{}; }}",
        bad.addr(),
        good.addr()
    )));
    assert_eq!(nginx.get("/").text(), "fine");
    diag::finish(&nginx);
    assert!(nginx.json_log("diag.json").is_empty());
}

/// nginx does not log subrequests: guards against an auth_request whose server answers 502 leaving
/// the main request's 500 without a reason.
#[test]
fn a_subrequest() {
    let up = Upstream::tcp(script::status(502));
    let nginx = Nginx::start(diag::conf(format!(
        "location / {{ auth_request /auth; root {{prefix}}; }}
         location = /auth {{ internal; proxy_pass http://{}; }}",
        up.addr()
    )));
    let response = nginx.get("/page");
    assert_eq!(response.status, 500);
    let record = nginx.wait_json_lines("diag.json", 1).remove(0);
    let wanted = json!({
        "cause": "upstream_response", "subrequest": true, "uri": "/auth", "location": "/auth",
        "status": 502, "outcome": "passed", "origin": "upstream",
        "attempts": [{"peer": up.addr(), "status": 502}],
    });
    assert!(diag::differences(&wanted, &record).is_empty(), "{record:#}");
    assert_eq!(response.header("X-Cause"), Some("upstream_response"));
}

/// An address that cannot be used makes no entry in nginx's list of attempts. Guards against its
/// failure being put down to the good peer of the fallback, and the answer counted as cut.
#[test]
fn a_bad_address_before_a_good_one() {
    let good = Upstream::tcp(script::ok("fine"));
    let nginx = Nginx::start(diag::conf(format!(
        "location / {{ error_page 500 = @good; proxy_pass $arg_to; }}
         location @good {{ proxy_pass http://{}; }}",
        good.addr()
    )));
    assert_eq!(nginx.get("/?to=ftp://h").text(), "fine");
    let record = nginx.wait_json_lines("diag.json", 1).remove(0);
    let wanted = json!({
        "cause": "invalid_upstream_url", "outcome": "masked", "status": 200,
        "attempts": [{"cause": "invalid_upstream_url", "peer": null},
                     {"cause": null, "peer": good.addr(), "status": 200}],
    });
    assert!(diag::differences(&wanted, &record).is_empty(), "{record:#}");
}

/// Guards against an error line that comes while a peer is chosen keeping the module from watching
/// the upstream requests that follow in that worker.
#[test]
fn a_line_from_the_balancer() {
    let up = Upstream::tcp(script::status(502));
    let nginx = Nginx::start(
        conf(&format!(
            "location /hash {{ upstream_diag on; proxy_pass http://hashed; }}
             location / {{ upstream_diag on; upstream_diag_log {{prefix}}/diag.json;
                           proxy_intercept_errors on; error_page 502 /50x;
                           proxy_pass http://{0}; }}
             location /50x {{ return 502; }}",
            up.addr()
        ))
        .http("map $loop $loop { default 1; }")
        .http(format!("upstream hashed {{ hash $loop; server {}; }}", up.addr())),
    );
    nginx.get("/hash");
    nginx.wait_for_log("cycle while evaluating", t::client::TIMEOUT);
    nginx.get("/a");
    let records = nginx.wait_json_lines("diag.json", 2);
    let uris: Vec<_> = records.iter().map(|record| &record["uri"]).collect();
    assert_eq!(uris, ["/hash", "/a"]);
    assert!(records.iter().all(|r| r["cause"] == "upstream_response" && r["outcome"] == "passed"));
}
