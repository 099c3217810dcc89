//! What is hooked is found again, however many kinds of it there are in one worker.

use t::{Nginx, Upstream, diag, script};

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
