//! `?upstream= ?peer= ?cause= ?limit=`, and what is wrong with a query.

use serde_json::{Value, json};
use t::{Nginx, RefusedPort, Upstream, diag, script};

use super::{assert_not_kept, conf};

/// An nginx with a record of each kind, and the names in it.
struct World {
    nginx: Nginx,
    dead: RefusedPort,
    own: Upstream,
    unix: String,
    _good: Upstream,
}

impl World {
    fn new() -> Self {
        let (dead, own) = (t::refused_port(), Upstream::tcp(script::status(503)));
        let good = Upstream::tcp(script::ok("good"));
        let nginx = Nginx::start(
            conf(format!(
                "location = /masked {{ proxy_pass http://two; }}
                 location = /dead {{ proxy_pass http://{}; }}
                 location = /own {{ proxy_pass http://own; }}
                 location = /unix {{ proxy_pass http://sock; }}
                 location = /direct {{ proxy_pass http://unix:{{prefix}}/y.sock:/uri; }}
                 location = /nobody {{ proxy_pass http://down; }}
                 location = /local {{ return 502; }}",
                dead.addr()
            ))
            .http(format!(
                "upstream two {{ server {dead} max_fails=0; server {good} backup; }}
                 upstream own {{ server {own}; }}
                 upstream sock {{ server unix:{{prefix}}/x.sock max_fails=0; }}
                 upstream down {{ server {dead} down; }}",
                dead = dead.addr(),
                good = good.addr(),
                own = own.addr(),
            )),
        );
        let unix = format!("unix:{}", nginx.path("x.sock").display());
        for path in [
            "/masked", "/dead", "/own", "/unix", "/nobody", "/direct", "/local", "/dead", "/masked",
        ] {
            nginx.get(path);
        }
        Self { nginx, dead, own, unix, _good: good }
    }

    fn is(&self, query: &str, wanted: &[&str]) {
        let document = diag::status_at(&self.nginx, &format!("/status?{query}"));
        let recent = document["recent"].as_array().expect("records");
        let uris: Vec<&str> = recent.iter().filter_map(|record| record["uri"].as_str()).collect();
        assert_eq!(uris, wanted, "{query}");
        // Only the list of records is shorter.
        assert_eq!(document["totals"]["masked"], 2, "{query}");
        assert_eq!(document["upstreams"].as_object().map(|all| all.len()), Some(7), "{query}");
    }
}

/// Guards against a filter that lets through what it should not, or keeps back what it should.
#[test]
fn each_alone_and_together() {
    let world = World::new();
    let (dead, own) = (world.dead.addr(), world.own.addr());
    let all =
        ["/masked", "/dead", "/local", "/direct", "/nobody", "/unix", "/own", "/dead", "/masked"];
    world.is("", &all);
    world.is("format=json", &all);

    world.is("upstream=two", &["/masked", "/masked"]);
    world.is("upstream=own", &["/own"]);
    world.is(&format!("upstream={dead}"), &["/dead", "/dead"]);
    // No part of a name, nor another case.
    world.is("upstream=tw", &[]);
    world.is("upstream=TWO", &[]);
    world.is("upstream=two%20", &[]);
    // What belongs to no upstream.
    world.is("upstream=", &["/local"]);
    world.is("upstream", &["/local"]);

    world.is(&format!("peer={dead}"), &["/masked", "/dead", "/dead", "/masked"]);
    world.is(&format!("peer={own}"), &["/own"]);
    world.is(&format!("peer={}", world.unix), &["/unix"]);
    world.is("peer=127.0.0.1", &[]);

    world.is("cause=connection_refused", &["/masked", "/dead", "/dead", "/masked"]);
    world.is("cause=upstream_response", &["/own"]);
    world.is("cause=no_live_upstreams", &["/nobody"]);
    world.is("cause=socket_not_found", &["/direct", "/unix"]);
    world.is("cause=local_return", &["/local"]);
    world.is("cause=header_too_big", &[]);

    world.is("limit=0", &[]);
    world.is("limit=1", &all[..1]);
    world.is("limit=3", &all[..3]);
    world.is("limit=9", &all);
    world.is("limit=007", &all[..7]);
    world.is("limit=18446744073709551615", &all);

    world.is(&format!("upstream=two&peer={dead}&cause=connection_refused&limit=1"), &["/masked"]);
    world.is(&format!("limit=9&cause=connection_refused&upstream={dead}"), &["/dead", "/dead"]);
    world.is(&format!("peer={dead}&cause=connection_refused&limit=2"), &["/masked", "/dead"]);
    world.is("upstream=two&cause=upstream_response", &[]);
    world.is(&format!("upstream=two&peer={own}"), &[]);
    // The limit counts what is left, not what was looked at.
    world.is("cause=upstream_response&limit=1", &["/own"]);
    world.nginx.stop();
}

/// Guards against an upstream that is a unix socket and is found by none of its names: as it is
/// shown, and as it stands in nginx.conf; and against a group being found by another's.
#[test]
fn unix_sockets() {
    let world = World::new();
    let peer = format!("unix:{}", world.nginx.path("y.sock").display());
    let recent = &diag::status_at(&world.nginx, "/status?limit=4")["recent"][3];
    let shown = recent["upstream"].as_str().expect("a name");
    assert_eq!((&recent["uri"], &recent["attempts"][0]["peer"]), (&json!("/direct"), &json!(peer)));
    let document = diag::status_at(&world.nginx, "/status");
    assert_eq!(document["upstreams"][shown]["peers"][0]["peer"], peer);
    for query in [
        format!("upstream={shown}"),
        format!("upstream={peer}"),
        format!("peer={peer}"),
        format!("upstream={peer}&peer={peer}"),
        format!("upstream={}", peer.replace('/', "%2F").replace(':', "%3A")),
    ] {
        world.is(&query, &["/direct"]);
    }
    for query in [
        "upstream=unix:".to_owned(),
        "upstream=unix:sock".to_owned(),
        format!("upstream=unix:{peer}"),
        // The server of a group is no upstream.
        format!("upstream={}", world.unix),
    ] {
        world.is(&query, &[]);
    }
    world.nginx.stop();
}

/// Guards against records that cannot be asked for any more once a reload has taken their upstream
/// away: when it is gone is when one looks for them.
#[test]
fn upstreams_of_before() {
    let (dead, other) = (t::refused_port(), t::refused_port());
    let with = |name: &str, dead: &RefusedPort| {
        conf(format!("location = /dead {{ proxy_pass http://{name}; }}"))
            .http(format!("upstream {name} {{ server {}; }}", dead.addr()))
    };
    let nginx = Nginx::start(with("old", &dead));
    nginx.get("/dead");
    nginx.reload_with(with("new", &other));
    let found = |query: &str| {
        let document = diag::status_at(&nginx, &format!("/status?{query}"));
        assert!(document["upstreams"]["old"].is_null(), "{document:#}");
        document["recent"].as_array().map(Vec::len)
    };
    assert_eq!(found("upstream=old"), Some(1));
    assert_eq!(found(&format!("peer={}", dead.addr())), Some(1));
    assert_eq!(found("upstream=new"), Some(0));
    nginx.stop();
}

/// Guards against a name that cannot be asked for because a URL needs it written otherwise.
#[test]
fn encoded_values() {
    let world = World::new();
    let (dead, both) = (world.dead.addr(), ["/masked", "/masked"]);
    for query in [
        "upstream=%74wo",
        "upstream=%74%77%6F",
        "upstream=%74%77%6f&limit=%32",
        "%75pstream=two",
        "&&upstream=two&&limit=9&",
    ] {
        world.is(query, &both);
    }
    world.is(
        &format!("peer={}", dead.replace(':', "%3A")),
        &["/masked", "/dead", "/dead", "/masked"],
    );
    world.is(&format!("peer={}", world.unix.replace('/', "%2F").replace(':', "%3a")), &["/unix"]);
    // Nothing that there is, and nothing that is an error.
    for query in [
        "upstream=two+",
        "upstream=two%00",
        "upstream=%",
        "upstream=%7",
        "upstream=%zz",
        "upstream=%ff%fe",
        "upstream==two",
        "upstream=two%26limit=1",
        "upstream=%E2%82%AC",
        "upstream=%22two%22",
        "peer=*",
    ] {
        world.is(query, &[]);
    }
    let long = format!("upstream={}", "a".repeat(4_000));
    world.is(&long, &[]);
    let raw = b"GET /status?upstream=\xff\xc3\"<two> HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(world.nginx.request(raw).status, 200);
    world.nginx.stop();
}

/// Guards against a typo that gives every record, which looks like an answer, and against an error
/// that is none to a program, or that carries what a client made up.
#[test]
fn wrong_queries() {
    let nginx = Nginx::start(conf(
        "location = /json { upstream_diag_status json; }
         location = /prometheus { upstream_diag_status prometheus; }",
    ));
    for (query, error) in [
        ("nonsense", "unknown parameter 'nonsense': there are "),
        ("nonsense=1", "unknown parameter 'nonsense': there are "),
        ("Upstream=a", "unknown parameter 'Upstream': there are "),
        ("=a", "unknown parameter '': there are "),
        ("limit=1&x=y", "unknown parameter 'x': there are "),
        ("limit=1;cause=unknown", "limit '1?cause?unknown' is not a number of records"),
        ("upstream=a&upstream=a", "parameter 'upstream' is given twice"),
        ("limit=1&limit=2", "parameter 'limit' is given twice"),
        ("format=json&%66ormat=json", "parameter 'format' is given twice"),
        ("format=xml", "unknown format 'xml': there are json, prometheus"),
        ("format=", "unknown format '': there are json, prometheus"),
        ("format=JSON", "unknown format 'JSON': there are json, prometheus"),
        ("format=openmetrics", "unknown format 'openmetrics': there are json, prometheus"),
        ("cause=nonsense", "unknown cause 'nonsense': "),
        ("cause=", "unknown cause '': "),
        ("cause=Unknown", "unknown cause 'Unknown': "),
        ("limit=", "limit '' is not a number of records"),
        ("limit", "limit '' is not a number of records"),
        ("limit=-1", "limit '-1' is not a number of records"),
        ("limit=%2B1", "limit '?1' is not a number of records"),
        ("limit=+1", "limit ' 1' is not a number of records"),
        ("limit=1.5", "limit '1.5' is not a number of records"),
        ("limit=0x10", "limit '0x10' is not a number of records"),
        ("limit=18446744073709551616", "limit '18446744073709551616' is not a number of records"),
        ("<script>=1", "unknown parameter '?script?': there are "),
        ("%22%0d%0aX:%20y=1", "unknown parameter '???X: y': there are "),
        ("%ff=1", "unknown parameter '?': there are "),
        ("cause=%1b[31m", "unknown cause '??31m': "),
    ] {
        // Whatever the format would be, and whoever chooses it.
        for path in ["/status", "/json", "/prometheus"] {
            let response = nginx.get_with(&format!("{path}?{query}"), "Accept: text/plain\r\n");
            assert_eq!(response.status, 400, "{path}?{query}");
            assert_eq!(response.header("Content-Type"), Some("application/json"), "{query}");
            assert_not_kept(&response);
            let object: Value = serde_json::from_slice(&response.body).expect("a JSON object");
            let said = object["error"].as_str().expect("an error");
            assert!(said.starts_with(error), "{query}: {said}");
            assert_eq!(object, json!({"v": 1, "error": said}), "{query}");
            assert!(response.body.ends_with(b"}\n"), "{query}");
        }
    }
    let long = nginx.get(&format!("/status?{}=1", "a".repeat(4_000))).text();
    assert!(long.len() < 300 && long.contains(&format!("'{}...'", "a".repeat(40))), "{long}");
    // The connection is still good for the next request.
    let mut client = nginx.connect();
    assert_eq!(client.get("/status?x").status, 400);
    assert_eq!(client.get("/status").status, 200);
    nginx.stop();
}
