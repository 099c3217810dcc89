//! Requests that nginx sends on to another location after an upstream request or two: which of
//! the failures is the verdict, and what became of the client.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::json;
use t::diag;
use t::{Conf, Nginx, Upstream, script};

#[path = "redirects/further.rs"]
mod further;

/// A request, and what is to be said of it.
struct Case {
    path: &'static str,
    status: u16,
    /// A part of the body.
    body: &'static str,
    cause: &'static str,
    outcome: &'static str,
    /// The location of the verdict.
    location: &'static str,
    /// As `$upstream_diag_causes` has them.
    causes: &'static str,
}

/// Asks for everything in turn, with `page.html` in place, and checks that there is nothing else.
fn check(conf: Conf, cases: &[Case]) {
    let nginx = Nginx::start(conf);
    std::fs::write(nginx.path("tmp/page.html"), "page").expect("page.html");
    for (n, case) in cases.iter().enumerate() {
        let path = case.path;
        let response = nginx.get(&format!("{path}?a=b"));
        assert_eq!(response.status, case.status, "{path}");
        assert!(response.text().contains(case.body), "{path}: {}", response.text());
        let seen = diag::seen(&nginx, n);
        seen.expect(
            case.cause,
            &json!({"uri": path, "location": case.location, "status": case.status,
                    "outcome": case.outcome, "method": "GET"}),
        )
        .in_header(&response);
        assert_eq!(seen.variable("causes"), case.causes, "{path}");
    }
    assert_eq!(nginx.lines("diag.json").len(), cases.len());
    diag::finish(&nginx);
}

/// An upstream that hands every request on to this location.
fn handing_on(status: u16, to: &str) -> Upstream {
    Upstream::tcp(script::raw(format!(
        "HTTP/1.1 {status} Scripted\r\nX-Accel-Redirect: {to}\r\n\r\n"
    )))
}

const REFUSED: &str = "connection_refused";

/// Guards against a failure that was made good being lost when the good answer sends nginx
/// elsewhere, and against the failure of where it sends being taken for its own.
#[test]
fn handed_on_by_an_upstream() {
    let dead = [(); 2].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let file = handing_on(200, "/files/page.html");
    let missing = handing_on(200, "/files/missing.html");
    let named = handing_on(200, "@named");
    let proxied = handing_on(200, "/good");
    let failing = handing_on(200, "/dead");
    let failing_named = handing_on(200, "@dead");
    let own = handing_on(502, "/files/page.html");
    let own_failing = handing_on(503, "/dead");
    let mut server = format!(
        "location /files {{ internal; alias {{prefix}}/tmp; }}
         location @named {{ return 200 'named $upstream_diag_cause $upstream_diag_causes'; }}
         location /good {{ proxy_pass http://{}; }}
         location /dead {{ proxy_pass http://{dead}; }}
         location @dead {{ proxy_pass http://{dead}; }}
         location /own {{ proxy_pass http://{}; }}
         location /own/dead {{ proxy_pass http://{}; }}
         location /first/named {{ proxy_pass http://{}; }}",
        good.addr(),
        own.addr(),
        own_failing.addr(),
        failing_named.addr(),
        dead = dead[1].addr(),
    );
    let mut http = String::new();
    for (name, up) in [
        ("file", &file),
        ("missing", &missing),
        ("named", &named),
        ("proxied", &proxied),
        ("failing", &failing),
    ] {
        server.push_str(&format!("location /to/{name} {{ proxy_pass http://{name}; }}"));
        http.push_str(&format!(
            "upstream {name} {{ server {} max_fails=0; server {} max_fails=0; }}",
            dead[0].addr(),
            up.addr()
        ));
    }
    let case = |path, status, body, outcome, location, causes| Case {
        path,
        status,
        body,
        cause: REFUSED,
        outcome,
        location,
        causes,
    };
    let both = "connection_refused, - : connection_refused";
    let own = "upstream_response";
    check(
        diag::conf(server).http(http),
        &[
            case("/to/file", 200, "page", "masked", "/to/file", "connection_refused, -"),
            case("/to/missing", 404, "404", "masked", "/to/missing", "connection_refused, -"),
            case(
                "/to/named",
                200,
                "named connection_refused connection_refused, -",
                "masked",
                "/to/named",
                "connection_refused, -",
            ),
            case("/to/proxied", 200, "good", "masked", "/to/proxied", "connection_refused, - : -"),
            case("/to/failing", 502, "502", "failed", "/dead", both),
            case("/first/named", 502, "502", "failed", "@dead", "- : connection_refused"),
            Case { cause: own, ..case("/own", 200, "page", "masked", "/own", own) },
            case(
                "/own/dead",
                502,
                "502",
                "failed",
                "/dead",
                "upstream_response : connection_refused",
            ),
        ],
    );
}

/// Guards against errors of upstreams that are intercepted being mixed up with nginx's own.
#[test]
fn intercepted() {
    let dead = t::refused_port();
    let good = Upstream::tcp(script::ok("good"));
    let [own502, own503, own504, own404] =
        [502, 503, 504, 404].map(|status| Upstream::tcp(script::status(status)));
    let location = |name: &str, up: &Upstream, more: &str| {
        format!("location {name} {{ {more} proxy_pass http://{}; }}", up.addr())
    };
    let server = [
        "proxy_intercept_errors on; recursive_error_pages on;".to_owned(),
        format!("location @dead {{ proxy_pass http://{}; }}", dead.addr()),
        location("@good", &good, ""),
        location("@last", &own504, "error_page 502 503 @none;"),
        location("/page", &own502, "error_page 502 503 /page.html;"),
        location("/masked", &own503, "error_page 502 503 =200 /page.html;"),
        location("/two", &own502, "error_page 502 = @good;"),
        location("/three", &own502, "error_page 502 = @second;"),
        location("@second", &own503, "error_page 503 = @good;"),
        location("/passed", &own502, "error_page 502 = @second_passed;"),
        location("@second_passed", &own503, "error_page 503 = @last;"),
        location("/refused", &own502, "error_page 502 = @second_refused;"),
        location("@second_refused", &own503, "error_page 503 = @dead;"),
        location("/missing", &own404, "error_page 404 = @dead;"),
        location("/not", &own502, "error_page 503 = @good;"),
        "location = /page.html { root {prefix}/tmp; }".to_owned(),
    ];
    let own = |path, status, body, outcome, location, causes| Case {
        path,
        status,
        body,
        cause: "upstream_response",
        outcome,
        location,
        causes,
    };
    let one = "upstream_response";
    check(
        diag::conf(server.concat()),
        &[
            own("/page", 502, "page", "passed", "/page", one),
            own("/masked", 200, "page", "masked", "/masked", one),
            own("/two", 200, "good", "masked", "/two", "upstream_response : -"),
            own(
                "/three",
                200,
                "good",
                "masked",
                "@second",
                "upstream_response : upstream_response : -",
            ),
            own(
                "/passed",
                504,
                "scripted",
                "passed",
                "@last",
                "upstream_response : upstream_response : upstream_response",
            ),
            Case {
                cause: REFUSED,
                ..own(
                    "/refused",
                    502,
                    "502",
                    "failed",
                    "@dead",
                    "upstream_response : upstream_response : connection_refused",
                )
            },
            Case {
                cause: REFUSED,
                ..own("/missing", 502, "502", "failed", "@dead", "- : connection_refused")
            },
            own("/not", 502, "scripted", "passed", "/not", one),
        ],
    );
}

/// Guards against the error page being taken for the response, where it is an upstream's itself.
#[test]
fn error_pages() {
    let dead = [(); 2].map(|()| t::refused_port());
    let good = Upstream::tcp(script::ok("good"));
    let own = Upstream::tcp(script::status(503));
    let cut = Upstream::tcp(script::partial_body(100, "part", script::End::Fin));
    let location = |name: &str, page: &str| {
        format!(
            "location {name} {{ error_page 502 {page}; proxy_pass http://{}; }}",
            dead[0].addr()
        )
    };
    let server = [
        format!("location /good {{ proxy_pass http://{}; }}", good.addr()),
        format!(
            "location @dead {{ error_page 502 = @good; proxy_pass http://{}; }}",
            dead[1].addr()
        ),
        format!("location @good {{ proxy_pass http://{}; }}", good.addr()),
        format!("location @own {{ proxy_pass http://{}; }}", own.addr()),
        format!("location @cut {{ proxy_pass http://{}; }}", cut.addr()),
        // The status stays, whatever the page is.
        location("/kept", "/good"),
        location("/failing", "@dead"),
        // Not recursive, so that the second error has no page.
        location("/taken", "= @dead"),
        location("/own", "= @own"),
        location("/away", "http://example.com/"),
        location("/missing", "=404 /page.html"),
        location("/error", "=500 /page.html"),
        location("/status", "=503 @good"),
        location("/cut", "= @cut"),
        "location = /page.html { root {prefix}/tmp; }".to_owned(),
    ];
    let case = |path, status, body, outcome, location, causes| Case {
        path,
        status,
        body,
        cause: REFUSED,
        outcome,
        location,
        causes,
    };
    let two = "connection_refused : connection_refused";
    check(
        diag::conf(server.concat()),
        &[
            case("/kept", 502, "good", "failed", "/kept", "connection_refused : -"),
            case("/failing", 502, "502", "failed", "@dead", two),
            case("/taken", 502, "502", "failed", "@dead", two),
            Case {
                cause: "upstream_response",
                ..case(
                    "/own",
                    503,
                    "scripted",
                    "passed",
                    "@own",
                    "connection_refused : upstream_response",
                )
            },
            case("/away", 302, "302", "masked", "/away", REFUSED),
            case("/missing", 404, "page", "masked", "/missing", REFUSED),
            case("/error", 500, "page", "failed", "/error", REFUSED),
            case("/status", 503, "good", "failed", "/status", "connection_refused : -"),
        ],
    );
}
