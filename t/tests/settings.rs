//! Blocks inside blocks, each with its settings: what counts is where the upstream failed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use serde_json::{Value, json};
use t::{Conf, Nginx, RefusedPort, Upstream, diag, script};

const REFUSED: &str = "connection_refused";

/// The logs that some block names.
const LOGS: [&str; 4] = ["diag.json", "a.json", "b.json", "c.json"];

/// What the logs have, each as a list of URI and location.
struct Logs<'a> {
    nginx: &'a Nginx,
    counts: [usize; LOGS.len()],
    requests: usize,
}

impl<'a> Logs<'a> {
    fn of(nginx: &'a Nginx) -> Self {
        Self { nginx, counts: [0; LOGS.len()], requests: 0 }
    }

    /// Waits for the end of one more request: its line of the access log, and what was added to
    /// the logs, each with its name.
    fn next(&mut self) -> (Value, Vec<(&'static str, Value)>) {
        self.requests += 1;
        let line =
            self.nginx.wait_json_lines("access.log", self.requests).swap_remove(self.requests - 1);
        let mut added = Vec::new();
        for (name, count) in LOGS.into_iter().zip(&mut self.counts) {
            // Records are written before the line that was waited for.
            let all = self.nginx.json_log(name);
            added.extend(all.iter().skip(*count).map(|record| (name, record.clone())));
            *count = all.len();
        }
        (line, added)
    }
}

fn dead() -> RefusedPort {
    t::refused_port()
}

/// Guards against the settings of another block than the one with the upstream that failed, and
/// against its name missing where it is an expression, an exception or has none.
#[test]
fn blocks_in_blocks() {
    let (dead, other) = (dead(), dead());
    let pass = format!("proxy_pass http://{};", dead.addr());
    let nginx = Nginx::start(diag::conf(format!(
        r"location ~ '^/re/(\d+)$' {{ {pass} }}
          location ~* \.php$ {{ upstream_diag_log {{prefix}}/a.json; {pass} }}
          location = /exact {{ {pass} }}
          location ^~ /prefix {{ {pass} }}
          location /outer {{
              upstream_diag off;
              location /outer/in {{ upstream_diag on; {pass} location ~ x$ {{ {pass} }} }}
              location /outer/off {{ {pass} }}
          }}
          location /logged {{
              upstream_diag_log {{prefix}}/a.json;
              upstream_diag_query on;
              location /logged/in {{ {pass} }}
              location /logged/other {{ upstream_diag_log {{prefix}}/b.json; {pass} }}
              location /logged/none {{ upstream_diag_log off; upstream_diag_query off; {pass} }}
          }}
          location /get {{ limit_except GET {{ deny all; }} {pass} }}
          location /post {{ upstream_diag_log {{prefix}}/b.json;
                            limit_except GET {{ proxy_pass http://{}; }} return 200; }}
          location /if {{ upstream_diag_log {{prefix}}/b.json;
                          if ($arg_to) {{ proxy_pass http://{}; }}
                          if ($arg_off) {{ upstream_diag off; }}
                          {pass} }}",
        other.addr(),
        other.addr(),
    )));
    let mut logs = Logs::of(&nginx);
    let (first, second) = (dead.addr(), other.addr());
    for (request, status, log, location, peer) in [
        ("GET /re/12", 502, "diag.json", r"^/re/(\d+)$", &first),
        ("GET /x/y.php", 502, "a.json", r"\.php$", &first),
        ("GET /exact", 502, "diag.json", "/exact", &first),
        ("GET /prefix/x", 502, "diag.json", "/prefix", &first),
        ("GET /outer/in", 502, "diag.json", "/outer/in", &first),
        ("GET /outer/in/x", 502, "diag.json", "x$", &first),
        ("GET /outer/off", 502, "", "", &first),
        ("GET /logged/in?q=1", 502, "a.json", "/logged/in", &first),
        ("GET /logged/other?q=1", 502, "b.json", "/logged/other", &first),
        ("GET /logged/none?q=1", 502, "none", "", &first),
        ("GET /get", 502, "diag.json", "/get", &first),
        ("POST /get", 403, "", "", &first),
        ("GET /post", 200, "", "", &first),
        ("POST /post", 502, "b.json", "/post", &second),
        ("GET /if", 502, "b.json", "/if", &first),
        ("GET /if?to=1", 502, "b.json", "/if", &second),
        ("GET /if?off=1", 502, "", "", &first),
    ] {
        let text = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(nginx.request(text.as_bytes()).status, status, "{request}");
        let (line, added) = logs.next();
        if log.is_empty() {
            diag::assert_empty(&line);
        } else {
            assert_eq!(line["cause"], REFUSED, "{request}");
        }
        if log.is_empty() || log == "none" {
            assert_eq!(added, [], "{request}");
            continue;
        }
        assert_eq!(added.len(), 1, "{request}: {added:#?}");
        let path = request.split(' ').nth(1).unwrap_or_default();
        let keeps_query = path.starts_with("/logged");
        let uri = if keeps_query { path } else { path.split('?').next().unwrap_or_default() };
        let wanted = json!({"location": location, "uri": uri, "attempts": [{"peer": peer}]});
        assert_eq!(
            (added[0].0, diag::differences(&wanted, &added[0].1)),
            (log, vec![]),
            "{request}"
        );
    }
}

/// Guards against the record of a request that went through several blocks being in the log of
/// one that has no part in the failure, or in more than one.
#[test]
fn named_locations() {
    let (dead, other) = (dead(), dead());
    let good = Upstream::tcp(script::ok("good"));
    let own = Upstream::tcp(script::status(503));
    let nginx = Nginx::start(diag::conf(format!(
        "location /good {{ error_page 502 = @good; proxy_pass http://{dead}; }}
         location @good {{ upstream_diag_log {{prefix}}/a.json; proxy_pass http://{}; }}
         location /dead {{ upstream_diag_log {{prefix}}/a.json;
                           error_page 502 = @dead; proxy_pass http://{dead}; }}
         location @dead {{ upstream_diag_log {{prefix}}/b.json; upstream_diag_query on;
                           proxy_pass http://{other}; }}
         location /off {{ error_page 502 = @off; proxy_pass http://{dead}; }}
         location @off {{ upstream_diag off; upstream_diag_log {{prefix}}/b.json;
                          proxy_pass http://{other}; }}
         location /own {{ error_page 502 = @own; proxy_pass http://{dead}; }}
         location @own {{ upstream_diag_log {{prefix}}/c.json; proxy_pass http://{}; }}
         location /own/off {{ error_page 502 = @own_off; proxy_pass http://{dead}; }}
         location @own_off {{ upstream_diag off; proxy_pass http://{}; }}
         location /silent {{ upstream_diag_log off; error_page 502 = @dead; proxy_pass http://{dead}; }}",
        good.addr(),
        own.addr(),
        own.addr(),
        dead = dead.addr(),
        other = other.addr(),
    )));
    let mut logs = Logs::of(&nginx);
    let own = "upstream_response";
    for (path, status, log, cause, location, uri) in [
        ("/good", 200, "diag.json", REFUSED, "/good", "/good"),
        ("/dead", 502, "b.json", REFUSED, "@dead", "/dead?q=1"),
        // The failure in the second is nobody's to know; the first is reported all the same.
        ("/off", 502, "diag.json", REFUSED, "/off", "/off"),
        ("/own", 503, "c.json", own, "@own", "/own"),
        ("/own/off", 503, "diag.json", REFUSED, "/own/off", "/own/off"),
        ("/silent", 502, "b.json", REFUSED, "@dead", "/silent?q=1"),
    ] {
        assert_eq!(nginx.get(&format!("{path}?q=1")).status, status, "{path}");
        let (line, added) = logs.next();
        assert_eq!(line["cause"], cause, "{path}");
        assert_eq!(added.len(), 1, "{path}: {added:#?}");
        let wanted = json!({"cause": cause, "location": location, "uri": uri});
        assert_eq!((added[0].0, diag::differences(&wanted, &added[0].1)), (log, vec![]), "{path}");
    }
}

/// Guards against an attempt that failed where nobody was to look for why, before or after one that
/// is diagnosed, being shown like a good one; and against a good one being shown like that.
#[test]
fn attempts_that_are_not_diagnosed() {
    let (dead, other) = (dead(), dead());
    let own = Upstream::tcp(script::status(503));
    let good = Upstream::tcp(script::ok("good"));
    let handing = Upstream::tcp(script::raw("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /dead\r\n\r\n"));
    let nginx = Nginx::start(
        diag::conf(format!(
            "location /dead {{ proxy_pass http://{dead}; }}
             location @dead {{ proxy_pass http://{dead}; }}
             location @off {{ upstream_diag off; proxy_pass http://{other}; }}
             location @good {{ upstream_diag off; proxy_pass http://{good}; }}
             location /after {{ error_page 502 = @off; proxy_pass http://{dead}; }}
             location /after/good {{ error_page 502 = @good; proxy_pass http://{dead}; }}
             location /post {{ post_action @off; proxy_pass http://{dead}; }}
             location /before {{
                 upstream_diag off;
                 error_page 502 503 504 = @dead;
                 proxy_pass http://{other};
                 location /before/nobody {{ proxy_pass http://nobody; }}
                 location /before/own {{ proxy_intercept_errors on; proxy_pass http://{own}; }}
                 location ~ ^/before/variable {{ set $to {other}; proxy_pass http://$to; }}
                 location /before/good {{ proxy_pass http://{handing}; }}
             }}",
            own = own.addr(),
            good = good.addr(),
            handing = handing.addr(),
            dead = dead.addr(),
            other = other.addr(),
        ))
        .http(format!("upstream nobody {{ server {other} down; }}", other = other.addr(),)),
    );
    let failed = json!({"peer": dead.addr(), "cause": REFUSED, "diagnosed": null, "status": 502});
    let not = |peer: &str, status: u16| json!({"peer": peer, "cause": null, "phase": null, "diagnosed": false, "status": status});
    let fine = |peer: &str| json!({"peer": peer, "cause": null, "diagnosed": null, "status": 200});
    let (other, own) = (other.addr(), own.addr());
    for (n, (path, attempts, causes)) in [
        ("/after", [failed.clone(), not(&other, 502)], "connection_refused : -"),
        ("/after/good", [failed.clone(), fine(&good.addr())], "connection_refused : -"),
        ("/post", [failed.clone(), not(&other, 502)], "connection_refused : -"),
        ("/before", [not(&other, 502), failed.clone()], "- : connection_refused"),
        ("/before/nobody", [not("nobody", 502), failed.clone()], "- : connection_refused"),
        ("/before/own", [not(&own, 503), failed.clone()], "- : connection_refused"),
        ("/before/variable", [not(&other, 502), failed.clone()], "- : connection_refused"),
        ("/before/good", [fine(&handing.addr()), failed.clone()], "- : connection_refused"),
    ]
    .into_iter()
    .enumerate()
    {
        nginx.get(path);
        let seen = diag::seen(&nginx, n);
        seen.expect(REFUSED, &json!({"uri": path, "attempts": attempts}));
        assert_eq!(seen.variable("causes"), causes, "{path}");
    }
    diag::finish(&nginx);
}

/// Guards against servers having each other's settings, also where they share a port.
#[test]
fn servers() {
    let dead = dead();
    let pass = format!("proxy_pass http://{};", dead.addr());
    let nginx = Nginx::start(
        diag::conf(format!("server_name first.example; location / {{ {pass} }}"))
            .server(format!(
                "upstream_diag off; location / {{ {pass} }}
                 location /on {{ upstream_diag on; {pass} }}"
            ))
            .server(format!("upstream_diag_log {{prefix}}/a.json; location / {{ {pass} }}"))
            .server(format!(
                "listen 127.0.0.1:{{port0}}; server_name second.example;
                 upstream_diag_log {{prefix}}/b.json; upstream_diag_log {{prefix}}/c.json;
                 location / {{ {pass} }} location /off {{ upstream_diag off; {pass} }}"
            ))
            .server(format!(
                "listen 127.0.0.1:{{port0}}; server_name third.example; upstream_diag off;
                 upstream_diag_log {{prefix}}/b.json; location / {{ {pass} }}"
            )),
    );
    let mut logs = Logs::of(&nginx);
    for (at, host, path, wanted) in [
        (0, "first.example", "/", &[("diag.json", "first.example")][..]),
        (0, "unknown.example", "/", &[("diag.json", "first.example")]),
        (0, "second.example", "/", &[("b.json", "second.example"), ("c.json", "second.example")]),
        (0, "second.example", "/off", &[]),
        (0, "third.example", "/", &[]),
        // Behind the one with the status.
        (2, "x", "/", &[]),
        (2, "x", "/on", &[("diag.json", "")]),
        (3, "x", "/", &[("a.json", "")]),
    ] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(nginx.connect_to(at).request(text.as_bytes()).status, 502);
        let (line, added) = logs.next();
        let found: Vec<_> = added
            .iter()
            .map(|(log, record)| (*log, record["server"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(found, wanted, "{host}{path}");
        assert_eq!(line["cause"], if wanted.is_empty() { "" } else { REFUSED }, "{host}{path}");
        assert!(added.iter().all(|(_, record)| record["host"] == host), "{added:#?}");
    }
}

/// Guards against a condition that is asked of another request, of none, or once for all logs.
#[test]
fn conditions() {
    let dead = dead();
    let good = Upstream::tcp(script::ok("good"));
    let nginx = Nginx::start(
        diag::conf(format!(
            "upstream_diag_log {{prefix}}/a.json if=$arg_a;
             upstream_diag_log {{prefix}}/b.json if=$client_saw;
             upstream_diag_log {{prefix}}/c.json if=$is_check;
             location / {{ proxy_pass http://{dead}; }}
             location /masked {{ proxy_pass http://u; }}
             location /both {{ mirror /copy; proxy_pass http://u; }}
             location = /copy {{ proxy_pass http://{dead}; }}
             location /all {{ upstream_diag_log {{prefix}}/diag.json; proxy_pass http://{dead}; }}
             location /auth {{ auth_request /check; root {{prefix}}/tmp; }}
             location = /check {{ proxy_pass http://{dead}; }}",
            dead = dead.addr(),
        ))
        // Otherwise nginx takes what it found for the subrequest for the main request too.
        .http("map $upstream_diag_outcome $client_saw { volatile; masked 0; default 1; }")
        .http("map $uri $is_check { volatile; /check 1; default ''; }")
        .http(format!(
            "upstream u {{ server {} max_fails=0; server {} backup; }}",
            dead.addr(),
            good.addr()
        )),
    );
    let mut logs = Logs::of(&nginx);
    for (path, status, wanted) in [
        ("/x", 502, &["b.json"][..]),
        ("/x?a=1", 502, &["a.json", "b.json"]),
        ("/x?a=0", 502, &["b.json"]),
        ("/masked?a=1", 200, &["a.json"]),
        ("/all", 502, &["diag.json"]),
        ("/auth", 500, &["b.json", "c.json"]),
        // The copy's.
        ("/both", 200, &["b.json"]),
    ] {
        assert_eq!(nginx.get(path).status, status, "{path}");
        let found: Vec<_> = logs.next().1.into_iter().map(|(log, _)| log).collect();
        assert_eq!(found, wanted, "{path}");
    }
}

/// Guards against a server whose http block says nothing having no zone, no hooks, or having them
/// for requests that asked for none.
#[test]
fn one_location_of_many() {
    let dead = dead();
    let nginx = Nginx::start(
        Conf::new(format!(
            "location / {{ proxy_pass http://{dead}; }}
             location /on {{ upstream_diag on; upstream_diag_log {{prefix}}/a.json;
                             proxy_pass http://{dead}; }}",
            dead = dead.addr()
        ))
        .access_log(r#"{"cause":"$upstream_diag_cause","json":"$upstream_diag_json"}"#),
    );
    let mut logs = Logs::of(&nginx);
    for (path, wanted) in [("/", None), ("/on", Some("a.json")), ("/", None)] {
        assert_eq!(nginx.get(path).status, 502);
        let (line, added) = logs.next();
        assert_eq!(added.first().map(|(log, _)| *log), wanted);
        assert_eq!(line["cause"], if wanted.is_some() { REFUSED } else { "" });
        assert_eq!(line["json"] == "", wanted.is_none());
    }
}
