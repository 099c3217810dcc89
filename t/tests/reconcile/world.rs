//! The upstreams, and the nginx in front of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use t::upstream::guards::FullBacklog;
use t::{Conf, Conn, RefusedPort, Upstream};

use crate::books::Books;
use crate::kinds::Kind;
use crate::list;

/// The paths that have come to upstreams which never answer.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<BTreeSet<String>>, Condvar);

impl Arrivals {
    pub(crate) fn note(&self, request: &[u8]) {
        let line = String::from_utf8_lossy(request);
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        self.1.notify_all();
    }

    /// Whether a path comes within this time.
    pub(crate) fn wait(&self, path: &str, within: Duration) -> bool {
        let come = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(come, within, |come| !come.contains(path));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Everything around nginx.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) arrivals: Arc<Arrivals>,
    /// Each server with the one upstream that it belongs to.
    servers: Vec<(String, Upstream)>,
    groups: String,
    dead: Vec<RefusedPort>,
    full: Vec<FullBacklog>,
}

impl World {
    pub(crate) fn new() -> World {
        let mut world = World::default();
        world.kinds = list::kinds(&mut world);
        world
    }

    /// A server of this upstream; without one it is its own. Gives its address.
    pub(crate) fn server(
        &mut self,
        upstream: Option<&str>,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> String {
        let server = Upstream::tcp(script);
        let addr = server.addr();
        self.servers.push((upstream.unwrap_or(&addr).to_owned(), server));
        addr
    }

    /// An address where nobody listens.
    pub(crate) fn dead(&mut self) -> String {
        self.dead.push(t::refused_port());
        self.dead.last().map(RefusedPort::addr).expect("just pushed")
    }

    /// An address where connecting takes for ever.
    pub(crate) fn full(&mut self) -> String {
        self.full.push(t::full_backlog_tcp());
        self.full.last().map(|full| full.addr().to_owned()).expect("just pushed")
    }

    /// A block of servers.
    pub(crate) fn group(&mut self, name: &str, directives: &str) {
        let _ = writeln!(self.groups, "upstream {name} {{ {directives} }}");
    }

    /// What the servers have counted: connections of an upstream, and requests of a peer.
    pub(crate) fn books(&self) -> Books {
        let mut books = Books::default();
        for (upstream, server) in &self.servers {
            let count = |n: usize| u64::try_from(n).expect("a small number");
            books.add(format!("connects {upstream}"), count(server.connections()));
            let requests = count(server.requests().len());
            books.add(format!("peer {upstream} {} requests", server.addr()), requests);
        }
        books
    }

    pub(crate) fn conf(&self) -> Conf {
        let locations: String = self
            .kinds
            .iter()
            .map(|kind| format!("location /{}/ {{ {} }}\n", kind.name, kind.location))
            .collect();
        Conf::new(format!(
            "{locations} {}
             location = /status {{ upstream_diag_status json; access_log off; }}
             location = /metrics {{ upstream_diag_status prometheus; access_log off; }}",
            list::OTHER_LOCATIONS
        ))
        .http(&self.groups)
        .http(
            "upstream_diag on; upstream_diag_zone 16m peers=64 events=7000;
             upstream_diag_log {prefix}/diag.json;
             upstream_diag_log {prefix}/rate.json rate=50r/s;
             proxy_cache_path {prefix}/cache keys_zone=c:1m; proxy_cache_key $http_x_key;
             add_header X-Addr $upstream_addr always; log_subrequest on;
             proxy_http_version 1.1; proxy_set_header Connection '';",
        )
        .access_log(
            r#"{"request":"$request_uri","uri":"$uri","status":"$status",'
               '"addr":"$upstream_addr","cause":"$upstream_diag_cause"}"#,
        )
        .log_level("error")
        .workers(4)
    }
}
