//! The kinds of requests, and what one of each adds to the books.

use crate::books::Books;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Waits for the whole response.
    Waits,
    /// Waits, and gets less than was promised.
    IsCutOff,
    /// Leaves once the upstream has the request.
    Leaves,
    /// Leaves once a part of the body has come.
    LeavesInBody,
}

/// A kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// The first part of the path.
    pub(crate) name: &'static str,
    /// How many there are.
    pub(crate) share: usize,
    /// What stands in its location.
    pub(crate) location: String,
    pub(crate) client: Client,
    pub(crate) status: u16,
    /// The value of `$upstream_diag_cause` in the access log.
    pub(crate) verdict: &'static str,
    /// What a request adds.
    pub(crate) adds: Books,
}

impl Kind {
    /// A request whose upstream does not fail, or that has none.
    pub(crate) fn new(name: &'static str, share: usize, location: String) -> Kind {
        let (client, verdict, adds) = (Client::Waits, "", Books::default());
        Kind { name, share, location, client, status: 200, verdict, adds }
    }

    /// What the client does.
    pub(crate) fn client(mut self, client: Client) -> Kind {
        self.client = client;
        self
    }

    /// The status in the access log, which is the client's if it waits.
    pub(crate) fn status(mut self, status: u16) -> Kind {
        self.status = status;
        self
    }

    /// An upstream request.
    pub(crate) fn asks(mut self) -> Kind {
        self.adds.add("requests", 1);
        self
    }

    /// A good attempt, of which the header goes on to the client, or to the main request.
    pub(crate) fn good(self, upstream: &str, peer: &str) -> Kind {
        self.attempt(upstream, peer, "ok").header(upstream)
    }

    /// An attempt that the client did not wait for.
    pub(crate) fn aborted(self, upstream: &str, peer: &str) -> Kind {
        self.attempt(upstream, peer, "aborted")
    }

    /// A failed attempt.
    pub(crate) fn failed(mut self, upstream: &str, peer: &str, cause: &str) -> Kind {
        self.adds.add(format!("peer {upstream} {peer} cause {cause}"), 1);
        self.attempt(upstream, peer, "failed")
    }

    /// A response header went on to the client.
    pub(crate) fn header(mut self, upstream: &str) -> Kind {
        self.adds.add(format!("headers {upstream}"), 1);
        self
    }

    fn attempt(mut self, upstream: &str, peer: &str, end: &str) -> Kind {
        self.adds.add(format!("peer {upstream} {peer} {end}"), 1);
        self.adds.add(format!("peer {upstream} {peer} requests"), 1);
        self
    }

    /// A record of the main request.
    pub(crate) fn record(
        mut self,
        upstream: &str,
        outcome: &'static str,
        cause: &'static str,
    ) -> Kind {
        self.verdict = cause;
        self.record_of_subrequest(upstream, outcome, cause)
    }

    /// A record of a subrequest.
    pub(crate) fn record_of_subrequest(
        mut self,
        upstream: &str,
        outcome: &'static str,
        cause: &'static str,
    ) -> Kind {
        self.adds.add(format!("outcome {outcome}"), 1);
        self.adds.add(format!("cause {cause}"), 1);
        self.adds.add(format!("timeline {cause}"), 1);
        self.adds.add(format!("upstream {upstream} {outcome}"), 1);
        self
    }

    /// Whether a client can tell from what it got that the request is at its end: not if it has
    /// left, if it cannot tell the fault from a worker's death, or if a subrequest goes on behind
    /// the response.
    pub(crate) fn is_certain(&self) -> bool {
        self.client == Client::Waits && self.name != "mirror"
    }
}

/// Why an attempt of the kind `race` fails.
pub(crate) const RACE: &str = "keepalive_race";

/// How many connections are kept for it: a request can meet all of them.
pub(crate) const MOST_RACES: usize = 2;
