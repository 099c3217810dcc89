//! The metrics, beside the document: the same numbers.

use std::collections::BTreeMap;

use serde_json::Value;
use t::{Nginx, Upstream, diag, script};

use super::conf;

const PREFIX: &str = "nginx_upstream_diag_";

/// Every sample, by its name and labels as they stand there.
fn samples(nginx: &Nginx, accept: &str) -> BTreeMap<String, f64> {
    let text = nginx.get_with("/status", &format!("Accept: {accept}\r\n")).text();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let name = name.strip_prefix(PREFIX).unwrap_or_else(|| panic!("{line}")).to_owned();
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(name, value).is_none(), "twice: {line}");
    }
    samples
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What the samples have to be, as the document has it.
fn wanted(document: &Value) -> BTreeMap<String, f64> {
    let mut wanted = BTreeMap::new();
    let mut add = |name: String, value: &Value| {
        wanted.insert(name, number(value));
    };
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    for (upstream, found) in map(&document["upstreams"]) {
        for peer in found["peers"].as_array().expect("peers") {
            let name = peer["peer"].as_str();
            let labels = format!("upstream=\"{upstream}\",peer=\"{}\"", name.unwrap_or_default());
            if name.is_some() {
                add(format!("requests_total{{{labels}}}"), &peer["requests"]);
            }
            for (cause, count) in map(&peer["causes"]) {
                add(format!("failures_total{{{labels},cause=\"{cause}\"}}"), &count);
            }
            if let Some(state) = peer["state"].as_str() {
                let out = u8::from(state == "unavailable");
                add(format!("peer_unavailable{{{labels}}}"), &out.into());
            }
        }
        for outcome in ["failed", "masked", "truncated", "passed", "aborted"] {
            let labels = format!("upstream=\"{upstream}\",outcome=\"{outcome}\"");
            add(format!("outcomes_total{{{labels}}}"), &found[outcome]);
        }
        for (key, name) in
            [("connect_seconds", "connect_seconds"), ("header_bytes", "response_header_bytes")]
        {
            let histogram = &found[key];
            for part in ["count", "sum"] {
                add(format!("{name}_{part}{{upstream=\"{upstream}\"}}"), &histogram[part]);
            }
        }
    }
    for key in ["records", "lines", "suppressed", "peers"] {
        // The name of one.
        let what = key.trim_end_matches('s');
        add(format!("dropped_total{{what=\"{what}\"}}"), &document["dropped"][key]);
    }
    wanted
}

/// Guards against two formats that tell different things of one moment, and against a sample that
/// is missing, or there twice.
#[test]
fn metrics_and_document_agree() {
    let good = Upstream::tcp(script::ok("good"));
    let own = Upstream::tcp(script::status(503));
    let dead = t::refused_port();
    let mut conf = conf(format!(
        "location /app {{ proxy_pass http://app; }}
         location /own {{ proxy_pass http://{}; }}
         location /to {{ proxy_pass http://$arg_to; }}
         location /local {{ return 504; }}",
        own.addr()
    ));
    conf = conf.http(format!(
        "upstream app {{ zone app 64k; server {} fail_timeout=60s; server {} backup; keepalive 2; }}
         upstream down {{ server {} down; }} upstream_diag_zone 1m peers=5;
         upstream_diag_log {{prefix}}/diag.json rate=1r/s; upstream_diag_log /dev/full;",
        dead.addr(),
        good.addr(),
        dead.addr()
    ));
    let nginx = Nginx::start(conf);
    nginx.allow_log("upstream_diag: a line of upstream_diag_log could not be written");
    for path in
        ["/app", "/app", "/app", "/own", "/local", "/to?to=127.0.0.1:1", "/to?to=127.0.0.2:1"]
    {
        nginx.get(path);
    }
    let document = diag::status_at(&nginx, "/status");
    assert_eq!(document["upstreams"]["app"]["masked"], 1);
    for what in ["lines", "suppressed", "peers"] {
        assert!(number(&document["dropped"][what]) > 0.0, "{what}: {}", document["dropped"]);
    }
    let wanted = wanted(&document);
    for accept in ["text/plain", "application/openmetrics-text"] {
        let found = samples(&nginx, accept);
        for (name, value) in &wanted {
            let got = found.get(name).unwrap_or_else(|| panic!("no {name}: {found:#?}"));
            assert!((got - value).abs() < 1e-9, "{name}: {got}, wanted {value}");
        }
        // Nothing of the kind that is not in the document.
        for name in found.keys() {
            let kinds = ["requests_", "failures_", "outcomes_", "peer_", "dropped_"];
            let known = wanted.contains_key(name);
            assert!(known || !kinds.iter().any(|kind| name.starts_with(kind)), "{name}");
        }
        let zone = &document["zone"];
        let all: f64 = ["used", "free"]
            .iter()
            .filter_map(|state| found.get(&format!("zone_bytes{{state=\"{state}\"}}")))
            .sum();
        assert!(all <= number(&zone["bytes"]), "{found:#?}");
        assert!(found.keys().any(|name| name.starts_with("worker_connections{state=\"")));
        assert!(found.keys().any(|name| name.starts_with("build_info{version=\"")));
    }
    // The last bucket has all values.
    let found = samples(&nginx, "text/plain");
    let ends: Vec<f64> = ["bucket{le=\"+Inf\",", "count{"]
        .iter()
        .map(|part| found[&format!("response_header_bytes_{part}upstream=\"app\"}}")])
        .collect();
    assert_eq!(ends, [3.0, 3.0]);
    nginx.stop();
}
