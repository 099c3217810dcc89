//! The servers of a measurement: the nginx that is measured, and another one as its upstream.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use t::client::Addr;
use t::{Client, Conf, Name, Nginx, RefusedPort};
use tempfile::TempDir;

use crate::scenario::{MANY_PEERS, Scenario, address};
use crate::way::{LOG, Way};

/// What the nginx under test is connected to. It outlives several of them.
pub(crate) struct Upstreams {
    nginx: Name,
    good: Nginx,
    dead: RefusedPort,
    files: TempDir,
}

/// No connection is ever closed for its age or its number of requests: that would be work that
/// happens on some requests only.
const KEEP: &str = "keepalive_requests 1000000000; keepalive_timeout 1h; client_header_timeout 1h;";

impl Upstreams {
    /// A plain nginx of this kind that says `hello` at many addresses, and a port where nobody
    /// listens at any.
    pub(crate) fn start(nginx: Name) -> Self {
        let mut server = "location / { return 200 \"hello\\n\"; }\n".to_owned();
        for n in 0..MANY_PEERS {
            let _ = writeln!(server, "listen {}:{{port}};", address(n));
        }
        let conf = Conf::new(server)
            .nginx(nginx)
            .without_module()
            .log_level("error")
            .events("worker_connections 4096;")
            .http(KEEP);
        let (good, dead) = (Nginx::start(conf), t::refused_port());
        Self { nginx, good, dead, files: t::temp_dir() }
    }

    /// The nginx that is measured.
    pub(crate) fn nginx(&self) -> Name {
        self.nginx
    }

    /// The configuration of the nginx under test.
    pub(crate) fn conf(&self, scenario: &Scenario, way: Way) -> Conf {
        if let Some((name, text)) = way.file() {
            fs::write(self.files.path().join(name), text).expect("a file in a directory of ours");
        }
        let files = self.files.path().to_str().expect("temporary directories have plain names");
        let conf = Conf::new(way.server() + &scenario.locations())
            .nginx(self.nginx)
            // nginx's own default.
            .log_level("error")
            .main(way.main())
            .http(KEEP)
            .http(way.http(scenario.rate).replace("{files}", files))
            .http(scenario.block(self.dead.port(), self.good.port()));
        // Lua's file is opened by the worker, in the directory of whoever runs this.
        let conf = if is_root() { conf.user("root") } else { conf };
        if way == Way::Module { conf } else { conf.without_module() }
    }
}

/// A client that keeps its connection. Its requests are as short as HTTP/1.1 allows.
pub(crate) struct Asker {
    client: Client,
    path: &'static str,
    status: u16,
}

impl Asker {
    /// Connects; a slowed-down nginx may take long to answer.
    pub(crate) fn connect(address: &Addr, path: &'static str, status: u16) -> Self {
        let mut client = Client::connect(address).expect("nginx listens");
        client.set_timeout(Duration::from_secs(60));
        Self { client, path, status }
    }

    /// Sends the beginning of a request.
    pub(crate) fn begin(&mut self) {
        let text = format!("GET {} HTTP/1.1\r\nHo", self.path);
        self.client.send(text.as_bytes()).expect("a server that reads");
    }

    /// Sends the rest of it.
    pub(crate) fn end(&mut self) {
        let response = self.client.request(b"st: localhost\r\n\r\n");
        assert_eq!(response.status, self.status, "{response:?}");
    }

    /// Sends so many requests, one after the other; the last body.
    ///
    /// # Panics
    /// When an answer has another status.
    pub(crate) fn ask(&mut self, requests: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for _ in 0..requests {
            let response = self.client.get(self.path);
            assert_eq!(response.status, self.status, "{response:?}");
            body = response.body;
        }
        body
    }
}

/// Checks that a way has logged what it is there to log, and nothing else: what does nothing
/// costs nothing.
///
/// # Panics
/// When it has not.
pub(crate) fn check_lines(nginx: &Nginx, scenario: &Scenario, way: Way, requests: usize) {
    let all_fail = way != Way::Stock && scenario.fails();
    let wanted = if all_fail && scenario.rate.is_none() { requests } else { 0 };
    let lines = nginx.wait_lines(LOG, wanted);
    if !all_fail {
        assert!(lines.is_empty(), "{} {}: {:?}", scenario.name, way.name(), lines.first());
    } else if way == Way::Module && scenario.rate.is_some() {
        assert!(!lines.is_empty() && lines.len() <= requests, "{}: {}", scenario.name, lines.len());
    } else {
        assert_eq!(lines.len(), requests, "{} {}: lines", scenario.name, way.name());
        let last = lines.last().map(String::as_str).unwrap_or_default();
        assert!(last.contains("127.1.") && last.contains("502"), "{}: {last}", way.name());
    }
}

/// Does root run this?
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
