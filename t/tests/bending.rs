//! Requests that are bent on their way: error pages, redirects, subrequests, blocks that switch
//! diagnosis on and off. The record and the variables are those of the failure all the same.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs;
use std::process::Command;

use serde_json::Value;
use t::dns::NXDOMAIN;
use t::{Dns, Upstream, script, streams};

#[path = "bending/success.rs"]
mod success;
#[path = "bending/world.rs"]
mod world;
use world::{PER_ATTEMPT, world, world_with};

/// Guards against a record that is lost when nginx clears the contexts of its modules.
#[test]
fn variables_survive_redirects() {
    let mut world = world(
        "location /file { error_page 502 /page.html; proxy_pass http://@dead0; }
         location /masked { error_page 502 =200 /page.html; proxy_pass http://@dead0; }
         location /named { error_page 502 = @named; proxy_pass http://@dead0; }
         location @named { return 200 'named $upstream_diag_cause $kind'; }
         location /kept { error_page 502 @kept; proxy_pass http://@dead0; }
         location @kept { return 200 'kept'; }
         location /proxied { error_page 502 = /backup; proxy_pass http://@dead0; }
         location /backup { proxy_pass http://@good; }
         location /rewritten { rewrite ^ /target last; }
         location /target { proxy_pass http://@dead0; }
         location /tried { try_files /none @tried; }
         location @tried { proxy_pass http://@dead0; }
         location /intercepted { error_page 502 /page.html; proxy_pass http://@dead0;
                                 proxy_intercept_errors on; }
         location = /page.html { root @www; }",
    );
    for (n, (path, status, body, outcome, location)) in [
        ("/file", 502, "page", "failed", "/file"),
        ("/masked", 200, "page", "masked", "/masked"),
        ("/named", 200, "named connection_refused refused", "masked", "/named"),
        ("/kept", 502, "kept", "failed", "/kept"),
        ("/proxied", 200, "good", "masked", "/proxied"),
        ("/rewritten", 502, "", "failed", "/target"),
        ("/tried", 502, "", "failed", "@tried"),
        ("/intercepted", 502, "page", "failed", "/intercepted"),
    ]
    .into_iter()
    .enumerate()
    {
        let (response, line) = world.get(path);
        assert_eq!(response.status, status, "{path}");
        assert!(body.is_empty() || response.text() == body, "{path} {}", response.text());
        assert_eq!(response.header("X-Cause"), Some("[connection_refused]"), "{path}");
        assert_eq!(response.header("X-Kind"), Some("refused"), "{path}");
        assert_eq!(
            (&line["cause"], &line["outcome"]),
            (&"connection_refused".into(), &outcome.into())
        );
        world.failed(n + 1);
        let record = &world.records()[n];
        assert_eq!((&record["status"], &record["outcome"]), (&status.into(), &outcome.into()));
        assert_eq!((&record["uri"], &record["location"]), (&path.into(), &location.into()));
        assert!(record.get("subrequest").is_none());
        let json: Value = serde_json::from_str(line["json"].as_str().unwrap_or("")).expect("JSON");
        assert_eq!(json["attempts"], record["attempts"], "{path}");
    }
}

/// Guards against diagnosis that is decided by another block than the one whose upstream failed.
#[test]
fn blocks_switch_diagnosis_on_and_off() {
    let mut world = world_with(
        "location /off { upstream_diag off; proxy_pass http://@dead0; }
         location /off/on { upstream_diag on; proxy_pass http://@dead0; }
         location /if { upstream_diag off; if ($arg_x) { upstream_diag on; }
                        proxy_pass http://@dead0; }
         location /onoff { error_page 502 = @off; proxy_pass http://@dead0; }
         location @off { upstream_diag off; proxy_pass http://@good; }
         location /offon { upstream_diag off; error_page 502 @on; proxy_pass http://@dead0; }
         location @on { upstream_diag on; proxy_pass http://@dead4; }",
        |conf| {
            let mut second = conf.servers[0].replace("location /off {", "location /inherits {");
            second.push_str("upstream_diag off;");
            conf.server(second.replace("upstream_diag off; proxy_pass", "proxy_pass"))
        },
    );
    for (server, path, status, cause, causes) in [
        (0, "/off", 502, "", ""),
        (0, "/off/on", 502, "connection_refused", "connection_refused"),
        (0, "/if", 502, "", ""),
        (0, "/if?x=1", 502, "connection_refused", "connection_refused"),
        (0, "/onoff", 200, "connection_refused", "connection_refused : -"),
        (0, "/offon", 502, "connection_refused", "- : connection_refused"),
        (1, "/inherits", 502, "", ""),
        (1, "/off/on", 502, "connection_refused", "connection_refused"),
    ] {
        let before = world.records().len();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = world.nginx.connect_to(server).request(request.as_bytes());
        let line = world.line();
        assert_eq!(response.status, status, "{path}");
        assert_eq!((&line["cause"], &line["causes"]), (&cause.into(), &causes.into()), "{path}");
        world.failed(before + usize::from(!cause.is_empty()));
    }
}

/// Guards against a subrequest's failure being lost, or being taken for the main request's.
#[test]
fn subrequests_have_records_of_their_own() {
    for log_subrequest in ["", "log_subrequest on;"] {
        let server = "location /auth { auth_request /check; proxy_pass http://@good; }
             location = /check { internal; proxy_pass http://@dead0/; }
             location /authorized { auth_request /yes; proxy_pass http://@dead0; }
             location = /yes { proxy_pass http://@good; }
             location /ssi { ssi on; default_type text/html; alias @www/ssi.html; }
             location /part { proxy_pass http://@dead0; }
             location /mirror { mirror /copy; proxy_pass http://@good; }
             location = /copy { internal; proxy_pass http://@dead0; }";
        let world = world_with(server, |conf| conf.http(log_subrequest));
        fs::write(
            world.nginx.path("tmp/ssi.html"),
            "a<!--#include virtual=\"/part/1?q=1\" -->b<!--#include virtual=\"/part/2\" -->c",
        )
        .expect("ssi.html");
        let mut before = 0;
        for (path, status, cause, records) in [
            ("/auth", 500, "connection_refused", &[("/check", 502, true)][..]),
            ("/authorized", 502, "connection_refused", &[("/authorized", 502, false)]),
            ("/ssi", 200, "", &[("/part/1", 502, true), ("/part/2", 502, true)]),
            ("/mirror", 200, "", &[("/copy", 502, true)]),
        ] {
            let response = world.nginx.get(path);
            assert_eq!(response.status, status, "{path}");
            assert_eq!(response.header("X-Cause"), Some(format!("[{cause}]").as_str()), "{path}");
            world.nginx.wait_json_lines("diag.json", before + records.len());
            // The main request's line comes last.
            let shown = status.to_string();
            let main = |line: &Value| line["uri"] == path && line["status"] == shown.as_str();
            let lines = t::eventually("its line", std::time::Duration::from_secs(5), || {
                Some(world.nginx.json_log("access.log")).filter(|lines| lines.iter().any(main))
            });
            let line = lines.iter().rfind(|line| main(line)).expect("its line");
            assert_eq!(line["cause"], cause, "{path}");
            let found: Vec<_> = world.records().split_off(before);
            assert_eq!(found.len(), records.len(), "{path} {found:?}");
            for (record, (uri, status, subrequest)) in found.iter().zip(records) {
                assert_eq!(
                    (&record["uri"], &record["status"]),
                    (&(*uri).into(), &(*status).into())
                );
                assert_eq!(record.get("subrequest").is_some_and(|s| s == true), *subrequest);
                assert_eq!(
                    (&record["cause"], &record["outcome"]),
                    (&"connection_refused".into(), &"failed".into())
                );
                assert_eq!(record["attempts"].as_array().map(Vec::len), Some(1));
            }
            before += records.len();
        }
    }
}

/// The numbers of entries in each group.
fn shape(list: &str) -> Vec<usize> {
    list.split(" : ").map(|group| group.split(", ").count()).collect()
}

/// Guards against values that cannot be matched with the addresses beside them in a log.
#[test]
fn values_line_up_with_addresses() {
    let dns = Dns::start([("gone.example", NXDOMAIN)]);
    let mut world = world(&format!(
        "resolver {} ipv6=off;
         location /two {{ proxy_pass http://two; }}
         location /half {{ proxy_pass http://half; }}
         location /more {{ proxy_pass http://half; error_page 502 = @more; proxy_next_upstream off; }}
         location @more {{ proxy_pass http://more; }}
         location /gone {{ proxy_pass http://gone; error_page 502 = @fallback; }}
         location @fallback {{ proxy_pass http://@good; }}
         location /name {{ proxy_pass http://$arg_h; }}
         location /named {{ proxy_pass http://$arg_h; error_page 502 = @fallback; }}
         location /bound {{ proxy_bind 192.0.2.1; proxy_pass http://@good; }}
         location /rebound {{ proxy_bind 192.0.2.1; proxy_pass http://@good; error_page 500 = @fallback; }}
         location /thrice {{ proxy_pass http://@dead0; error_page 502 = @second; recursive_error_pages on; }}
         location @second {{ proxy_pass http://@dead0; error_page 502 = @fallback; recursive_error_pages on; }}",
        dns.addr()
    ));
    let [d0, d1, d2, d3] = [0, 1, 2, 3].map(|i| world.dead[i].addr());
    let good = world.good.addr();
    let refused = "connection_refused";
    for (path, status, addr, causes, errnos) in [
        ("/two", 502, format!("{d1}, {d2}"), format!("{refused}, {refused}"), "111, 111"),
        // Both were taken out by then.
        ("/two", 502, "two".into(), "no_live_upstreams".into(), "-"),
        ("/half", 200, format!("{d3}, {good}"), format!("{refused}, -"), "111, -"),
        (
            "/gone",
            200,
            format!("{d1}, {d2} : {good}"),
            format!("{refused}, {refused} : -"),
            "111, 111 : -",
        ),
        ("/gone", 200, format!("gone : {good}"), "no_live_upstreams : -".into(), "- : -"),
        (
            "/thrice",
            200,
            format!("{d0} : {d0} : {good}"),
            format!("{refused} : {refused} : -"),
            "111 : 111 : -",
        ),
        // nginx has no entry for these, or one without an address.
        ("/name?h=gone.example", 502, String::new(), "dns_not_found".into(), "-"),
        ("/named?h=gone.example", 200, format!(", {good}"), "dns_not_found, -".into(), "-, -"),
        ("/bound", 500, String::new(), "bind_failed".into(), "99"),
        ("/rebound", 200, format!(" : {good}"), "bind_failed : -".into(), "99 : -"),
    ] {
        let (response, line) = world.get(path);
        assert_eq!((response.status, &line["addr"]), (status, &addr.as_str().into()), "{path}");
        assert_eq!((&line["causes"], &line["errno"]), (&causes.into(), &errnos.into()), "{path}");
        for name in PER_ATTEMPT {
            let values = line[name].as_str().expect("a text");
            assert_eq!(shape(values), shape(&addr), "{path} {name}: {values}");
            let empty = values.split([':', ',']).any(|value| value.trim().is_empty());
            assert!(!empty, "{path} {name}: {values}");
        }
        let attempts = world.records().pop().expect("a record")["attempts"].clone();
        let count = attempts.as_array().map(Vec::len);
        assert_eq!(count, Some(shape(&addr).iter().sum()), "{path} {attempts}");
    }
}

/// Guards against code that takes the connection of an HTTP/2 stream for a socket.
#[test]
fn http2_clients_are_diagnosed_alike() {
    let version = Command::new("curl").arg("-V").output();
    if !version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("HTTP2")) {
        eprintln!("not tested: there is no curl that speaks HTTP/2");
        return;
    }
    let closing = Upstream::tcp(script::close_at_once());
    let world = world(&format!(
        "{} location /dead {{ proxy_pass http://@dead0; }}
         location /closing {{ proxy_pass http://{}; }}
         location /good {{ proxy_pass http://@good; }}",
        streams::listen(),
        closing.addr()
    ));
    let wanted = [
        ("/dead", "502 2", "connection_refused"),
        ("/good", "200 2", ""),
        ("/closing", "502 2", "closed_before_response"),
    ];
    for (path, status, cause) in wanted {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "--max-time", "10", "-i"]);
        curl.args(["-w", "\n=%{http_code} %{http_version}"]);
        curl.arg(format!("http://127.0.0.1:{}{path}", world.nginx.port()));
        let output = curl.output().expect("curl");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with(&format!("\n={status}")), "{output:?}");
        assert!(said.contains(&format!("\nx-cause: [{cause}]\r\n")), "{said}");
    }
    world.nginx.wait_json_lines("access.log", 3);
    world.failed(2);
}
