use std::collections::BTreeMap;

use super::encode::Dialect;
use super::parser::{Family, parse};
use super::{Kind, metrics, openmetrics, prometheus};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::peer::State;
use crate::status::{
    Dropped, Histogram, History, Module, PeerStatus, Snapshot, Upstream, Usage, Worker, Zone,
};

/// The families of both formats, which have to be readable.
fn both(snapshot: &Snapshot) -> [Vec<Family>; 2] {
    let read = |text: String, dialect| {
        parse(&text, dialect).unwrap_or_else(|wrong| panic!("{wrong}\nin\n{text}"))
    };
    [
        read(prometheus(snapshot).unwrap(), Dialect::Prometheus),
        read(openmetrics(snapshot).unwrap(), Dialect::OpenMetrics),
    ]
}

/// The samples of a metric by the values of its labels, in the order of the table, joined by `|`.
fn samples(families: &[Family], name: &str) -> BTreeMap<String, f64> {
    let order = metrics().iter().find(|metric| name.starts_with(metric.name)).unwrap().labels;
    let all = families.iter().flat_map(|family| &family.samples);
    let of_name = all.filter(|sample| sample.name == name);
    let values = of_name.map(|sample| {
        let known = order.iter().chain(&["le"]).filter_map(|label| sample.labels.get(*label));
        let values: Vec<&str> = known.map(String::as_str).collect();
        assert_eq!(values.len(), sample.labels.len(), "{sample:?}");
        (values.join("|"), sample.value)
    });
    values.collect()
}

fn peer(name: Option<&str>, ok: u64, causes: &[(Cause, u64)]) -> PeerStatus {
    let mut counts = vec![0; Cause::ALL.len()];
    for (cause, count) in causes {
        counts[cause.index()] = *count;
    }
    let failed = counts.iter().sum();
    PeerStatus {
        peer: name.map(str::to_owned),
        history: History { ok, failed, causes: counts, ..History::default() },
        ..PeerStatus::default()
    }
}

fn sample() -> Snapshot {
    let mut outcomes = vec![0; Outcome::ALL.len()];
    outcomes[Outcome::Masked.index()] = 3;
    let refused = [(Cause::ConnectionRefused, 2), (Cause::HeaderTooBig, 1)];
    let first = PeerStatus {
        state: Some(State::Unavailable),
        history: History { aborted: 4, ..peer(None, 10, &refused).history },
        ..peer(Some("127.0.0.1:1"), 0, &[])
    };
    let second = PeerStatus { state: Some(State::Down), ..peer(Some("127.0.0.1:2"), 0, &[]) };
    let backend = Upstream {
        name: "backend".into(),
        outcomes,
        connect: Histogram { bounds: &[1, 500], counts: vec![5, 2, 1], sum: 2_345 },
        header: Histogram { bounds: &[4_096, 8_192], counts: vec![0, 1], sum: 5_000 },
        peers: vec![first, second, peer(None, 0, &[(Cause::NoLiveUpstreams, 7)])],
    };
    let nowhere = Upstream { name: String::new(), outcomes: vec![9], ..Upstream::default() };
    Snapshot {
        module: Module { version: "0.1.0", nginx: "1.28.3".into() },
        worker: Worker { connections: Usage { used: 12, limit: 512 }, ..Worker::default() },
        zone: Zone { bytes: 2_097_152, used: 97_152, ..Zone::default() },
        dropped: Dropped { records: 1, lines: 2, suppressed: 3, peers: 4 },
        upstreams: vec![backend, nowhere],
        ..Snapshot::default()
    }
}

/// Guards against a value under another's label, a zero that is left out, a cause that did not
/// happen, and a difference between the formats.
#[test]
fn values_stand_under_their_labels() {
    for families in both(&sample()) {
        let has = |name: &str, wanted: &[(&str, f64)]| {
            let found = samples(&families, &format!("nginx_upstream_diag_{name}"));
            let wanted = wanted.iter().map(|(labels, value)| ((*labels).to_owned(), *value));
            assert_eq!(found, wanted.collect(), "{name}");
        };
        has("requests_total", &[("backend|127.0.0.1:1", 17.0), ("backend|127.0.0.1:2", 0.0)]);
        has(
            "failures_total",
            &[
                ("backend|127.0.0.1:1|connection_refused", 2.0),
                ("backend|127.0.0.1:1|header_too_big", 1.0),
                ("backend||no_live_upstreams", 7.0),
            ],
        );
        has(
            "outcomes_total",
            &[
                ("backend|failed", 0.0),
                ("backend|masked", 3.0),
                ("backend|truncated", 0.0),
                ("backend|passed", 0.0),
                ("backend|aborted", 0.0),
                ("|failed", 9.0),
                ("|masked", 0.0),
                ("|truncated", 0.0),
                ("|passed", 0.0),
                ("|aborted", 0.0),
            ],
        );
        has("peer_unavailable", &[("backend|127.0.0.1:1", 1.0), ("backend|127.0.0.1:2", 0.0)]);
        has("connect_seconds_sum", &[("backend", 2.345)]);
        has("connect_seconds_count", &[("backend", 8.0)]);
        has(
            "connect_seconds_bucket",
            &[("backend|0.001", 5.0), ("backend|0.5", 7.0), ("backend|+Inf", 8.0)],
        );
        has(
            "response_header_bytes_bucket",
            &[("backend|4096.0", 0.0), ("backend|8192.0", 1.0), ("backend|+Inf", 1.0)],
        );
        has("worker_connections", &[("used", 12.0), ("free", 500.0)]);
        has("zone_bytes", &[("used", 97_152.0), ("free", 2_000_000.0)]);
        has("dropped_total", &[("record", 1.0), ("line", 2.0), ("suppressed", 3.0), ("peer", 4.0)]);
        has("build_info", &[("0.1.0|1.28.3", 1.0)]);
    }
}

/// Guards against a format that only looks right: the type and the name of a family are where the
/// two differ, and a scraper that gets the wrong ones drops the family.
#[test]
fn descriptions_are_those_of_each_format() {
    let [prometheus, openmetrics] = both(&sample());
    let of = |families: &[Family]| -> Vec<(String, String, Option<String>)> {
        let all = families.iter();
        all.map(|family| (family.name.clone(), family.kind.clone(), family.unit.clone())).collect()
    };
    let (prometheus, openmetrics) = (of(&prometheus), of(&openmetrics));
    assert_eq!(prometheus.len(), metrics().len());
    assert_eq!(openmetrics.len(), metrics().len());
    for (metric, (old, new)) in metrics().iter().zip(prometheus.iter().zip(&openmetrics)) {
        let gauge = metric.kind == Kind::Info;
        let kind = if gauge { "gauge" } else { metric.kind.slug() };
        assert_eq!(*old, (metric.name.to_owned(), kind.to_owned(), None));
        assert_eq!(new.1, metric.kind.slug());
        let unit = ["seconds", "bytes"].into_iter().find(|unit| metric.name.ends_with(unit));
        assert_eq!(new.2.as_deref(), unit, "{}", metric.name);
    }
    let names: Vec<&str> = openmetrics.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(names.contains(&"nginx_upstream_diag_failures"), "{names:?}");
    assert!(names.contains(&"nginx_upstream_diag_build"), "{names:?}");
    assert!(names.contains(&"nginx_upstream_diag_connect_seconds"), "{names:?}");
}

/// Guards against a table whose names no scraper takes, or whose help breaks the line: nothing
/// escapes it.
#[test]
fn the_table_is_well_formed() {
    let mut names: Vec<&str> = metrics().iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), metrics().len());
    for metric in metrics() {
        assert!(metric.name.starts_with("nginx_upstream_diag_"), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter);
        assert_eq!(metric.name.ends_with("_info"), metric.kind == Kind::Info);
        let plain = |c: char| !c.is_control() && c != '\\' && c != '"' && c != '|';
        assert!(metric.help.ends_with('.') && metric.help.chars().all(plain), "{}", metric.name);
    }
}

/// Guards against a nginx that was just started, or one without a zone: no sample at all, or no
/// upstream, is still a text that can be read.
#[test]
fn nothing_to_tell_is_told() {
    for families in both(&Snapshot::default()) {
        assert_eq!(families.len(), metrics().len());
        assert_eq!(samples(&families, "nginx_upstream_diag_requests_total"), BTreeMap::new());
    }
}

/// A name made of what breaks readers: the same row of names each time.
fn hostile(state: &mut u64) -> String {
    const PIECES: &[&str] = &[
        "\"", "\\", "\n", "\\n", "\\\"", "\"} 1\n", "{", "}", ",", "=", " ", "#", "# EOF\n", "\r",
        "\0", "\u{1}", "\u{7f}", "\u{85}", "\u{2028}", "\u{feff}", "\u{fffd}", "é", "🦀", "a", "",
    ];
    let mut random = |below: usize| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(*state >> 33).unwrap().checked_rem(below).unwrap()
    };
    let length = random(6);
    (0..length).map(|_| PIECES[random(PIECES.len())]).collect()
}

/// Guards against a name that a client chose and that ends a label, a line or the whole text, and
/// against two series with the same labels, for which Prometheus refuses the whole scrape. Counts
/// of names that come out alike must not be lost.
#[test]
fn hostile_names_are_survived() {
    let mut state = 1;
    for _ in 0..200 {
        let failed = [(Cause::Unknown, 1)];
        let mut upstream = || Upstream {
            name: hostile(&mut state),
            outcomes: vec![1; Outcome::ALL.len()],
            connect: Histogram { bounds: &[1], counts: vec![1, 1], sum: 1 },
            peers: (0..5)
                .map(|_| PeerStatus {
                    state: Some(State::Up),
                    ..peer(Some(&hostile(&mut state)), 1, &failed)
                })
                .collect(),
            ..Upstream::default()
        };
        let mut upstreams: Vec<Upstream> = (0..5).map(|_| upstream()).collect();
        upstreams[0].peers.push(peer(None, 0, &failed));
        for families in both(&Snapshot { upstreams, ..Snapshot::default() }) {
            let sum = |name: &str| -> f64 {
                samples(&families, &format!("nginx_upstream_diag_{name}")).values().sum()
            };
            assert_eq!(sum("failures_total"), 26.0);
            assert_eq!(sum("outcomes_total"), 25.0);
            assert_eq!(sum("connect_seconds_count"), 10.0);
        }
    }
}

/// Guards against a label that is not what the operator configured: what can stand in a name comes
/// back as it was, however long it is.
#[test]
fn names_come_back_from_their_labels() {
    let name = r#"unix:/run/a "b"\c,d=e}.sock"#.repeat(1_000);
    let upstream = Upstream {
        name: "gruppe-ä".into(),
        peers: vec![peer(Some(&name), 1, &[])],
        ..Upstream::default()
    };
    for families in both(&Snapshot { upstreams: vec![upstream], ..Snapshot::default() }) {
        let found = samples(&families, "nginx_upstream_diag_requests_total");
        assert_eq!(found, BTreeMap::from([(format!("gruppe-ä|{name}"), 1.0)]));
    }
}

/// Guards against tests that pass because the reader takes anything.
#[test]
fn the_reader_is_strict() {
    let help = "# HELP a b\n# TYPE a gauge\n";
    let good = |text: &str| parse(text, Dialect::Prometheus);
    assert!(good(&format!("{help}a{{b=\"c\\\"\"}} 1\n")).is_ok());
    for wrong in [
        "a{b=\"c\"d\"} 1\n",
        "a{b=\"c\\d\"} 1\n",
        "a{b=\"c\nd\"} 1\n",
        "a{b=\"c\",b=\"d\"} 1\n",
        "a{b=\"c\"} 1\na{b=\"c\"} 2\n",
        "a_total 1\n",
        "a 1",
        "a 1 2\n",
        "a x\n",
        "# UNIT a b\n",
        "# EOF\n",
        "# HELP a b\n",
    ] {
        assert!(good(&format!("{help}{wrong}")).is_err(), "{wrong}");
    }
    let histogram = "# HELP a b\n# TYPE a histogram\na_sum 1\na_count 2\n";
    for wrong in [
        "",
        "a_bucket{le=\"+Inf\"} 1\n",
        "a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n",
        "a_bucket{le=\"1.0\"} 3\na_bucket{le=\"+Inf\"} 2\n",
        "a_bucket{le=\"1.0\"} 2\n",
    ] {
        assert!(good(&format!("{histogram}{wrong}")).is_err(), "{wrong}");
    }
    assert!(parse(help, Dialect::OpenMetrics).is_err(), "no end");
}
