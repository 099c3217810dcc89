//! What is asked of nginx, and what the upstream does about it.

/// A kind of request.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The name on the command line and in the JSON.
    pub(crate) name: &'static str,
    /// The name in the tables.
    #[expect(dead_code, reason = "for tables to come")]
    pub(crate) title: &'static str,
    /// The status that the client has to get.
    pub(crate) status: u16,
    /// The servers of the group `u`.
    pub(crate) peers: Peers,
    /// What serves the request.
    pub(crate) location: &'static str,
    /// The most lines that the module may write in a second.
    pub(crate) rate: Option<u32>,
}

/// The servers of a group. Those that refuse connections are always tried: nginx takes none of
/// them out, or there would be fewer attempts from the second request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// There is no group.
    None,
    /// One that answers, over a new connection each time.
    Good,
    /// One that answers, over a connection that is kept.
    Kept,
    /// So many that refuse.
    Dead(usize),
    /// One that refuses, then one that answers, over a connection that is kept.
    DeadThenKept,
}

const PASS: &str = "proxy_pass http://u;";
const KEEP: &str = "proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\";";

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "return",
        title: "`return 200`",
        status: 200,
        peers: Peers::None,
        location: "return 200 \"hello\\n\";",
        rate: None,
    },
    Scenario {
        name: "keepalive",
        title: "proxied 200, upstream keepalive",
        status: 200,
        peers: Peers::Kept,
        location: KEEP,
        rate: None,
    },
    Scenario {
        name: "fresh",
        title: "proxied 200, new connection",
        status: 200,
        peers: Peers::Good,
        location: PASS,
        rate: None,
    },
    Scenario {
        name: "refused",
        title: "502, refused",
        status: 502,
        peers: Peers::Dead(1),
        location: PASS,
        rate: None,
    },
    Scenario {
        name: "two-dead",
        title: "502, two refused",
        status: 502,
        peers: Peers::Dead(2),
        location: PASS,
        rate: None,
    },
    Scenario {
        name: "masked",
        title: "200 after one refused",
        status: 200,
        peers: Peers::DeadThenKept,
        location: KEEP,
        rate: None,
    },
    Scenario {
        name: "storm",
        title: "502, refused, `rate=100r/s`",
        status: 502,
        peers: Peers::Dead(1),
        location: PASS,
        rate: Some(100),
    },
];

impl Peers {
    /// The `upstream` block, with these ports for those that refuse and the one that answers.
    pub(crate) fn block(self, dead: &[u16], good: u16) -> String {
        let refusing = |n: usize| -> String {
            let ports = dead.iter().take(n);
            ports.map(|port| format!("server 127.0.0.1:{port} max_fails=0; ")).collect()
        };
        let kept = "keepalive 8; keepalive_requests 1000000000;";
        let servers = match self {
            Self::None => return String::new(),
            Self::Good => format!("server 127.0.0.1:{good};"),
            Self::Kept => format!("server 127.0.0.1:{good}; {kept}"),
            Self::Dead(n) => refusing(n),
            Self::DeadThenKept => {
                format!("{}server 127.0.0.1:{good} backup; {kept}", refusing(1))
            }
        };
        format!("upstream u {{ {servers} }}")
    }
}
