//! The status location: whom it answers, how, and with what.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use t::{Conf, Nginx, Response, Streams, Upstream, diag, script, streams};

#[path = "status/filters.rs"]
mod filters;
#[path = "status/formats.rs"]
mod formats;
#[path = "status/large.rs"]
mod large;
#[path = "status/metrics.rs"]
mod metrics;

/// A server with the status document at `/status`, which also has these locations.
fn conf(locations: impl AsRef<str>) -> Conf {
    let locations = locations.as_ref();
    Conf::new(format!("location = /status {{ upstream_diag_status; }} {locations}"))
        .http("upstream_diag on;")
}

/// The names and values of the headers, in order, without those that depend on the moment.
fn headers(response: &Response) -> Vec<(&str, &str)> {
    let all = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    all.filter(|(name, _)| *name != "Date").collect()
}

/// All values of a header.
fn values<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let named = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// Checks what every answer of the status location says about being kept.
fn assert_not_kept(response: &Response) {
    assert_eq!(values(response, "Cache-Control"), ["no-store"], "{response:?}");
    assert_eq!(values(response, "Vary"), ["Accept"], "{response:?}");
}

/// Guards against a client that only wants to know the size getting another answer than with GET.
#[test]
fn head_has_the_headers_of_get() {
    let nginx = Nginx::start(conf(""));
    let mut client = nginx.connect();
    for (query, status) in
        [("", 200), ("?format=prometheus", 200), ("?limit=3", 200), ("?limit=x", 400)]
    {
        let get = client.get(&format!("/status{query}"));
        let head =
            client.request(format!("HEAD /status{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!((get.status, head.status, head.body.len()), (status, status, 0));
        assert_eq!(headers(&head), headers(&get), "{query}");
        assert_not_kept(&get);
        let length = get.body.len().to_string();
        assert_eq!(values(&get, "Content-Length"), [length.as_str()]);
        assert!(!get.body.is_empty());
    }
}

/// Guards against a resource that looks as if it could be changed, a client that is not told what
/// it may do, and a body that is taken for the next request.
#[test]
fn only_reading_is_allowed() {
    let nginx = Nginx::start(conf("location = /prom { upstream_diag_status prometheus; }"));
    for path in ["/status", "/prom", "/status?limit=x"] {
        let mut client = nginx.connect();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
            for body in ["", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"] {
                let content = match body {
                    "" => "",
                    text if text.starts_with('C') => "body",
                    _ => "4\r\nbody\r\n0\r\n\r\n",
                };
                let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{body}\r\n{content}");
                let response = client.request(request.as_bytes());
                assert_eq!(response.status, 405, "{request}: {response:?}");
                assert_eq!(values(&response, "Allow"), ["GET, HEAD"], "{request}: {response:?}");
            }
        }
        assert_eq!(client.get("/status").status, 200);
    }
    // The one that is allowed may have a body too, of no meaning.
    let mut client = nginx.connect();
    let body = b"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!((client.request(body).status, client.get("/status").status), (200, 200));
    // nginx answers this one itself, before any location is looked for.
    assert_eq!(nginx.request(b"TRACE /status HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
}

/// Guards against restrictions that do not hold, and against an answer of theirs that has the
/// document, or counts as a failure.
#[test]
fn access_can_be_restricted() {
    let with_password = "auth_basic x; auth_basic_user_file {prefix}/users;";
    let nginx = Nginx::start(conf(format!(
        "location = /denied {{ upstream_diag_status; deny all; }}
         location = /allowed {{ upstream_diag_status; allow 127.0.0.1; deny all; }}
         location = /basic {{ upstream_diag_status; {with_password} }}
         location = /both {{ upstream_diag_status; {with_password} deny all; }}
         location = /any {{ upstream_diag_status; {with_password} deny all; satisfy any; }}
         location = /here {{ upstream_diag_status; {with_password} satisfy any;
                             allow 127.0.0.1; deny all; }}"
    )));
    fs::write(nginx.path("users"), "me:{PLAIN}secret\n").expect("users");
    let good = "Authorization: Basic bWU6c2VjcmV0\r\n";
    let bad = "Authorization: Basic bWU6d3Jvbmc=\r\n";
    for (path, header, status) in [
        ("/denied", "", 403),
        ("/denied?limit=x", "", 403),
        ("/allowed", "", 200),
        ("/basic", "", 401),
        ("/basic", bad, 401),
        ("/basic", good, 200),
        ("/both", good, 403),
        ("/any", "", 401),
        ("/any", bad, 401),
        ("/any", good, 200),
        ("/here", "", 200),
    ] {
        let response = nginx.get_with(path, header);
        assert_eq!(response.status, status, "{path} {header}");
        assert_eq!(response.text().contains("totals"), status == 200, "{path} {header}");
    }
    let status = diag::status_at(&nginx, "/status");
    assert_eq!(status["totals"]["requests"], 0);
    assert_eq!(status["recent"], json!([]));
}

/// Guards against a status location that needs something to be diagnosed.
#[test]
fn without_a_zone_there_is_a_document() {
    let good = Upstream::tcp(script::ok("good"));
    for zone in ["", "upstream_diag_zone 1m;"] {
        let nginx = Nginx::start(
            Conf::new(format!(
                "location = /status {{ upstream_diag_status; }}
                 location / {{ proxy_pass http://{}; }} location /no {{ return 502; }}",
                good.addr()
            ))
            .http(zone),
        );
        assert_eq!((nginx.get("/good").status, nginx.get("/no").status), (200, 502));
        let document = diag::status_at(&nginx, "/status");
        let nothing = json!({
            "dropped": {"records": 0, "lines": 0, "suppressed": 0, "peers": 0},
            "totals": {"requests": 0, "failed": 0},
            "recent": [],
        });
        assert_eq!(diag::differences(&nothing, &document), [""; 0]);
        assert_eq!(document["upstreams"], json!({}));
        assert_eq!(document["timeline"]["causes"], json!({}));
        let bytes = if zone.is_empty() { 0 } else { 1 << 20 };
        assert_eq!(document["zone"]["bytes"], bytes);
        for (accept, end) in [("text/plain", "\n"), ("application/openmetrics-text", "# EOF\n")] {
            let metrics = nginx.get_with("/status", &format!("Accept: {accept}\r\n"));
            assert_eq!(metrics.status, 200);
            let text = metrics.text();
            assert!(text.contains("\nnginx_upstream_diag_build_info{"), "{text}");
            assert!(text.ends_with(end), "{text}");
        }
        for path in ["/status?upstream=a&peer=b&cause=unknown&limit=0", "/status?limit=9"] {
            assert_eq!(diag::status_at(&nginx, path)["recent"], json!([]));
        }
    }
}

/// Guards against a location whose format depends on where in it, or in what, nginx is.
#[test]
fn every_kind_of_location() {
    let nginx = Nginx::start(conf(
        "location /outer { upstream_diag_status prometheus;
             location /outer/json { upstream_diag_status json; }
             location /outer/files { root {prefix}/nowhere; }
         }
         location /if { upstream_diag_status prometheus; if ($arg_limit) { set $x 1; } }
         location ~ ^/(?<name>re) { upstream_diag_status json; if ($name) { set $x 1; } }
         location /rewritten { rewrite ^ /status last; }
         location /tried { try_files /nothing @named; }
         location @named { upstream_diag_status; }
         location /page { error_page 418 = /status; return 418; }
         location = /internal { internal; upstream_diag_status; }",
    ));
    let json = "application/json";
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let metrics = nginx.get("/outer");
    assert_eq!(metrics.header("Content-Type"), Some(text));
    for (path, content_type) in [
        ("/status", json),
        ("/outer", text),
        ("/outer/other", text),
        ("/outer/json", json),
        ("/if", text),
        ("/if?limit=1", text),
        ("/re", json),
        ("/rewritten", json),
        ("/tried", json),
        ("/page", json),
    ] {
        let response = nginx.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("Content-Type"), Some(content_type), "{path}");
    }
    assert_eq!(nginx.get("/outer/files").status, 404);
    assert_eq!(nginx.get("/internal").status, 404);
}

/// Guards against filters behind the module's that get what they cannot take.
#[test]
fn other_filters_can_work_on_it() {
    let dead = t::refused_port();
    let nginx = Nginx::start(conf(format!(
        "location / {{ proxy_pass http://{}; }}
         location = /gzip {{ upstream_diag_status; gzip on; gzip_types *; gzip_min_length 1;
                             gzip_vary on; }}
         location = /page {{ ssi on; ssi_types *; root {{prefix}}/tmp; }}
         location = /slow {{ upstream_diag_status; limit_rate 1m; }}
         location = /more {{ upstream_diag_status; add_header X-More yes; charset koi8-r; }}",
        dead.addr()
    )));
    for _ in 0..20 {
        assert_eq!(nginx.get("/").status, 502);
    }
    let recent = diag::status_at(&nginx, "/status")["recent"].clone();
    assert_eq!(recent.as_array().map(Vec::len), Some(20));

    let packed = nginx.get_with("/gzip", "Accept-Encoding: gzip\r\n");
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    let mut vary = values(&packed, "Vary");
    vary.sort_unstable();
    assert_eq!(vary, ["Accept", "Accept-Encoding"]);
    fs::write(nginx.path("status.gz"), &packed.body).expect("status.gz");
    let unpacked = Command::new("gzip").arg("-dc").arg(nginx.path("status.gz")).output();
    let unpacked = unpacked.expect("gzip");
    assert!(unpacked.status.success());
    let unpacked = Response { body: unpacked.stdout, ..packed };
    assert_eq!(diag::status_in(&unpacked)["recent"], recent);

    for path in ["/slow", "/more"] {
        assert_eq!(diag::status_at(&nginx, path)["recent"], recent, "{path}");
    }
    assert_eq!(nginx.get("/more").header("X-More"), Some("yes"));

    // A subrequest has no last buffer of its own.
    let page =
        "[<!--#include virtual=\"/status\" -->,<!--#include virtual=\"/status?limit=1\" -->]";
    fs::write(nginx.path("tmp/page"), page).expect("page");
    let page = nginx.get("/page");
    let both: Value = serde_json::from_slice(&page.body).expect("JSON in JSON");
    assert_eq!(both[0]["recent"], recent);
    assert_eq!(both[1]["recent"], json!([recent[0]]));
}

/// Guards against answers that a client of HTTP/2 gets otherwise, or incomplete.
#[test]
fn over_http_2() {
    let dead = t::refused_port();
    let mut conf = conf(format!("location / {{ proxy_pass http://{}; }}", dead.addr()));
    conf.servers[0].push_str(streams::listen());
    let nginx = Nginx::start(conf);
    let mut client = Streams::connect(&nginx);
    client.ask(1, "GET", "/dead").send().expect("sent");
    assert_eq!(client.wait(&[1])[0].status, 502);
    client.ask(3, "GET", "/status").ask(5, "HEAD", "/status").ask(7, "OPTIONS", "/status");
    client.ask(9, "GET", "/status?limit=x").ask(11, "GET", "/status?format=prometheus");
    client.send().expect("sent");
    let [get, head, options, wrong, metrics] =
        client.wait(&[3, 5, 7, 9, 11]).try_into().expect("five answers");
    let document: Value = serde_json::from_slice(&get.body).expect("a JSON document");
    assert_eq!(document["recent"][0]["uri"], "/dead");
    assert_eq!((get.status, head.status, head.body.len()), (200, 200, 0));
    assert_eq!((options.status, wrong.status, metrics.status), (405, 400, 200));
    assert!(metrics.body.starts_with(b"# HELP nginx_upstream_diag_"));
}
