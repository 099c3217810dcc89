//! Nobody to be connected to, or no way to connect.

use serde_json::json;
use t::script;

use crate::peer::{Peer, tcp};
use crate::row::{ECONNREFUSED, ETIMEDOUT, Errno, Row, SOON, TIMED_OUT, row};

const EACCES: Errno = (13, "EACCES");
const ENOENT: Errno = (2, "ENOENT");
const EAGAIN: Errno = (11, "EAGAIN");
const EPROTOTYPE: Errno = (91, "EPROTOTYPE");
const ENETUNREACH: Errno = (101, "ENETUNREACH");
const EHOSTUNREACH: Errno = (113, "EHOSTUNREACH");
const EADDRNOTAVAIL: Errno = (99, "EADDRNOTAVAIL");
const EADDRINUSE: Errno = (98, "EADDRINUSE");

pub(crate) fn rows() -> Vec<Row> {
    let refused = |name, speaks, peer| {
        let state = json!({"state": "up", "fails": 0, "max_fails": 1, "fail_timeout": 10,
                           "down": false, "backup": false, "weight": 1, "max_conns": 0});
        row(name, speaks, peer)
            .failed("connection_refused", "connect", &[ECONNREFUSED])
            .shows(json!({"status": 502, "peer_state": state}))
    };
    let hangs = |name, speaks| {
        row(name, speaks, Peer::FullTcp)
            .waits("connect", SOON)
            .failed("connection_timed_out", "connect", &[ETIMEDOUT])
            .shows(json!({"message": TIMED_OUT, "bytes_sent": 0, "bytes_received": 0,
                          "tcp": {"state": "SYN_SENT", "idle": null, "since_sent": null}}))
            .says("", "backlog")
    };
    let full = |name, speaks| {
        row(name, speaks, Peer::FullUnix)
            .failed("listen_queue_full", "connect", &[EAGAIN])
            .shows(json!({"message":
                "connect() to {addr} failed (11: Resource temporarily unavailable)"}))
    };
    let forbidden = |speaks| {
        row("forbidden socket", speaks, Peer::PrivateUnix)
            .failed("permission_denied", "connect", &[EACCES])
            .shows(json!({"message": "connect() to {addr} failed (13: Permission denied)"}))
    };
    let nowhere = |name, addr| {
        row(name, "proxy", Peer::At(addr)).failed("unreachable", "connect", &[ENETUNREACH])
    };
    let missing = |name, speaks, peer| {
        row(name, speaks, peer)
            .failed("socket_not_found", "connect", &[ENOENT])
            .shows(json!({"message": "connect() to {addr} failed (2: No such file or directory)"}))
    };
    // nginx answers with 500 where it could not make a socket of its own ready.
    let bind = |name, speaks, directive, errno| {
        row(name, speaks, tcp(script::ok("never")))
            .with(directive)
            .failed("bind_failed", "connect", errno)
            .status(500)
    };
    vec![
        // Guards against a refusal that is missed on one of the ways nginx learns of it: later for
        // TCP, at once for a unix socket.
        refused("refused on IPv6", "proxy", Peer::Refused6)
            .shows(json!({"message": "connect() failed (111: Connection refused)"})),
        refused("refused on a unix socket", "proxy", Peer::RefusedUnix)
            .shows(json!({"message": "connect() to {addr} failed (111: Connection refused)"}))
            .says("{addr} refused the connection (ECONNREFUSED).", ""),
        refused("refused on a unix socket", "fastcgi", Peer::RefusedUnix),
        refused("refused before TLS", "proxys", Peer::Refused),
        refused("refused before TLS", "grpcs", Peer::Refused),
        refused("refused to a name found at run time", "proxy", Peer::Refused)
            .pass("proxy_pass http://$name:{addr_port};")
            .with("resolver {dns} ipv6=off; set $name local.example;")
            .record(json!({"upstream": "local.example"})),
        row("refused, with an error page", "proxy", Peer::Refused)
            .with("error_page 502 /page;")
            .failed("connection_refused", "connect", &[ECONNREFUSED]),
        row("refused, with an error page of status 200", "proxy", Peer::Refused)
            .with("error_page 502 =200 /page;")
            .masked("connection_refused", "connect", &[ECONNREFUSED])
            .says("The client was served all the same.", ""),
        row("refused, with another server behind", "proxy", Peer::Refused)
            .group("server {good};")
            .masked("connection_refused", "connect", &[ECONNREFUSED])
            .retried(),
        row("refused, with a backup server", "proxy", Peer::Refused)
            .group("server {good} backup;")
            .masked("connection_refused", "connect", &[ECONNREFUSED])
            .retried(),
        // Guards against a connect that hangs being reported without how long it did.
        hangs("full queue of a TCP listener", "proxy"),
        hangs("full queue of a TCP listener", "fastcgi"),
        hangs("full queue of a TCP listener before TLS", "proxys"),
        // Guards against EAGAIN of a unix socket being taken for that of TCP.
        full("full queue of a unix socket", "proxy"),
        full("full queue of a unix socket", "fastcgi"),
        full("full queue of a unix socket", "uwsgi"),
        // Guards against a missing socket being taken for one nobody listens on.
        missing("no such socket", "proxy", Peer::MissingUnix),
        missing("no such socket", "fastcgi", Peer::MissingUnix),
        missing("no such directory", "proxy", Peer::At("unix:/none/t.sock")),
        missing("no such directory", "scgi", Peer::At("unix:/none/t.sock")),
        // Guards against a socket that may not be used being taken for one that is missing.
        forbidden("proxy"),
        forbidden("fastcgi"),
        // Guards against a missing route being taken for a refusal. At these addresses nobody can
        // be connected to, and nothing is sent.
        nowhere("broadcast address", "127.255.255.255:9"),
        nowhere("multicast address on IPv6", "[ff01::1]:9"),
        // Guards against the address in the message being taken for the peer's. No host has this
        // one.
        bind("bound to a foreign address", "proxy", "proxy_bind 192.0.2.1;", &[EADDRNOTAVAIL])
            .shows(json!({"message":
                "bind(192.0.2.1) failed (99: Cannot assign requested address)"})),
        bind("bound to a foreign address", "fastcgi", "fastcgi_bind 192.0.2.1;", &[EADDRNOTAVAIL]),
        bind("bound to a port in use", "proxy", "proxy_bind 127.0.0.1:{addr_port};", &[EADDRINUSE]),
        // Guards against an error without a known message being lost.
        row("a socket for datagrams", "proxy", Peer::DatagramUnix)
            .failed("unknown", "connect", &[EPROTOTYPE])
            .says("(91: Protocol wrong type for socket)", "Read the message"),
    ]
}

/// A network in which there is one port for outgoing connections, on which nginx listens (any
/// other number would do as well: nobody else has ports there), no IPv6, and addresses of which it
/// is known that they are not to be reached.
pub(crate) const NAMESPACE: (&str, u16) = (
    "ip link set lo up
     echo 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range
     echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6
     ip route add unreachable 192.0.2.0/25
     ip route add prohibit 192.0.2.128/25",
    40000,
);

pub(crate) fn in_a_namespace() -> Vec<Row> {
    let far = |name, speaks, addr, cause, errno| {
        row(name, speaks, Peer::At(addr)).failed(cause, "connect", errno)
    };
    vec![
        // Guards against a missing route being taken for a refusal, or a prohibited one for a
        // missing one.
        far("no route", "proxy", "198.51.100.1:9", "unreachable", &[ENETUNREACH]),
        far("no route", "fastcgi", "198.51.100.1:9", "unreachable", &[ENETUNREACH]),
        far("unreachable host", "proxy", "192.0.2.1:9", "unreachable", &[EHOSTUNREACH]),
        far("unreachable host", "grpc", "192.0.2.1:9", "unreachable", &[EHOSTUNREACH]),
        far("prohibited", "proxy", "192.0.2.129:9", "permission_denied", &[EACCES]),
        // Guards against the lack of an address to connect from being taken for one of ports: it
        // has the same errno.
        far("no IPv6 on this host", "proxy", "[::1]:9", "unreachable", &[EADDRNOTAVAIL]),
        // Guards against a host without local ports being blamed on the upstream.
        far("no port left", "proxy", "127.0.0.1:9", "local_ports_exhausted", &[EADDRNOTAVAIL])
            .shows(json!({"message":
                "connect() to 127.0.0.1:9 failed (99: Cannot assign requested address)"})),
        far("no port left", "scgi", "127.0.0.1:9", "local_ports_exhausted", &[EADDRNOTAVAIL]),
    ]
}
