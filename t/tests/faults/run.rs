//! Runs rows: one nginx with a location for each, and one request after the other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use t::client::{self, Addr, Response};
use t::diag::{self, Seen, assert_in};
use t::streams::Stream;
use t::{Answer, Client, Conf, Dns, Nginx, Streams, Upstream, dns, script};

use crate::CAUSES;
use crate::peer::{Kept, Peer, make};
use crate::row::{Ask, Before, Row, SOON, merge};

/// A row in its nginx.
struct Case {
    n: usize,
    row: Row,
    addr: String,
    kept: Kept,
}

/// Runs rows in an nginx of their own. One that fails does not hide the next.
pub(crate) fn run(rows: Vec<Row>) {
    run_in(None, rows);
}

/// [`run`] in a network namespace made by this snippet, in which nginx alone listens: on this port.
pub(crate) fn run_in(namespace: Option<(&str, u16)>, rows: Vec<Row>) {
    let dir = t::temp_dir();
    let good = Upstream::tcp(script::ok("good"));
    let resolver = Dns::start([
        ("fail.example", dns::SERVFAIL),
        ("refused.example", dns::REFUSED),
        ("format.example", Answer::Code(1)),
        ("unknown.example", Answer::Code(4)),
        ("silent.example", Answer::Silent),
        ("empty.example", Answer::Empty),
        ("local.example", Answer::localhost()),
    ]);
    let mut server = match namespace {
        Some((_, port)) => format!("listen unix:{{prefix}}/http0.sock; listen 127.0.0.1:{port};"),
        None => "listen 127.0.0.1:{port};".to_owned(),
    };
    server.push_str("listen unix:{prefix}/h2.sock http2;\n");
    server.push_str("location = /page { return 200 page; }\n");
    let mut http = String::from("postpone_output 0; client_max_body_size 0;\n");
    for module in ["proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"] {
        http.push_str(&format!("{module}_buffer_size 4k;\n"));
    }
    let mut cases = Vec::new();
    for (n, mut row) in rows.into_iter().enumerate() {
        let peer = std::mem::replace(&mut row.peer, Peer::Refused);
        let (addr, kept) = make(peer, &dir.path().join(format!("{n}.sock")));
        let text = |text: &str| {
            text.replace("{n}", &n.to_string())
                .replace("{u}", &format!("u{n}"))
                .replace("{addr}", &addr)
                .replace("{addr_port}", addr.rsplit(':').next().unwrap_or_default())
                .replace("{good}", &good.addr())
                .replace("{dns}", &resolver.addr())
        };
        let Row { server: parameters, group, http: more, .. } = row;
        http.push_str(&text(&format!(
            "upstream {{u}} {{ server {{addr}} {parameters}; {group} }}\n{more}\n"
        )));
        let Row { location, pass, .. } = &row;
        server.push_str(&text(&format!("location /{{n}}/ {{ {location} {pass} }}\n")));
        cases.push(Case { n, row, addr, kept });
    }
    let mut conf: Conf = diag::conf(server).http(http);
    conf.netns = namespace.map(|(snippet, _)| snippet.to_owned());
    let nginx = Nginx::start(conf);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let panic = catch_unwind(AssertUnwindSafe(|| case.check(&nginx))).err()?;
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Some(format!("{}: {text}", case.row.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    diag::finish(&nginx);
}

/// Waits for record `at`. Shorter to read than all those that have come, if it does not.
fn wait_record(nginx: &Nginx, at: usize, response: &Response) {
    let there = || (nginx.lines("diag.json").len() > at).then_some(());
    assert!(t::poll(client::TIMEOUT, there).is_some(), "no record beside {response:?}");
}

impl Case {
    fn check(&self, nginx: &Nginx) {
        let row = &self.row;
        let _held = self.before(nginx);
        let at = nginx.lines("diag.json").len();
        let (response, client) = self.ask(nginx);
        // Stays: a client that leaves when it has what it was promised ends the request. But
        // nginx logs a request that was answered early when its client goes, or some seconds on.
        let _client = (row.phase != Some("send")).then_some(client);
        if row.lenient && response.status != row.status {
            assert_eq!((response.status, response.truncated), (200, false), "{response:?}");
            return;
        }
        wait_record(nginx, at, &response);
        let seen = diag::seen(nginx, at);
        seen.expect(row.cause, &self.wanted());
        self.check_response(&response, &seen);
        self.check_connection(&seen);
        for (name, text) in ["summary", "advice"].into_iter().zip(row.words) {
            let text = text.replace("{addr}", &self.addr);
            assert!(seen.variable(name).contains(&text), "{name}: {}", seen.variable(name));
        }
        self.check_words(&seen);
    }

    /// Brings about what the fault needs; what it gives back is to be kept until that has come.
    fn before(&self, nginx: &Nginx) -> Option<Client> {
        match &self.row.before {
            Before::Nothing => {}
            Before::Answer(status) => {
                let at = nginx.lines("diag.json").len();
                let (response, _client) = self.ask(nginx);
                assert_eq!(response.status, *status, "before: {response:?}");
                if *status >= 500 {
                    wait_record(nginx, at, &response);
                }
            }
            Before::Held => {
                let mut client = nginx.connect();
                client.send(&self.request()).expect("a request");
                let Kept::Upstream(up) = &self.kept else { panic!("nobody holds the request") };
                up.wait_requests(1);
                return Some(client);
            }
            Before::Removed(name) => {
                std::fs::remove_dir_all(nginx.path(name)).expect("a directory of nginx's");
            }
        }
        None
    }

    /// With a query: guards against one getting into a record.
    fn path(&self) -> String {
        format!("/{}/a?b=c", self.n)
    }

    fn request(&self) -> Vec<u8> {
        let (method, length, size) = match self.row.ask {
            Ask::Post(size) => ("POST", format!("Content-Length: {size}\r\n"), size),
            Ask::Get | Ask::H2 => ("GET", String::new(), 0),
        };
        let (path, header) = (self.path(), self.row.header);
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}{length}\r\n");
        let mut request = head.into_bytes();
        request.resize(request.len() + size, b'b');
        request
    }

    /// The response, with the connection that it came on.
    fn ask(&self, nginx: &Nginx) -> (Response, Box<dyn Any>) {
        if !matches!(self.row.ask, Ask::H2) {
            let mut client = nginx.connect();
            return (client.request(&self.request()), Box::new(client));
        }
        let client = Client::connect(&Addr::Unix(nginx.path("h2.sock"))).expect("a connection");
        let mut client = Streams::over(client);
        client.ask(1, "GET", &self.path()).send().expect("a request");
        let stream = client.wait(&[1]).remove(0);
        let headers = Vec::new();
        let Stream { status, body, complete, .. } = stream;
        (Response { status, headers, body, truncated: !complete }, Box::new(client))
    }

    /// What is wanted of the record.
    fn wanted(&self) -> Value {
        let Row { cause, phase, outcome, origin, status, module, .. } = &self.row;
        let (_, proxy_error) =
            CAUSES.iter().find(|(known, _)| known == cause).expect("a cause of the list");
        let method = if matches!(self.row.ask, Ask::Post(_)) { "POST" } else { "GET" };
        let mut wanted = json!({
            "phase": phase, "outcome": outcome, "origin": origin, "status": status,
            "proxy_error": proxy_error, "module": module, "uri": format!("/{}/a", self.n),
            "location": format!("/{}/", self.n), "method": method, "attempts": [],
        });
        // Without an attempt there may be no group.
        if !matches!(*cause, "cached_error" | "local_return") {
            wanted["attempts"] = json!([self.attempt()]);
            if self.row.pass.contains("{u}") {
                wanted["upstream"] = format!("u{}", self.n).into();
            }
        }
        if self.row.phase != Some("select") {
            wanted["peers"] = Value::Null;
        }
        if self.row.retried {
            let good = json!({"cause": null, "phase": null, "status": 200, "errno": null,
                              "message": null});
            wanted["attempts"].as_array_mut().expect("an array").push(good);
        }
        merge(&mut wanted, &self.row.record);
        self.filled(&wanted)
    }

    /// With the row's address where the texts have a place for it.
    fn filled(&self, wanted: &Value) -> Value {
        let text = wanted.to_string().replace("{addr}", &self.addr);
        serde_json::from_str(&text).expect("an address has nothing that JSON would escape")
    }

    /// What is wanted of the attempt that failed.
    fn attempt(&self) -> Value {
        let Row { cause, phase, errnos, .. } = &self.row;
        let mut wanted = json!({"cause": cause, "phase": phase});
        if errnos.len() < 2 {
            wanted["errno"] = errnos.first().map(|(number, _)| *number).into();
            wanted["errname"] = errnos.first().map(|(_, name)| *name).into();
        }
        match phase {
            Some("resolve" | "select") => {
                let none = json!({"connect_time": null, "reused": null, "bytes_sent": null,
                                  "bytes_received": null, "header": null, "tcp": null});
                merge(&mut wanted, &none);
            }
            // These are told with nginx's words: without a line nobody looks at the connection.
            Some(phase) => {
                merge(&mut wanted, &json!({"peer": self.addr, "reused": false}));
                if matches!(*phase, "connect" | "tls") {
                    wanted["header"] = Value::Null;
                }
                if *phase == "tls" {
                    wanted["bytes_received"] = 0.into();
                }
                if self.is_alone() {
                    wanted["peer_state"] = json!({"state": "up"});
                }
            }
            None => merge(&mut wanted, &json!({"peer": self.addr})),
        }
        merge(&mut wanted, &self.row.evidence);
        wanted
    }

    /// The group has this server only, which nginx then never takes out.
    fn is_alone(&self) -> bool {
        !self.row.group.contains("server ")
    }

    fn check_response(&self, response: &Response, seen: &Seen) {
        let row = &self.row;
        assert_eq!(response.status, row.status, "{response:?}");
        // HTTP/0.9 has no end but the connection's, and a value of memcached is whole before its
        // last line, as far as the client can tell.
        let tells = response.status != 9 && row.module != Some("memcached");
        let truncated = row.outcome == "truncated" && tells;
        assert!(response.truncated == truncated || !tells, "{response:?}");
        // What fails in the body is not known yet when the client's header is made.
        let early = row.phase != Some("body") && response.status != 9;
        if early && !matches!(row.ask, Ask::H2) {
            seen.in_header(response);
        }
    }

    /// Checks the numbers of the connection: they are there whenever there was one.
    fn check_connection(&self, seen: &Seen) {
        let row = &self.row;
        let attempt = seen.attempt(0);
        if row.errnos.len() > 1 {
            let found = (attempt["errno"].as_i64(), attempt["errname"].as_str());
            let any = row.errnos.iter().any(|(n, name)| (Some((*n).into()), Some(*name)) == found);
            assert!(any, "{found:?} is none of {:?}", row.errnos);
        }
        let Some(phase) = row.phase.filter(|phase| !matches!(*phase, "resolve" | "select")) else {
            return;
        };
        assert_in(&attempt["connect_time"], 0.0..5.0);
        let least = if row.status == 504 { f64::from(SOON) / 1000.0 } else { 0.0 };
        assert_in(&attempt["elapsed"], least..5.0);
        // Only a connect that hangs has a socket to look at: all else would be another
        // connection's. TCP tells nothing of a unix socket.
        let open = phase != "connect" || row.cause == "connection_timed_out";
        let has_tcp = open && !self.addr.starts_with("unix:");
        assert_eq!(attempt["tcp"].is_object(), has_tcp, "tcp: {}", attempt["tcp"]);
        if row.cause == "connection_timed_out" {
            let time = format!("within {} s", seen.variable("connect_time"));
            assert!(seen.variable("summary").contains(&time), "{}", seen.variable("summary"));
        }
        if attempt["reused"] == true && has_tcp {
            assert_in(&attempt["tcp"]["idle"], 0.0..5.0);
        }
        let Kept::Upstream(up) = &self.kept else { return };
        let connections = match phase {
            "connect" => 0,
            _ if row.retried && self.is_alone() => 2,
            _ => 1,
        };
        assert_eq!(up.connections(), connections, "connections");
        match (phase, &row.ask) {
            ("send", Ask::Post(size)) => {
                let size = f64::from(u32::try_from(*size).expect("less than 4G"));
                assert_in(&attempt["bytes_sent"], 1.0..size);
            }
            // Of one request, whatever the connection carried before.
            ("header" | "body", _) => {
                if let Some(request) = up.requests().last() {
                    assert_eq!(attempt["bytes_sent"], request.len(), "bytes_sent");
                }
            }
            _ => {}
        }
    }

    /// Directives are named as the protocol has them: what its user can set.
    fn check_words(&self, seen: &Seen) {
        if matches!(self.row.module, Some("proxy") | None) {
            return;
        }
        for name in ["summary", "advice"] {
            // What to use instead.
            let text = seen.variable(name).replace("Use proxy_pass", "");
            let text = text.replace("use proxy_pass https://", "");
            assert!(!text.contains("proxy_"), "{name}: {text}");
        }
    }
}
