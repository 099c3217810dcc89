//! Addresses that are made while nginx runs, and what there is no room for.

use serde_json::{Value, json};
use t::dns::Answer;
use t::{Conf, Dns, Nginx, Upstream, diag, script};

use super::{SOON, names};

/// A proxy to whatever the request says, with room for so many peers.
fn anywhere(peers: &str, dns: &Dns) -> Conf {
    diag::conf(
        "location /to { proxy_pass http://$arg_to; } location /u { proxy_pass http://u; }
         location /fixed { set $u u; proxy_pass http://$u; }",
    )
    .http(format!("upstream_diag_zone 2m {peers};"))
    .http(format!("resolver {} ipv6=off;", dns.addr()))
}

/// Guards against addresses that no configuration names being counted nowhere, or under the name
/// of a variable.
#[test]
fn they_appear_as_they_come() {
    let [a, b, c] = [(); 3].map(|()| Upstream::tcp(script::ok("good")));
    let dead = t::refused_port();
    let six = Upstream::tcp6(script::ok("six"));
    let dns = Dns::start([("a.test", Answer::localhost()), ("both.test", Answer::localhost())]);
    let conf = anywhere("", &dns).http(format!("upstream u {{ server {}; }}", c.addr()));
    let nginx = Nginx::start(conf);
    let socket = nginx.path("tmp/x.sock");
    let unix = Upstream::unix(&socket, script::ok("unix"));
    let before = diag::status(&nginx);
    assert_eq!(before["upstreams"].as_object().map(|all| all.len()), Some(1));
    for (to, status) in [
        (a.addr(), 200),
        (b.addr(), 200),
        (a.addr(), 200),
        (dead.addr(), 502),
        (six.addr(), 200),
        (format!("a.test:{}", a.port()), 200),
        (format!("a.test:{}", b.port()), 200),
        (format!("{}:", unix.addr()), 200),
        (format!("both.test:{}", dead.port()), 502),
    ] {
        assert_eq!(nginx.get(&format!("/to?to={to}")).status, status, "{to}");
    }
    // A variable may also name what is configured.
    assert_eq!((nginx.get("/fixed").status, nginx.get("/u").status), (200, 200));
    let status = diag::status(&nginx);
    for (upstream, peer, counts) in [
        ("127.0.0.1", a.addr(), [2, 0, 0]),
        ("127.0.0.1", b.addr(), [1, 0, 0]),
        ("127.0.0.1", dead.addr(), [0, 1, 0]),
        ("[::1]", six.addr(), [1, 0, 0]),
        ("a.test", a.addr(), [1, 0, 0]),
        ("a.test", b.addr(), [1, 0, 0]),
        ("both.test", dead.addr(), [0, 1, 0]),
        ("u", c.addr(), [2, 0, 0]),
    ] {
        let found = diag::peer(&status, upstream, &peer);
        assert_eq!(diag::counts(found), counts, "{upstream} {peer}");
        // nginx keeps no account of them.
        assert_eq!(found["state"].is_null(), upstream != "u", "{upstream} {peer}");
    }
    let of_unix = status["upstreams"].as_object().expect("upstreams").values().find(|upstream| {
        upstream["peers"].as_array().is_some_and(|all| all.iter().any(|p| p["peer"] == unix.addr()))
    });
    assert!(of_unix.is_some(), "{:#}", status["upstreams"]);
    assert_eq!(status["totals"]["requests"], 11);
    assert_eq!(status["dropped"]["peers"], 0);
    diag::finish(&nginx);
}

/// Guards against names that a client makes up taking the place of those that are configured, and
/// against what has no place being lost altogether.
#[test]
fn those_without_a_place_are_other() {
    let [a, b, c] = [(); 3].map(|()| Upstream::tcp(script::ok("good")));
    let dead = t::refused_port();
    let names_of_a = ["x.test", "y.test"];
    let dns = Dns::start(names_of_a.map(|name| (name, Answer::localhost())));
    let conf = anywhere("peers=2", &dns)
        .http(format!("upstream u {{ server {} max_fails=0; }}", c.addr()));
    let nginx = Nginx::start(conf);
    let to = |addr: &str| nginx.get(&format!("/to?to={addr}")).status;
    assert_eq!(diag::status(&nginx)["zone"]["peers"], json!({"used": 1, "limit": 2}));
    // The first still has one.
    assert_eq!((to(&a.addr()), to(&b.addr()), to(&dead.addr())), (200, 200, 502));
    let status = diag::status(&nginx);
    assert_eq!(names(&status, "127.0.0.1"), [a.addr(), "other".to_owned()]);
    let other = diag::peer(&status, "127.0.0.1", "other");
    assert_eq!(diag::counts(other), [1, 1, 0]);
    let wanted = json!({"causes": {"connection_refused": 1}, "state": null,
                        "last_cause": "connection_refused", "consecutive_failures": 1});
    assert_eq!(diag::differences(&wanted, other), [""; 0]);
    assert_eq!(status["dropped"]["peers"], 2);
    // Another peer's past is not this one's.
    assert_eq!(diag::seen(&nginx, 0).attempt(0)["history"], Value::Null);

    // No place for the upstream either.
    for name in names_of_a {
        assert_eq!(to(&format!("{name}:{}", a.port())), 200);
    }
    assert_eq!(nginx.get("/u").status, 200);
    assert_eq!(to(&a.addr()), 200);
    let status = diag::status(&nginx);
    let found: Vec<_> = status["upstreams"].as_object().expect("upstreams").keys().collect();
    assert_eq!(found, ["127.0.0.1", "other", "u"]);
    assert_eq!(diag::counts(diag::peer(&status, "other", "other")), [2, 0, 0]);
    assert_eq!(diag::counts(diag::peer(&status, "u", &c.addr())), [1, 0, 0]);
    assert_eq!(diag::counts(diag::peer(&status, "127.0.0.1", &a.addr())), [2, 0, 0]);
    assert_eq!(status["dropped"]["peers"], 4);
    assert_eq!(status["zone"]["peers"], json!({"used": 2, "limit": 2}));
    assert_eq!(status["zone"]["upstreams"], json!({"used": 2, "limit": 2}));
    assert_eq!(status["totals"]["requests"], 7);
    let metrics = nginx.connect_to(1).get("/?format=json").text();
    assert!(metrics.contains("\"other\""));
    diag::finish(&nginx);
}

/// Guards against configured peers for which there is no room not being counted.
#[test]
fn more_configured_peers_than_room() {
    let ups: Vec<_> = (0..6).map(|_| Upstream::tcp(script::ok("good"))).collect();
    let servers: String = ups.iter().map(|up| format!("server {};", up.addr())).collect();
    let dns = Dns::start([]);
    let nginx = Nginx::start(anywhere("peers=4", &dns).http(format!("upstream u {{ {servers} }}")));
    assert!(nginx.error_log().contains("[warn]") || nginx.read("stderr.log").contains("[warn]"));
    let status = diag::status(&nginx);
    assert_eq!(names(&status, "u").len(), 4);
    for _ in 0..12 {
        assert_eq!(nginx.get("/u").status, 200);
    }
    let status = diag::status(&nginx);
    for up in &ups[..4] {
        assert_eq!(diag::counts(diag::peer(&status, "u", &up.addr())), [2, 0, 0]);
    }
    assert_eq!(diag::counts(diag::peer(&status, "u", "other")), [4, 0, 0]);
    assert_eq!(status["dropped"]["peers"], 4);
    diag::finish(&nginx);
}

/// Guards against names that are too long for their place being taken for one another, or making
/// a document that cannot be read.
#[test]
fn long_names_are_told_apart() {
    let good = Upstream::tcp(script::ok("good"));
    let label = "a".repeat(60);
    let long = [1, 2].map(|n| format!("{label}.{label}.{label}{n}.test"));
    let dns = Dns::start([
        (long[0].as_str(), Answer::localhost()),
        (long[1].as_str(), Answer::localhost()),
    ]);
    let conf = anywhere("", &dns).http(format!("upstream u {{ server {}; }}", good.addr()));
    let nginx = Nginx::start(conf);
    for (name, times) in long.iter().zip([1, 2]) {
        for _ in 0..times {
            let response = nginx.get(&format!("/to?to={name}:{}", good.port()));
            assert_eq!(response.status, 200, "{name}");
        }
    }
    let status = diag::status(&nginx);
    let all = status["upstreams"].as_object().expect("upstreams");
    let mut found: Vec<u64> = all
        .iter()
        .filter(|(name, _)| name.starts_with(&label))
        .map(|(_, upstream)| diag::counts(&upstream["peers"][0])[0])
        .collect();
    found.sort_unstable();
    assert_eq!(found, [1, 2], "{all:#?}");
    diag::finish(&nginx);
}

/// Guards against servers of a group whose addresses change while nginx runs being counted under
/// an address that they had before, or not at all. nginx can that since 1.27.3.
#[test]
fn servers_that_are_resolved_again() {
    let good = Upstream::tcp(script::ok("good"));
    let dns = Dns::start([("a.test", Answer::localhost())]);
    let conf = diag::conf("location / { proxy_pass http://u; }").http(format!(
        "resolver {} ipv6=off valid=1s; proxy_connect_timeout 1s;
         upstream u {{ zone u 64k; server a.test:{} resolve max_fails=0; }}",
        dns.addr(),
        good.port()
    ));
    if Nginx::check(&conf).1.contains("invalid parameter \"resolve\"") {
        return;
    }
    let nginx = Nginx::start(conf);
    let asked = |status: u16| {
        t::eventually("an answer", SOON, || (nginx.get("/").status == status).then_some(()));
    };
    asked(200);
    let status = diag::status(&nginx);
    let peer = diag::peer(&status, "u", &good.addr());
    assert_eq!((diag::counts(peer), &peer["state"]), ([1, 0, 0], &json!("up")), "{peer:#}");
    // Nobody listens there.
    dns.set("a.test", Answer::A(vec![std::net::Ipv4Addr::new(127, 0, 0, 2)]));
    asked(502);
    let moved = format!("127.0.0.2:{}", good.port());
    let status = diag::status(&nginx);
    let peer = diag::peer(&status, "u", &moved);
    assert_eq!((diag::counts(peer), &peer["state"]), ([0, 1, 0], &json!("up")), "{peer:#}");
    dns.set("a.test", Answer::localhost());
    asked(200);
    let status = diag::status(&nginx);
    assert!(diag::counts(diag::peer(&status, "u", &good.addr()))[0] > 1);
    nginx.stop();
}
