//! What is hooked is found again, however many kinds of it there are in one worker.

use std::path::Path;

use serde_json::Value;
use t::protocol::{self, Protocol};
use t::script::End;
use t::{Conf, Nginx, Upstream, diag, script};

use super::{counts, wait_counts};

/// Balancers of nginx's, more than there are hooks of their own for.
const BALANCERS: [(&str, &str); 7] = [
    ("robin", ""),
    ("least", "least_conn;"),
    ("iphash", "ip_hash;"),
    ("hashed", "hash $uri;"),
    ("chash", "hash $uri consistent;"),
    ("dice", "random;"),
    ("kept", "least_conn; keepalive 4;"),
];

/// The protocol modules besides that for HTTP: more than there are hooks of their own for.
const OTHERS: [&str; 5] = ["fastcgi", "uwsgi", "scgi", "grpc", "memcached"];

/// Guards against a balancer or a protocol module whose requests are not counted, or go to another's
/// function, because others came before it.
#[test]
fn every_balancer_and_protocol_module_is_counted() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    for others_first in [false, true] {
        let groups: String = BALANCERS
            .map(|(name, how)| format!("upstream {name} {{ {how} server {}; }}\n", good.addr()))
            .concat();
        let locations = BALANCERS
            .map(|(name, _)| format!("location /{name} {{ proxy_pass http://{name}; }}\n"))
            .concat()
            + &OTHERS
                .map(|name| {
                    let pass = format!("{name}_pass 127.0.0.1:{};", dead.port());
                    format!("location /{name} {{ set $memcached_key k; {pass} }}\n")
                })
                .concat();
        let nginx = Nginx::start(diag::conf(locations).http(groups));
        let balanced = BALANCERS.map(|(name, _)| (name, 200));
        let others = OTHERS.map(|name| (name, 502));
        let mut turns = [balanced.as_slice(), others.as_slice()];
        if others_first {
            turns.reverse();
        }
        for _ in 0..3 {
            for (name, status) in turns.concat() {
                assert_eq!(nginx.get(&format!("/{name}")).status, status, "{name}");
            }
        }
        let peer = format!("127.0.0.1:{}", dead.port());
        wait_counts(&nginx, &peer, &peer, [0, 3 * OTHERS.len() as u64, 0]);
        for (name, _) in BALANCERS {
            assert_eq!(counts(&nginx, name, &good.addr()), [3, 0, 0], "{name}, {others_first}");
        }
        let seen = diag::seen(&nginx, 3 * OTHERS.len() - 1);
        assert_eq!(seen.record["cause"], "connection_refused");
        nginx.stop();
    }
}

/// A configuration with a module that puts a function of its own in front of the hooks.
fn wrapped(when: &str, locations: &str, dir: &Path) -> Conf {
    let code = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counters/wrapping.c");
    let module = Nginx::compile_module(Path::new(code), when, dir);
    diag::conf(locations).main(format!("load_module {};", module.display()))
}

/// Guards against a request that is counted twice, against a hook that calls itself for ever, and
/// against one that has the other module's function called twice, where that stands in front of the
/// hook when an error line comes.
#[test]
fn hooks_that_another_module_wraps_see_an_end_once() {
    let dir = t::temp_dir();
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let dead_addr = format!("127.0.0.1:{}", dead.port());
    // The two that come first have hooks of their own, and of the rest one is shared.
    let others = || vec![protocol::memcached(), protocol::scgi()];
    for (when, first) in [
        ("WRAP_AT_INIT", vec![]),
        ("WRAP_AT_INIT", others()),
        ("WRAP_AROUND_INIT", vec![]),
        ("WRAP_AROUND_INIT", others()),
        ("WRAP_AT_GET", vec![]),
        ("WRAP_AT_GET", others()),
    ] {
        let mut locations = String::new();
        let others: Vec<Upstream> = first.iter().map(answering).collect();
        for (Protocol { name, location, .. }, up) in first.iter().zip(&others) {
            let pass = format!("{name}_pass {};", up.addr());
            locations.push_str(&format!("location /{name} {{ {location} {pass} }}\n"));
        }
        locations.push_str("location / { proxy_pass http://app; }");
        locations.push_str("location /none { proxy_pass http://none; }");
        let groups = format!(
            "upstream app {{ server {dead_addr} max_fails=0; server {} backup; }}\n\
             upstream none {{ server {dead_addr}; }}\n",
            good.addr()
        );
        let nginx = Nginx::start(wrapped(when, &locations, dir.path()).http(groups));
        for Protocol { name, .. } in &first {
            assert_eq!(nginx.get(&format!("/{name}")).status, 200, "{name}");
        }
        for _ in 0..3 {
            assert_eq!(nginx.get("/").status, 200);
            assert_eq!(nginx.get("/none").status, 502);
        }
        wait_counts(&nginx, "none", &dead_addr, [0, 3, 0]);
        assert_eq!(counts(&nginx, "app", &dead_addr), [0, 3, 0], "{when}");
        assert_eq!(counts(&nginx, "app", &good.addr()), [3, 0, 0], "{when}");
        for up in &others {
            assert_eq!(counts(&nginx, &up.addr(), &up.addr()), [1, 0, 0], "{when}");
        }
        let totals = &diag::status(&nginx)["totals"];
        let wanted = [6 + first.len(), 3, 3];
        assert_eq!(
            wanted.map(Value::from),
            ["requests", "failed", "masked"].map(|of| totals[of].clone()),
            "{when}"
        );
        diag::finish(&nginx);
    }
}

/// Guards against a request that is counted twice, where another module's function came before the
/// hook with the header of an upstream whose address was made at run time.
#[test]
fn hooks_that_another_module_wraps_with_the_header() {
    let dir = t::temp_dir();
    let [good, bad] = [200, 502].map(|status| Upstream::tcp(script::status(status)));
    let cut = Upstream::tcp(script::partial_body(9, "half", End::Fin));
    let location = |name: &str, addr: &str| {
        format!("location /{name} {{ set $to {addr}; proxy_pass http://$to; }}\n")
    };
    let dead = t::refused_port();
    let addrs =
        [("good", good.addr()), ("bad", bad.addr()), ("cut", cut.addr()), ("dead", dead.addr())];
    let locations = addrs.each_ref().map(|(name, addr)| location(name, addr));
    let nginx = Nginx::start(wrapped("WRAP_AT_HEADER", &locations.concat(), dir.path()));
    for (name, status) in [("good", 200), ("bad", 502), ("cut", 200), ("dead", 502)] {
        assert_eq!(nginx.get(&format!("/{name}")).status, status, "{name}");
    }
    for (name, addr) in &addrs {
        let wanted = if *name == "good" { [1, 0, 0] } else { [0, 1, 0] };
        wait_counts(&nginx, "127.0.0.1", addr, wanted);
    }
    assert_eq!(diag::status(&nginx)["totals"]["requests"], 4);
    diag::finish(&nginx);
}

/// An upstream that answers in a protocol.
fn answering(protocol: &Protocol) -> Upstream {
    let (read, good) = (protocol.read, protocol.good.clone());
    Upstream::tcp(move |_, conn| {
        if read(conn) {
            conn.write(&good);
        }
    })
}
