//! The servers of a measurement: the nginx that is measured, and another one as its upstream.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use t::{Client, Conf, Name, Nginx, RefusedPort};

use crate::scenario::Scenario;
use crate::way::Way;

/// What the nginx under test is connected to. It outlives several of them.
pub(crate) struct Upstreams {
    good: Nginx,
    dead: Vec<RefusedPort>,
}

impl Upstreams {
    /// A plain nginx that says `hello`, and ports where nobody listens.
    pub(crate) fn start(nginx: Name) -> Self {
        let conf = Conf::new("location / { return 200 \"hello\\n\"; }")
            .nginx(nginx)
            .without_module()
            .log_level("error")
            .http(KEEP);
        Self { good: Nginx::start(conf), dead: vec![t::refused_port(), t::refused_port()] }
    }
}

/// No connection is ever closed for its age or its number of requests: that would be work that
/// happens on some requests only.
const KEEP: &str = "keepalive_requests 1000000000; keepalive_timeout 1h;";

/// The configuration of the nginx under test.
pub(crate) fn conf(nginx: Name, scenario: &Scenario, way: Way, upstreams: &Upstreams) -> Conf {
    let dead: Vec<u16> = upstreams.dead.iter().map(RefusedPort::port).collect();
    let block = scenario.peers.block(&dead, upstreams.good.port());
    let conf = Conf::new(format!("{}\nlocation / {{ {} }}", way.server(), scenario.location))
        .nginx(nginx)
        // nginx's own default.
        .log_level("error")
        .main(way.main())
        .http(KEEP)
        .http(way.http(scenario.rate))
        .http(block);
    if way == Way::Module { conf } else { conf.without_module() }
}

/// A client that keeps its connection. The request is as short as HTTP/1.1 allows.
pub(crate) struct Asker<'a> {
    client: Client,
    scenario: &'a Scenario,
}

impl<'a> Asker<'a> {
    /// Connects, and waits as long as it takes a slowed-down nginx to answer the first time.
    pub(crate) fn connect(nginx: &Nginx, scenario: &'a Scenario) -> Self {
        let mut client = nginx.connect();
        client.set_timeout(Duration::from_secs(60));
        Self { client, scenario }
    }

    /// Sends so many requests, one after the other.
    ///
    /// # Panics
    /// When an answer is not the scenario's.
    pub(crate) fn ask(&mut self, requests: usize) {
        for _ in 0..requests {
            let response = self.client.get("/");
            assert_eq!(
                response.status, self.scenario.status,
                "{}: {response:?}",
                self.scenario.name
            );
        }
    }
}

/// Does root run this?
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
