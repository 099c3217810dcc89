//! The broken upstreams, the nginx in front of them, and what the module
//! should say about each.

use std::any::Any;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use t::script::{self, End};
use t::{Conf, Dns, Upstream, full_backlog_tcp, refused_port, temp_dir};

/// Directives that hold for every location.
const HTTP: &str = "
upstream_diag on;
upstream_diag_log {prefix}/upstream_diag.json;
proxy_buffer_size 4k;
";

/// What nginx can say itself: the variables that one would put into an access
/// log to find out about upstreams.
pub(crate) const NGINX_SAYS: [&str; 6] = [
    "status",
    "upstream_addr",
    "upstream_status",
    "upstream_connect_time",
    "upstream_header_time",
    "upstream_response_time",
];

/// One request to one broken upstream.
pub(crate) struct Case {
    /// The path without its slash.
    pub(crate) name: &'static str,
    /// What is wrong, for the heading.
    pub(crate) title: &'static str,
    /// A GET comes before, with this pause behind it.
    pub(crate) before: Option<Duration>,
    /// GET or POST.
    pub(crate) method: &'static str,
    /// The location's directives.
    pub(crate) location: String,
    /// The group it passes to.
    pub(crate) group: Option<String>,
    /// The status that the client should get.
    pub(crate) status: u16,
    /// What the record should say, by JSON pointer; no record should come
    /// when there is nothing here.
    pub(crate) expected: Vec<(&'static str, Value)>,
}

/// Cases and what they need as long as they are asked.
pub(crate) struct Site {
    /// In the order they are shown.
    pub(crate) cases: Vec<Case>,
    /// Blocks and directives before the server.
    http: String,
    /// Upstreams, ports and directories: dropped, they are gone.
    kept: Vec<Box<dyn Any>>,
}

impl Site {
    /// Breaks everything.
    pub(crate) fn new() -> Self {
        let mut site = Self { cases: Vec::new(), http: HTTP.to_owned(), kept: Vec::new() };
        site.healthy();
        site.connecting();
        site.answering();
        site.groups();
        site
    }

    /// The nginx in front of it all.
    pub(crate) fn conf(&self) -> Conf {
        let mut server = String::new();
        let mut paths = String::new();
        for Case { name, location, title, .. } in &self.cases {
            let _ = writeln!(server, "location = /{name} {{ {location} }}");
            let _ = writeln!(paths, "/{name:<14} {title}");
        }
        server
            .push_str("location = /upstream_diag { access_log off; upstream_diag_status json; }\n");
        let _ = writeln!(server, "location / {{ access_log off; return 200 \"{paths}\"; }}");
        let says = NGINX_SAYS.map(|name| format!("\"{name}\":\"${name}\"")).join(",");
        let format = format!("{{\"id\":\"$request_id\",{says}}}");
        Conf::new(server).http(&self.http).access_log(format)
    }

    fn healthy(&mut self) {
        let addr = self.tcp(script::ok("all is well\n"));
        let case = Case { status: 200, ..case("healthy", "Nothing is wrong", pass(&addr)) };
        self.cases.push(case);
    }

    /// Nobody to talk to.
    fn connecting(&mut self) {
        let dir = temp_dir();
        let port = refused_port();
        let location = pass(&port.addr());
        self.keep(port);
        self.add(
            case("refused", "Nothing listens on the port", location),
            &[("/attempts/0/errname", json!("ECONNREFUSED"))],
            ["connection_refused", "connect", "failed"],
        );

        let location = pass(&format!("unix:{}", dir.path().join("absent.sock").display()));
        self.add(
            case("no-socket", "The unix socket does not exist", location),
            &[("/attempts/0/errname", json!("ENOENT"))],
            ["socket_not_found", "connect", "failed"],
        );

        let path = dir.path().join("private.sock");
        let upstream = Upstream::unix(&path, script::ok("unreachable\n"));
        // Closed to its owner too, for when nginx is not started as root and
        // its workers are the same user as this program.
        fs::set_permissions(&path, Permissions::from_mode(0o000)).expect("chmod of a socket");
        let location = pass(&upstream.addr());
        self.keep(upstream);
        self.add(
            case("no-permission", "nginx's user may not write to the unix socket", location),
            &[("/attempts/0/errname", json!("EACCES"))],
            ["permission_denied", "connect", "failed"],
        );
        self.keep(dir);

        let full = full_backlog_tcp();
        let location = format!("proxy_connect_timeout 500ms; {}", pass(full.addr()));
        self.keep(full);
        let hang = case("no-answer", "Packets are dropped, the connection never stands", location);
        self.add(Case { status: 504, ..hang }, &[], ["connection_timed_out", "connect", "failed"]);

        // It knows no name at all.
        let dns = Dns::start([]);
        let location = format!(
            "resolver {} ipv6=off; set $backend http://api.internal.example; proxy_pass $backend;",
            dns.addr()
        );
        self.keep(dns);
        self.add(
            case("no-name", "The upstream's name does not resolve", location),
            &[],
            ["dns_not_found", "resolve", "failed"],
        );
    }

    /// Somebody who answers badly.
    fn answering(&mut self) {
        let location = pass(&self.tcp(script::close_at_once()));
        self.add(
            case("closes", "The upstream closes without an answer (a worker was killed)", location),
            &[("/attempts/0/reused", json!(false))],
            ["closed_before_response", "header", "failed"],
        );

        let location = pass(&self.tcp(script::reset_at_once()));
        self.add(
            case("resets", "The upstream resets the connection", location),
            &[("/attempts/0/errname", json!("ECONNRESET"))],
            ["connection_reset", "header", "failed"],
        );

        let location = pass(&self.tcp(script::big_header(9_043)));
        self.add(
            case("big-header", "The response header is larger than proxy_buffer_size", location),
            &[
                ("/attempts/0/header/size", json!(9_043)),
                ("/attempts/0/header/exact", json!(true)),
                ("/attempts/0/header/limit", json!(4_096)),
            ],
            ["header_too_big", "header", "failed"],
        );

        let addr = self.tcp(script::silent());
        let location = format!("proxy_read_timeout 500ms; {}", pass(&addr));
        let slow = case("slow", "The upstream takes the request and does not answer", location);
        self.add(Case { status: 504, ..slow }, &[], ["response_timed_out", "header", "failed"]);

        let location = pass(&self.tcp(script::partial_body(1_000, "not all of it", End::Fin)));
        let cut = case("cut-body", "The upstream dies in the middle of the body", location);
        self.add(Case { status: 200, ..cut }, &[], ["response_truncated", "body", "truncated"]);

        let addr = self.tcp(|_, conn| {
            // What a web server makes of a TLS handshake.
            conn.read_some();
            conn.write(script::response_with(400, "this port speaks HTTP\n"));
            conn.wait_peer_close();
        });
        self.add(
            case(
                "https-to-http",
                "TLS is spoken to a port for plain HTTP",
                format!("proxy_pass https://{addr};"),
            ),
            &[],
            ["protocol_mismatch", "tls", "failed"],
        );

        let location = pass(&self.tcp(script::status(502)));
        self.add(
            case("own-502", "The upstream answers 502 itself: nginx only passes it on", location),
            &[("/origin", json!("upstream"))],
            ["upstream_response", "", "passed"],
        );
    }

    /// Failures that depend on what happened before.
    fn groups(&mut self) {
        let addr = self.tcp(script::keepalive_then_close_on_next(End::Fin));
        let group = self.group("app", &format!("server {addr}; keepalive 4;"));
        let location =
            format!("proxy_http_version 1.1; proxy_set_header Connection \"\"; {}", pass("app"));
        let race = case(
            "keepalive-race",
            "The upstream closes an idle connection as nginx reuses it",
            location,
        );
        self.add(
            // A POST that was sent is not sent again: it fails for want of an idle connection.
            Case { method: "POST", before: Some(Duration::from_millis(700)), group, ..race },
            &[("/attempts/0/reused", json!(true))],
            ["keepalive_race", "header", "failed"],
        );

        let (port, good) = (refused_port(), self.tcp(script::ok("from the other one\n")));
        let group = self.group(
            "pair",
            &format!("server {} fail_timeout=2s; server {good} backup;", port.addr()),
        );
        self.keep(port);
        let masked =
            case("masked", "One server is dead, another one serves the client", pass("pair"));
        self.add(
            Case { status: 200, group, ..masked },
            &[
                ("/attempts/0/peer_state/state", json!("unavailable")),
                ("/attempts/1/status", json!(200)),
            ],
            ["connection_refused", "connect", "masked"],
        );

        let (one, two) = (refused_port(), refused_port());
        let group = self.group("dead", &format!("server {}; server {};", one.addr(), two.addr()));
        self.keep((one, two));
        let down =
            case("all-down", "The request before took out every server of the group", pass("dead"));
        self.add(
            Case { before: Some(Duration::ZERO), group, ..down },
            &[("/peers/0/state", json!("unavailable")), ("/peers/1/state", json!("unavailable"))],
            ["no_live_upstreams", "select", "failed"],
        );
    }

    /// A case that is diagnosed: with this cause, phase (or none) and outcome.
    fn add(&mut self, mut case: Case, evidence: &[(&'static str, Value)], verdict: [&str; 3]) {
        let [cause, phase, outcome] = verdict;
        let phase = if phase.is_empty() { Value::Null } else { json!(phase) };
        case.expected =
            vec![("/cause", json!(cause)), ("/phase", phase), ("/outcome", json!(outcome))];
        case.expected.extend_from_slice(evidence);
        self.cases.push(case);
    }

    fn tcp(&mut self, script: impl Fn(usize, &mut t::Conn) + Send + Sync + 'static) -> String {
        let upstream = Upstream::tcp(script);
        let addr = upstream.addr();
        self.keep(upstream);
        addr
    }

    fn group(&mut self, name: &str, servers: &str) -> Option<String> {
        let group = format!("upstream {name} {{ {servers} }}");
        let _ = writeln!(self.http, "{group}");
        Some(group)
    }

    fn keep(&mut self, what: impl Any) {
        self.kept.push(Box::new(what));
    }
}

/// A GET that gives 502 and of which nothing is said.
fn case(name: &'static str, title: &'static str, location: String) -> Case {
    let expected = Vec::new();
    Case { name, title, before: None, method: "GET", location, group: None, status: 502, expected }
}

fn pass(to: &str) -> String {
    format!("proxy_pass http://{to};")
}
