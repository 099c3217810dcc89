//! Another host, and a network of one's own: what the kernel of this host cannot know, and what it
//! knows of here only.

use std::time::Instant;

use serde_json::json;
use t::{Nginx, Upstream, diag, netns_available, script};

use crate::fails_in_turn;
use crate::never::get_to_know;

/// A network with this host as 192.0.2.1 and another one as 192.0.2.2, on which nobody listens. The
/// other one is there as long as nginx is.
const TWO_HOSTS: &str = "
    ip link set lo up
    ip link add name here type veth peer name there
    setpriv --pdeathsig KILL -- unshare -n sleep 1000 &
    host=$!
    own=$(readlink /proc/self/ns/net)
    while [ \"$(readlink /proc/$host/ns/net)\" = \"$own\" ]; do sleep 0.01; done
    ip link set there netns $host
    ip addr add 192.0.2.1/24 dev here
    ip link set here up
    nsenter -t $host -n ip addr add 192.0.2.2/24 dev there
    nsenter -t $host -n ip link set there up";

/// Guards against what the kernel says of this host's ports being said of another host's, or of
/// those that another container has under the same address.
#[test]
fn ports_of_other_hosts() {
    if !netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    let dir = t::temp_dir();
    let good = Upstream::unix(dir.path().join("up.sock"), script::ok("good"));
    // Listens in the network of the tests.
    let outside = Upstream::tcp(script::ok("good"));
    let (outside, good, port) = (outside.addr(), good.addr(), outside.port());
    let far = "192.0.2.2:8080";
    let nginx = Nginx::start(
        diag::conf(format!(
            "proxy_connect_timeout 300ms;
             location /stale {{ proxy_pass http://stale; }}
             location /far {{ proxy_pass http://{far}; }}
             location /late {{ proxy_pass http://192.0.2.9:8080; }}
             location /own {{ proxy_pass http://192.0.2.1:8080; }}
             location /outside {{ proxy_pass http://{outside}; }}"
        ))
        .http(format!("upstream stale {{ server {far} max_fails=0; server {good}; }}"))
        .netns(TWO_HOSTS),
    );
    let known = Instant::now();
    for (n, (path, cause, codes)) in [
        ("/far", "connection_refused", &[][..]),
        ("/late", "connection_timed_out", &[]),
        ("/own", "connection_refused", &["nothing_listening"]),
        ("/outside", "connection_refused", &["nothing_listening"]),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(nginx.get(path).status >= 502, "{path}");
        let seen = diag::seen(&nginx, n);
        seen.expect(cause, &json!({"outcome": "failed"}));
        assert_eq!(seen.codes(), codes, "{path}");
        if path == "/outside" {
            seen.finds(
                "nothing_listening",
                "certain",
                &format!("Nothing listens on port {port} of this host."),
                &json!({"port": port}),
            );
        }
    }

    for _ in 0..3 {
        let seen = fails_in_turn(&nginx, "/stale");
        seen.expect("connection_refused", &json!({"outcome": "masked"}));
        assert_eq!(seen.codes(), [""; 0]);
    }
    get_to_know(known);
    let seen = fails_in_turn(&nginx, "/stale");
    seen.finds(
        "never_connected",
        "possible",
        &format!("{far} has accepted none of 4 connections in the <known_for> for which nginx has known it, and another server of its group answers: its address may be wrong or stale."),
        &json!({"known_for": [10.0, 60.0], "failures": 4, "siblings": 1}),
    );
    seen.advises(
        "never_connected",
        &format!("Correct or remove {far} in upstream \"stale\": nothing has ever answered there."),
    );
    diag::finish(&nginx);
}
