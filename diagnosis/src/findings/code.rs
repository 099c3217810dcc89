//! The closed set of findings: one table from which everything that lists them is derived.

use super::facts::Key;
use crate::json::{Member, member};
use crate::slugs::slugs;

/// What is fixed for a finding: a row of the table.
#[derive(Debug)]
pub struct Row {
    /// The stable name; also the anchor of its section in the documentation.
    pub slug: &'static str,
    /// What it means: a clause.
    pub meaning: &'static str,
    /// When it is given, and with which confidence.
    pub rule: &'static str,
    /// What cannot be known.
    pub limits: &'static str,
    /// The keys its evidence can have.
    pub evidence: &'static [Key],
    /// The name as a member of an object.
    pub(crate) member: Member,
}

macro_rules! codes {
    ($( $name:ident = $slug:literal, $meaning:literal, $rule:literal, $limits:literal, [$($key:ident),*]; )+) => {
        /// What is concluded. The set is closed and the slugs are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $( #[doc = $meaning] $name, )+ }

        impl Code {
            /// Every code, the strongest first: what explains a failure best comes before what
            /// only made it worse.
            pub const ALL: &'static [Code] = &[ $( Code::$name, )+ ];

            /// The row of the table for this code.
            pub const fn row(self) -> &'static Row {
                match self {
                    $( Code::$name => const { &Row {
                        slug: $slug, meaning: $meaning, rule: $rule, limits: $limits,
                        evidence: &[$(Key::$key),*],
                        member: member!("code", $slug),
                    } }, )+
                }
            }
        }
    };
}

codes! {
    BufferTooSmall = "buffer_too_small",
        "nginx's buffer for the response header is smaller than the header",
        "The cause is `header_too_big` and something is known of the size. `certain` if it is known to the byte, `likely` if the end of the header was not seen: then the value to set is the least that can do.",
        "Whether the other buffers fit the new value: nginx refuses a configuration in which they do not, and says so.",
        [Size, Exact, Limit, Set];
    NothingListening = "nothing_listening",
        "no process of this host listens on the upstream's port or socket",
        "The cause is `connection_refused`, the address is one of this host, and the kernel lists no socket that listens on the port, on any address; or it is a unix socket and the kernel knows of nobody who listens on it, or the path leads to another file than a socket. `certain`.",
        "The host is what nginx sees of it: inside a container that is the container. A port that is forwarded (a published port of a container, a NodePort) needs no process here. Whether the port is the right one.",
        [Port, Peer, FileType];
    BoundElsewhere = "bound_elsewhere",
        "something listens on the upstream's port, but on another address or family",
        "The cause is `connection_refused`, the address is one of this host, and what listens on the port is bound to other addresses (127.0.0.1 instead of the host's own, `::1` instead of 127.0.0.1, …). `certain`; `likely` where it is bound to `::` and it is not known whether that takes IPv4 too, or to one network interface. Also: a process listens on a unix socket whose file was deleted or replaced, so that no connection reaches it.",
        "Whether what listens there is the upstream, or another program on the same port.",
        [Port, ListensOn, Peer];
    ListenBacklogFull = "listen_backlog_full",
        "the queue of connections that the upstream has not accepted yet is full",
        "The cause is `connection_timed_out`, `response_timed_out` or `listen_queue_full`, the upstream is on this host, and the kernel says that more connections wait than the queue is for. `certain` if all the sockets that listen there are full; `likely` if one of several is, if the queue has just its length, or if the upstream had accepted this connection.",
        "Why the process does not accept: too few workers, or all of them busy or stuck. A queue that was full for a moment only.",
        [Queue, Backlog];
    IdleTimeout = "idle_timeout",
        "the upstream closes connections that were idle for a certain time: its keep-alive timeout",
        "The cause is `keepalive_race`, and this connection had been idle for as long as most that were closed before: four fifths of the latest 16, within an eighth of the age, and at least 0.9 s. Of closes within a tenth of a second six are counted. `likely` from 6 closes on, unless the upstream closes about as many connections in the middle of requests; `possible` from 3 that are within a twentieth. Not given if nginx is known to close idle connections earlier, or if connections that had been idle for longer were used again with success in between.",
        "Whether the upstream closes, or a device between. Requests that come in regular intervals make connections of one age too: if a process crashes from every one of them, this looks alike. How long a connection was idle is not known for TLS, HTTP/2 and unix sockets.",
        [Age, From, To, AtAge, Closes, Latest, LatestAtAge, KeepaliveTimeout, Set];
    RequestTimeout = "request_timeout",
        "the upstream closes connections when a request has taken a certain time: a timeout of its own",
        "It closed or reset the connection before the response was complete in its header, and the request had been with it for as long as those of most such closes before: as for `idle_timeout`; of closes within a tenth of a second three are counted. `likely` from 6 closes on, `possible` from 4 that are within a twentieth. A supervisor that looks once in a while closes at ages that are spread: over a second (uWSGI's: three), or a third of the timeout where that is more (PHP-FPM). Where 15 of the latest 16 closes are in such a span, it is given if it is the oldest that are closed: `likely` from 6 closes on if 4 requests that were under way, and younger than all that were closed, lived on until the next look (one or two seconds later, or a third of the timeout), `possible` from 4 and 2, or from 16 closes if nothing speaks against it.",
        "Which timeout it is, and of what: the server's, a supervisor's that kills workers, a device's between. On a unix socket the age is told by nginx's clock, for requests that were sent at once: of at most 64k, and buffered. Requests that always crash after the same work look alike. Of requests that are all closed in one look it is not known that it was one.",
        [Age, From, To, AtAge, Closes, Latest, LatestAtAge];
    Flapping = "flapping",
        "the peer went down and came back at least three times within ten minutes",
        "Three outages or more (see `restarted`) began within the last ten minutes. `likely` if in each of them connections were refused, for a second at least; otherwise `possible`.",
        "Whether one process comes and goes, or several stand behind the address and one of them is down.",
        [Outages, Within];
    Restarted = "restarted",
        "the peer accepted no connections for a while and accepts them again",
        "Connections to the peer failed, and then one was made again and answered; the attempt failed in that outage or within a minute after it. `likely` if they were refused, twice and for a second at least, otherwise `possible`, and where this peer refuses some connections now and then and takes others. On a unix socket it is `certain` if the process that listens started after the last good answer.",
        "When exactly it stopped and started: between two attempts nothing is known. Whether it was restarted on purpose. A response that was under way does not end an outage, one on a connection made after the last failure does.",
        [Began, Ended, Took, Failures, LastOk, Pid, Started];
    WentAway = "went_away",
        "the peer worked, and cannot be connected to any more",
        "The cause is that no connection could be made, and since the last good answer no attempt was good. `certain` on a unix socket, and where `nothing_listening` is; `likely` from the second refused connection on, or if at least 5 got no answer in 30 s; `possible` from the first, or from 3 without an answer, and where this peer refuses some connections now and then and takes others.",
        "Why: it may have crashed, been stopped, or moved. Without an answer it may also be the network.",
        [LastOk, Ok, Failures, FailingFor];
    NeverConnected = "never_connected",
        "the peer has accepted no connection for as long as nginx has known it, while others of its group answer: its address is wrong or stale",
        "At least 3 connections failed, all that were tried, in at least 10 s since the peer was configured or first used, and another server of the group has answered within the last minute. `likely` from 5 failures in five minutes on, before that `possible`.",
        "Whether the server will start some day. Successes from before nginx was restarted or the zone made anew.",
        [KnownFor, Failures, Siblings];
    EjectedHealthy = "ejected_healthy",
        "nginx took the peer out because one reused connection was closed, which is no failure of the peer's",
        "The peer is out since this attempt, whose cause is `keepalive_race`, with `max_fails=1` (the default), and had answered before. `likely` if `idle_timeout` is, else `possible`; not given if the upstream closes about as many connections in the middle of requests. With `no_live_upstreams`: peers with `max_fails=1` are out for that cause, and are named, `possible`.",
        "Whether the peer is in fact healthy: one that crashes with an idle connection looks alike.",
        [Peer, MaxFails, FailTimeout, LastOk, Peers, Ejected];
    NotRetried = "not_retried",
        "nginx did not try again, for this reason",
        "The client got the error, or a part of the response, and nginx's conditions for another try were looked at, in its own order: whether any is left, `proxy_next_upstream`, whether the request is safe to repeat, is kept, and in time. An error that the upstream answered with itself is looked at likewise. Of a single server it is given only where nginx would have tried that again: where a reused connection failed, nginx gives a try more, on a fresh one. `certain`.",
        "Whether another server, or another connection, would have answered.",
        [Reason, Servers, Tries, Timeout];
    SingleServer = "single_server",
        "the upstream block has one server: there is no other to try, and nginx never takes the only one out",
        "The block has one server and one address, backup servers counted, that failed before its response began, and the client got the error. Not where other servers of the same kind would most likely have failed too: by the size or form of the header, the protocol, or TLS that cannot agree. `certain`.",
        "A name that resolves to another number of addresses when nginx is started again.",
        [Servers];
}

impl Code {
    /// The stable name.
    pub const fn slug(self) -> &'static str {
        self.row().slug
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The evidence leaves no other reading.
    Certain,
    /// Right in at least nineteen of twenty cases, by the tests with random histories.
    Likely,
    /// Worth a look.
    Possible,
}

slugs! {
    Confidence, "confidence":
    Certain = "certain",
    Likely = "likely",
    Possible = "possible",
}

impl Confidence {
    /// Every confidence, the highest first.
    pub const ALL: [Confidence; 3] =
        [Confidence::Certain, Confidence::Likely, Confidence::Possible];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a code that users are promised and that is not there.
    #[test]
    fn the_set_is_that_of_the_interface() {
        let mut slugs: Vec<&str> = Code::ALL.iter().map(|code| code.slug()).collect();
        slugs.sort_unstable();
        assert_eq!(
            slugs,
            [
                "bound_elsewhere",
                "buffer_too_small",
                "ejected_healthy",
                "flapping",
                "idle_timeout",
                "listen_backlog_full",
                "never_connected",
                "not_retried",
                "nothing_listening",
                "request_timeout",
                "restarted",
                "single_server",
                "went_away",
            ]
        );
    }
}
