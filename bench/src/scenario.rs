//! What is asked of nginx, and what the upstream does about it.

use std::fmt::Write as _;

use t::Name;

/// A kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The name on the command line and in the results.
    pub(crate) name: &'static str,
    /// The name in the tables.
    pub(crate) title: &'static str,
    /// The status that the client has to get.
    pub(crate) status: u16,
    /// The servers of the group `u`.
    pub(crate) peers: Peers,
    /// The most lines that the module may write in a second.
    pub(crate) rate: Option<u32>,
    /// The group has a `zone`: its peers are shared by the workers.
    pub(crate) zone: bool,
    /// Locations in the configuration.
    pub(crate) locations: usize,
    /// Requests before anything is measured: every buffer, connection and peer has been used
    /// by then.
    pub(crate) warm_up: usize,
    /// Also measured with Debian's nginx, where there are more ways to compare with.
    pub(crate) everywhere: bool,
    /// Also measured in requests a second.
    pub(crate) throughput: bool,
}

/// The servers of a group. Those that refuse connections are always tried: nginx takes none of
/// them out, or there would be fewer attempts from the second request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// There is no group, nginx answers itself.
    None,
    /// So many that answer, over a new connection each time.
    Good(usize),
    /// One that answers, over a connection that is kept.
    Kept,
    /// So many that refuse, each request tries the two next.
    Dead(usize),
    /// One that refuses, then one that answers, over a connection that is kept.
    DeadThenKept,
}

const USUAL: Scenario = Scenario {
    name: "",
    title: "",
    status: 200,
    peers: Peers::None,
    rate: None,
    zone: false,
    locations: 1,
    warm_up: 300,
    everywhere: false,
    throughput: false,
};

/// How many peers and locations are many.
pub(crate) const MANY_PEERS: usize = 1_000;
pub(crate) const MANY_LOCATIONS: usize = 5_000;

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "return", title: "`return 200`", everywhere: true, throughput: true, ..USUAL },
    Scenario {
        name: "keepalive",
        title: "200, upstream keepalive",
        peers: Peers::Kept,
        everywhere: true,
        throughput: true,
        ..USUAL
    },
    Scenario {
        name: "keepalive-zone",
        title: "200, upstream keepalive, `zone`",
        peers: Peers::Kept,
        zone: true,
        ..USUAL
    },
    Scenario {
        name: "fresh",
        title: "200, new connection",
        peers: Peers::Good(1),
        throughput: true,
        ..USUAL
    },
    Scenario {
        name: "peers-good",
        title: "200, new connection, 1,000 peers",
        peers: Peers::Good(MANY_PEERS),
        warm_up: MANY_PEERS + 300,
        ..USUAL
    },
    Scenario {
        name: "locations",
        title: "200, upstream keepalive, 5,000 locations",
        peers: Peers::Kept,
        locations: MANY_LOCATIONS,
        ..USUAL
    },
    Scenario {
        name: "masked",
        title: "200 after one refused",
        peers: Peers::DeadThenKept,
        throughput: true,
        ..USUAL
    },
    Scenario {
        name: "refused",
        title: "502, refused",
        status: 502,
        peers: Peers::Dead(1),
        everywhere: true,
        throughput: true,
        ..USUAL
    },
    Scenario {
        name: "records",
        title: "502, refused, all places for records taken",
        status: 502,
        peers: Peers::Dead(1),
        warm_up: 2_500,
        ..USUAL
    },
    Scenario {
        name: "two-dead",
        title: "502, two refused",
        status: 502,
        peers: Peers::Dead(2),
        everywhere: true,
        throughput: true,
        ..USUAL
    },
    Scenario {
        name: "peers-dead",
        title: "502, two of 1,000 peers refused",
        status: 502,
        peers: Peers::Dead(MANY_PEERS),
        warm_up: MANY_PEERS,
        ..USUAL
    },
    Scenario {
        name: "peers-dead-zone",
        title: "502, two of 1,000 peers refused, `zone`",
        status: 502,
        peers: Peers::Dead(MANY_PEERS),
        zone: true,
        warm_up: MANY_PEERS,
        ..USUAL
    },
    Scenario {
        name: "storm",
        title: "502, refused, `rate=100r/s`",
        status: 502,
        peers: Peers::Dead(1),
        rate: Some(100),
        throughput: true,
        ..USUAL
    },
];

impl Scenario {
    /// Is it measured with this nginx?
    pub(crate) fn is_for(&self, nginx: Name) -> bool {
        self.everywhere || nginx != Name::Debian
    }

    /// Does every request have a failure?
    pub(crate) fn fails(&self) -> bool {
        matches!(self.peers, Peers::Dead(_) | Peers::DeadThenKept)
    }

    /// The locations of the server.
    pub(crate) fn locations(&self) -> String {
        let pass = "proxy_pass http://u; proxy_next_upstream_tries 2;";
        let serve = match self.peers {
            Peers::None => "return 200 \"hello\\n\";".to_owned(),
            Peers::Good(_) | Peers::Dead(_) => pass.to_owned(),
            Peers::Kept | Peers::DeadThenKept => {
                format!("{pass} proxy_http_version 1.1; proxy_set_header Connection \"\";")
            }
        };
        let mut text = format!("location / {{ {serve} }}\n");
        for n in 1..self.locations {
            let _ = writeln!(text, "location /{n} {{ {serve} }}");
        }
        text
    }

    /// The `upstream` block, with the ports for those that refuse and the one that answers.
    pub(crate) fn block(&self, dead: u16, good: u16) -> String {
        match self.peers.servers(dead, good) {
            Some(servers) => {
                let zone = if self.zone { "zone u 4m;\n" } else { "" };
                format!("upstream u {{\n{zone}{servers}}}")
            }
            None => String::new(),
        }
    }
}

impl Peers {
    fn servers(self, dead: u16, good: u16) -> Option<String> {
        let servers = |count: usize, port: u16, options: &str| {
            let server = |n| format!("server {}:{port}{options};\n", address(n));
            (0..count).map(server).collect::<String>()
        };
        let kept = "keepalive 8; keepalive_requests 1000000000; keepalive_timeout 1h;";
        Some(match self {
            Self::None => return None,
            Self::Good(count) => servers(count, good, ""),
            Self::Kept => servers(1, good, "") + kept,
            Self::Dead(count) => servers(count, dead, " max_fails=0"),
            Self::DeadThenKept => {
                servers(1, dead, " max_fails=0") + &servers(1, good, " backup") + kept
            }
        })
    }
}

/// Addresses of this host, all of the same length.
pub(crate) fn address(n: usize) -> String {
    format!("127.1.{}.{}", 100 + n / 100, 100 + n % 100)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Guards against two scenarios that cannot be told apart on the command line, and peers
    /// that are one.
    #[test]
    fn names_differ() {
        let names: HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        let peers: HashSet<_> = (0..MANY_PEERS).map(address).collect();
        assert_eq!(peers.len(), MANY_PEERS);
    }
}
