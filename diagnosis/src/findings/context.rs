//! What is known beyond the attempts themselves: the group, the host, nginx's conditions.

use std::net::{IpAddr, SocketAddr};

use crate::peer::State;
use crate::seconds::Seconds;

/// What is known beyond the attempts. What is not known is left as it is by default: rules that
/// need it are silent.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The upstream is an `upstream` block. Otherwise it is an address in a pass directive, or not
    /// known.
    pub is_block: bool,
    /// Servers of the group as nginx counts them, one for each address, backup servers too.
    pub servers: Option<u64>,
    /// The other servers of the group.
    pub siblings: Vec<Sibling>,
    /// What the kernel says of who listens on the failed peer's address.
    pub host: Option<Host>,
    /// Why nginx did not try another server.
    pub not_retried: Option<NotRetried>,
    /// The conditions of `proxy_next_upstream`, as they are written there, where those are why.
    pub conditions: Vec<&'static str>,
    /// `keepalive_timeout` of the upstream block, where `keepalive` is in use.
    pub keepalive_timeout: Option<Seconds>,
}

/// Another server of the group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sibling {
    /// Good attempts on it.
    pub ok: u64,
    /// How long ago the last of them was.
    pub last_ok: Option<Seconds>,
    /// Whether nginx may choose it.
    pub state: Option<State>,
}

/// What the kernel says of who listens.
#[derive(Clone, Debug)]
pub enum Host {
    /// The peer is at a port.
    Tcp {
        /// The peer's.
        address: SocketAddr,
        /// The address is one of this host.
        own: bool,
        /// Every socket of this host that listens on that port, whatever its address.
        listeners: Vec<Listener>,
    },
    /// The peer is a unix socket.
    Unix {
        /// Whether anybody of this host listens on it.
        listener: Listening,
        /// The process that listens: known where a connection could be made.
        process: Option<Process>,
    },
}

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to; unspecified for every address of the family. An IPv4 address is given
    /// as one, also where an IPv6 socket has it.
    pub address: IpAddr,
    /// Whether an IPv6 socket refuses IPv4.
    pub v6_only: Option<bool>,
    /// It hears one network interface only.
    pub one_interface: bool,
    /// Connections that wait to be accepted.
    pub queue: u32,
    /// How many the queue is for: it is full when there are more.
    pub limit: u32,
}

/// Whether somebody listens on a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It could not be found out.
    Unknown,
    /// Nobody of this host does.
    Nobody,
    /// Nobody can: what is there is a file of this type.
    NoSocket(&'static str),
    /// A socket that was bound to the name listens.
    Somebody {
        /// A connection to the name gets to it: its file was not deleted or replaced.
        reachable: bool,
        /// Connections that wait to be accepted.
        queue: u32,
        /// How many the queue is for: it is full when there are more.
        limit: u32,
    },
}

/// The process that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u64,
    /// How long ago it started.
    pub started: Seconds,
}

/// Why nginx did not try another server (`ngx_http_upstream_next`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRetried {
    /// `proxy_next_upstream` does not name this kind of failure.
    NotConfigured,
    /// A request that may have changed something had been sent.
    NonIdempotent,
    /// The number of `proxy_next_upstream_tries`, where it is below that of the servers.
    Tries(u64),
    /// The time of `proxy_next_upstream_timeout` is over.
    Timeout(Seconds),
    /// Every server had been tried, or is down or out.
    NoServerLeft,
    /// A part of the request had been sent and was not kept (`proxy_request_buffering off`).
    RequestNotBuffered,
    /// The client had got a part of the response.
    ResponseStarted,
}

impl NotRetried {
    /// nginx had tries left: it would have gone on but for this.
    pub(crate) fn had_tries(self) -> bool {
        use NotRetried::{NonIdempotent, NotConfigured, RequestNotBuffered, Timeout};
        matches!(self, NotConfigured | NonIdempotent | RequestNotBuffered | Timeout(_))
    }

    /// The name used in the evidence.
    pub fn slug(self) -> &'static str {
        match self {
            NotRetried::NotConfigured => "not_configured",
            NotRetried::NonIdempotent => "non_idempotent",
            NotRetried::Tries(_) => "tries",
            NotRetried::Timeout(_) => "timeout",
            NotRetried::NoServerLeft => "no_server_left",
            NotRetried::RequestNotBuffered => "request_not_buffered",
            NotRetried::ResponseStarted => "response_started",
        }
    }
}
