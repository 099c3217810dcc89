//! Whether an address is this host's, asked in a network namespace of its own where it may be had.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

mod namespace;

use std::process::Command;
use std::time::{Duration, Instant};

use host::is_own;
use namespace::in_namespace;

fn expect(table: &[(&str, Option<bool>)]) {
    for (address, expected) in table {
        assert_eq!(is_own(address.parse().unwrap()), *expected, "{address}");
    }
}

/// What is so on every host.
const EVERYWHERE: [(&str, Option<bool>); 8] = [
    ("127.0.0.1", Some(true)),
    ("127.1.2.3", Some(true)),
    ("::1", Some(true)),
    ("::ffff:127.0.0.1", Some(true)),
    ("0.0.0.0", Some(true)),
    ("::", Some(true)),
    // Documentation prefixes: RFC 5737, RFC 3849.
    ("203.0.113.77", Some(false)),
    ("2001:db8:ffff::77", Some(false)),
];

/// Guards against the usual case needing a namespace, or a route to somewhere.
#[test]
fn everywhere() {
    expect(&EVERYWHERE);
    in_namespace(&[], || expect(&EVERYWHERE));
}

const HOST: [&str; 12] = [
    "link set lo up",
    // Every address in a network of the loopback interface is own: it takes another one.
    "link add inside type veth peer name outside",
    "link set inside up",
    "link set outside up",
    "address add 192.0.2.1/24 dev inside",
    // The second of its network: a connection to it comes from the first.
    "address add 192.0.2.2/24 dev inside",
    "address add 198.51.100.1/32 dev lo",
    "address add 2001:db8::1/64 dev inside nodad",
    "address add fe80::1/64 dev inside nodad",
    // Addresses that no interface has, and that are still taken for own.
    "route add local 198.51.100.128/25 dev lo",
    "route add unreachable 203.0.113.0/24",
    "route add blackhole 192.88.99.0/24",
];

const ADDRESSES: [(&str, Option<bool>); 16] = [
    ("127.0.0.1", Some(true)),
    ("192.0.2.1", Some(true)),
    ("192.0.2.2", Some(true)),
    ("::ffff:192.0.2.2", Some(true)),
    ("198.51.100.1", Some(true)),
    ("198.51.100.200", Some(true)),
    ("2001:db8::1", Some(true)),
    ("fe80::1", Some(true)),
    // In the network of an own address.
    ("192.0.2.3", Some(false)),
    ("2001:db8::2", Some(false)),
    ("fe80::2", Some(false)),
    // These can be bound to.
    ("192.0.2.255", Some(false)),
    ("224.0.0.1", Some(false)),
    // No route leads there.
    ("198.51.100.2", Some(false)),
    ("203.0.113.1", Some(false)),
    // EINVAL, which is said of other things too.
    ("192.88.99.1", None),
];

/// Runs `test` on that host, once its IPv6 addresses are there: the kernel takes a moment for that
/// after it was told (`addrconf_dad_work` in `net/ipv6/addrconf.c`).
fn on_the_host(test: impl FnOnce() + Send) {
    in_namespace(&HOST, || {
        let until = Instant::now() + Duration::from_secs(30);
        let routes = || {
            let show = ["-6", "route", "show", "table", "local"];
            String::from_utf8(Command::new("ip").args(show).output().unwrap().stdout).unwrap()
        };
        while !["local 2001:db8::1 ", "local fe80::1 "].iter().all(|a| routes().contains(a)) {
            assert!(Instant::now() < until, "{}", routes());
        }
        test();
    });
}

/// Guards against an own address taken for foreign (a second one, one that only a route makes own)
/// and a foreign one for own (a neighbour's).
#[test]
fn own_and_foreign() {
    on_the_host(|| expect(&ADDRESSES));
}

/// Guards against every address being own where a socket can be bound to every address, as on
/// hosts that take over each other's.
#[test]
fn any_address_can_be_bound_to() {
    on_the_host(|| {
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1").unwrap();
        }
        std::net::UdpSocket::bind("192.0.2.3:0").expect("a foreign address");
        std::net::UdpSocket::bind("[2001:db8::2]:0").expect("a foreign address");
        expect(&ADDRESSES);
    });
}

/// Guards against an address that was taken away, as from the host that another one relieves.
#[test]
fn an_address_that_moves() {
    on_the_host(|| {
        let ip = |what: &str| {
            let arguments = ["address", what, "198.51.100.1/32", "dev", "lo"];
            assert!(Command::new("ip").args(arguments).status().unwrap().success());
        };
        expect(&[("198.51.100.1", Some(true))]);
        ip("del");
        expect(&[("198.51.100.1", Some(false))]);
        ip("add");
        expect(&[("198.51.100.1", Some(true))]);
    });
}
