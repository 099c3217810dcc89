//! The closed set of causes: one table from which everything that lists causes is derived.

use serde::{Serialize, Serializer};

use crate::json::{Member, member};
use crate::slugs::slugs;
use crate::words::text::words;

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The upstream's name was being resolved (`ngx_http_upstream_resolve_handler`).
    Resolve,
    /// A peer was being chosen (`peer.get`).
    Select,
    /// `connect()` was called or under way.
    Connect,
    /// The TLS handshake was under way.
    Tls,
    /// The request was being sent.
    Send,
    /// The response header was awaited or being read.
    Header,
    /// The response header was complete, the body was being read.
    Body,
}

slugs! {
    Phase, "phase":
    Resolve = "resolve",
    Select = "select",
    Connect = "connect",
    Tls = "tls",
    Send = "send",
    Header = "header",
    Body = "body",
}

/// What is fixed for a cause: a row of the table.
#[derive(Debug)]
pub struct Row {
    /// The stable, low-cardinality name; also the anchor of its section in the runbook.
    pub slug: &'static str,
    /// The phase the cause belongs to; `None` where the cause is not tied to one.
    pub phase: Option<Phase>,
    /// Error type of RFC 9209, section 2.3.
    pub proxy_error: &'static str,
    /// What it means: a clause in which `{peer}` stands for the peer's name.
    pub meaning: &'static str,
    /// What to do first.
    pub advice: &'static str,
    /// The name as a member of an object.
    pub(crate) member: Member,
    /// The error type as a member of an object.
    pub(crate) error_member: Member,
}

macro_rules! causes {
    ($( $name:ident = $slug:literal, $phase:expr, $error:literal, $meaning:literal, $advice:literal; )+) => {
        /// Why an upstream request failed. The set is closed and the slugs are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause { $( #[doc = $meaning] $name, )+ }

        impl Cause {
            /// Every cause, in the order of the table.
            pub const ALL: &'static [Cause] = &[ $( Cause::$name, )+ ];

            /// The row of the table for this cause.
            pub const fn row(self) -> &'static Row {
                match self {
                    $( Cause::$name => const { &Row {
                        slug: $slug, phase: $phase, proxy_error: $error,
                        meaning: words($meaning), advice: $advice,
                        member: member!("cause", $slug),
                        error_member: member!("proxy_error", $error),
                    } }, )+
                }
            }
        }
    };
}

use Phase::{Body, Connect, Header, Resolve, Select, Send, Tls};

causes! {
    DnsNoResolver = "dns_no_resolver", Some(Resolve), "proxy_configuration_error",
        "the upstream's name must be resolved at run time and no resolver is configured",
        "Add a \"resolver\" directive to the location, server or http block, or name the upstream without variables.";
    DnsNotFound = "dns_not_found", Some(Resolve), "dns_error",
        "the resolver says that the upstream's name does not exist (NXDOMAIN)",
        "Check the name in proxy_pass for a typo or a missing search domain: nginx's resolver does not read the search list of /etc/resolv.conf.";
    DnsTimedOut = "dns_timed_out", Some(Resolve), "dns_timeout",
        "the resolver did not answer within resolver_timeout",
        "Check that the server named in \"resolver\" is reachable from this host and answers (dig @server name).";
    DnsFailure = "dns_failure", Some(Resolve), "dns_error",
        "the resolver answered with an error",
        "Ask the server named in \"resolver\" for the name (dig @server name): it refuses or fails for this zone.";
    NoLiveUpstreams = "no_live_upstreams", Some(Select), "destination_unavailable",
        "nginx had no server of the group left to try: each is down, was taken out after failures or had been tried",
        "Find what took the servers out: failures just before this one, or a 500 or 429 where proxy_next_upstream has http_500 or http_429. Servers return after their fail_timeout.";
    MaxConnsReached = "max_conns_reached", Some(Select), "connection_limit_reached",
        "every server of the group that is not down or out already has max_conns connections",
        "Raise max_conns, add servers, or find why the upstream holds connections for so long.";
    InvalidUpstreamUrl = "invalid_upstream_url", Some(Select), "proxy_configuration_error",
        "the address that the location's pass directive was given through variables is not one nginx can use",
        "Log the variables in that directive: proxy_pass takes http:// or https:// and host[:port], the others host:port; all take unix:path and the name of an upstream block.";
    ConnectionRefused = "connection_refused", Some(Connect), "connection_refused",
        "{peer} refused the connection",
        "See on the upstream's host whether the process runs and listens on that address and port (ss -ltn).";
    ConnectionTimedOut = "connection_timed_out", Some(Connect), "connection_timeout",
        "{peer} did not answer the connection attempt in time",
        "A firewall that drops packets, a wrong address, a host that is down or a full accept queue: try nc -vz to that address from this host.";
    Unreachable = "unreachable", Some(Connect), "destination_ip_unroutable",
        "{peer} cannot be reached: the network or host is unreachable",
        "Check routes and interfaces on this host (ip route get ADDRESS) and whether the upstream's host is up.";
    PermissionDenied = "permission_denied", Some(Connect), "proxy_configuration_error",
        "{peer} could not be connected to: permission denied",
        "A unix socket needs to be writable by the worker's user, and its directories searchable; with that, and for TCP, look at SELinux and local firewall rules.";
    SocketNotFound = "socket_not_found", Some(Connect), "destination_not_found",
        "{peer} does not exist: there is no such socket file",
        "Start the upstream, or correct the path: it is created when the process starts to listen (a private /tmp of a service hides it from nginx).";
    ListenQueueFull = "listen_queue_full", Some(Connect), "destination_unavailable",
        "{peer} has a full accept queue",
        "The process accepts too slowly: add workers to it or raise its backlog (and net.core.somaxconn).";
    LocalPortsExhausted = "local_ports_exhausted", Some(Connect), "proxy_internal_error",
        "{peer} could not be connected to: this host has no local port left for that destination",
        "Reuse connections (keepalive in the upstream block), widen net.ipv4.ip_local_port_range, or spread over more addresses.";
    LocalFdsExhausted = "local_fds_exhausted", Some(Connect), "proxy_internal_error",
        "no socket could be created: no file descriptor is left",
        "Raise worker_rlimit_nofile to at least twice worker_connections (EMFILE), or fs.file-max (ENFILE).";
    WorkerConnectionsExhausted = "worker_connections_exhausted", Some(Connect), "proxy_internal_error",
        "the worker process has no connection slot left",
        "Raise worker_connections in the events block: a proxied request takes two.";
    BindFailed = "bind_failed", Some(Connect), "proxy_configuration_error",
        "the local address given by proxy_bind could not be bound",
        "Check that the address of proxy_bind exists on this host (ip addr), its port is free, and \"transparent\" has the privileges it needs.";
    TlsProtocolError = "tls_protocol_error", Some(Tls), "tls_protocol_error",
        "{peer} broke the TLS handshake",
        "Compare proxy_ssl_protocols and proxy_ssl_ciphers with what the upstream accepts (openssl s_client -connect).";
    TlsAlertReceived = "tls_alert_received", Some(Tls), "tls_alert_received",
        "{peer} ended the TLS handshake with an alert",
        "The alert says what the upstream missed: a server name (proxy_ssl_server_name on), a client certificate, or a common protocol version.";
    TlsCertificateError = "tls_certificate_error", Some(Tls), "tls_certificate_error",
        "{peer} presented a certificate that does not verify",
        "Look at the certificate (openssl s_client -connect): renew it, or name its issuer in proxy_ssl_trusted_certificate.";
    TlsNameMismatch = "tls_name_mismatch", Some(Tls), "tls_certificate_error",
        "{peer} presented a certificate for another name",
        "If proxy_ssl_server_name is off, turn it on first; else set proxy_ssl_name to a name that the certificate has.";
    TlsClosed = "tls_closed", Some(Tls), "connection_terminated",
        "{peer} closed the connection during the TLS handshake",
        "The port may not speak TLS, or wants a server name (proxy_ssl_server_name on) or a client certificate.";
    TlsTimedOut = "tls_timed_out", Some(Tls), "connection_timeout",
        "{peer} did not complete the TLS handshake within proxy_connect_timeout",
        "The port may not speak TLS and waits for a request; otherwise the upstream is overloaded.";
    SendTimedOut = "send_timed_out", Some(Send), "connection_write_timeout",
        "{peer} did not take the request within proxy_send_timeout",
        "The upstream has stopped reading: look at what its process is busy with.";
    KeepaliveRace = "keepalive_race", Some(Header), "connection_terminated",
        "{peer} closed a reused connection before a byte of the response came",
        "Set keepalive_timeout in the upstream block below the upstream's own keep-alive timeout, or raise the upstream's.";
    ClosedBeforeResponse = "closed_before_response", Some(Header), "connection_terminated",
        "{peer} closed the connection without sending a byte",
        "Look for a crash, a worker that was killed or a timeout of its own in the upstream's log at that moment; if it has never answered, the port may want TLS.";
    ClosedInHeader = "closed_in_header", Some(Header), "http_response_incomplete",
        "{peer} closed the connection in the middle of the response header",
        "Look for a crash or a killed worker in the upstream's log at that moment: out of memory (dmesg or journalctl -k), SIGKILL by its supervisor, a segfault.";
    ConnectionReset = "connection_reset", Some(Header), "connection_terminated",
        "{peer} reset the connection",
        "Look for a crash or a killed worker in the upstream's log, or for a device between that resets connections.";
    HeaderTooBig = "header_too_big", Some(Header), "http_response_header_section_size",
        "{peer} sent a response header larger than nginx's buffer for it",
        "Raise the buffer size of the protocol in use (proxy_buffer_size), or make the upstream send less: large Set-Cookie headers are the usual reason.";
    InvalidHeader = "invalid_header", Some(Header), "http_protocol_error",
        "{peer} sent a response header that is not valid",
        "Ask the upstream directly (curl -v) and mend the header it sends.";
    ProtocolMismatch = "protocol_mismatch", Some(Header), "http_protocol_error",
        "{peer} speaks another protocol",
        "Use the directive of the protocol that the upstream speaks, or correct the port.";
    InvalidResponse = "invalid_response", Some(Header), "http_protocol_error",
        "{peer} sent something that is not a valid response",
        "Ask the upstream directly (curl -v, nc) and see what it sends.";
    StreamReset = "stream_reset", Some(Header), "http_response_incomplete",
        "{peer} ended the HTTP/2 stream, or the connection with it, with an error code",
        "Look for the error code's reason in the upstream's log. A GOAWAY comes with a shutdown too, or with a limit on a connection's age or requests.";
    ResponseTimedOut = "response_timed_out", Some(Header), "http_response_timeout",
        "{peer} sent no response header in time",
        "Find what the upstream is waiting for; raise proxy_read_timeout only where so long an answer is expected.";
    ResponseTruncated = "response_truncated", Some(Body), "http_response_incomplete",
        "{peer} closed the connection before the body was complete",
        "Look for a crash or a killed worker in the upstream's log at that moment: out of memory (dmesg or journalctl -k), SIGKILL by its supervisor, a segfault.";
    BodyTimedOut = "body_timed_out", Some(Body), "connection_read_timeout",
        "{peer} stopped sending in the middle of the body",
        "Find what the upstream is waiting for; raise proxy_read_timeout only where such pauses are expected.";
    InvalidBody = "invalid_body", Some(Body), "http_response_transfer_coding",
        "{peer} sent a body that is not valid",
        "Ask the upstream directly (curl -v --raw) and mend the body's framing.";
    UpstreamResponse = "upstream_response", None, "destination_unavailable",
        "{peer} answered with the error itself",
        "Look at the upstream's own log: the error is its answer, not nginx's.";
    CachedError = "cached_error", None, "proxy_internal_response",
        "the error is that of an earlier request: nginx's cache kept it",
        "Shorten or remove proxy_cache_valid for this status (\"any\" includes it), and look at the record of the request that failed first.";
    LocalReturn = "local_return", None, "proxy_internal_response",
        "nginx's configuration or another module made the error, no upstream's failure did",
        "Look for \"return\", \"error_page\", limit_req, limit_conn or another module's directive in the location.";
    InternalError = "internal_error", None, "proxy_internal_error",
        "nginx failed inside, no upstream is to blame",
        "Look at nginx's error log at that moment: memory is the usual reason, or a file that nginx could not use.";
    Unknown = "unknown", None, "proxy_internal_error",
        "the request to {peer} failed, and the error nginx logged is not one this module knows",
        "Read the message: it is nginx's own.";
}

impl Cause {
    /// The stable name.
    pub const fn slug(self) -> &'static str {
        self.row().slug
    }

    /// The position in [`Cause::ALL`], for arrays with one place for each cause.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_table() {
        for (at, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause.index(), at);
        }
    }

    #[test]
    fn slugs_are_unique_and_plain() {
        let mut slugs: Vec<_> = Cause::ALL.iter().map(|cause| cause.slug()).collect();
        assert!(slugs.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Cause::ALL.len());
    }

    /// The registry of RFC 9209, section 2.3: a type outside it would break parsers.
    #[test]
    fn error_types_are_those_of_rfc_9209() {
        const TYPES: &[&str] = &[
            "dns_timeout",
            "dns_error",
            "destination_not_found",
            "destination_unavailable",
            "destination_ip_prohibited",
            "destination_ip_unroutable",
            "connection_refused",
            "connection_terminated",
            "connection_timeout",
            "connection_read_timeout",
            "connection_write_timeout",
            "connection_limit_reached",
            "tls_protocol_error",
            "tls_certificate_error",
            "tls_alert_received",
            "http_request_error",
            "http_request_denied",
            "http_response_incomplete",
            "http_response_header_section_size",
            "http_response_header_size",
            "http_response_body_size",
            "http_response_trailer_section_size",
            "http_response_trailer_size",
            "http_response_transfer_coding",
            "http_response_content_coding",
            "http_response_timeout",
            "http_upgrade_failed",
            "http_protocol_error",
            "proxy_internal_response",
            "proxy_internal_error",
            "proxy_configuration_error",
            "proxy_loop_detected",
        ];
        for cause in Cause::ALL {
            assert!(TYPES.contains(&cause.row().proxy_error), "{cause:?}");
        }
    }
}
