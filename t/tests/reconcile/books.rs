//! What each source has counted, under the same names, so that they can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

/// Numbers by what they count. What was not counted is 0, and not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books(BTreeMap<String, u64>);

impl Books {
    pub(crate) fn add(&mut self, name: impl Into<String>, n: u64) {
        if n > 0 {
            *self.0.entry(name.into()).or_default() += n;
        }
    }

    /// Adds all of another's, so many times.
    pub(crate) fn add_all(&mut self, other: &Books, times: u64) {
        for (name, n) in &other.0 {
            self.add(name, n * times);
        }
    }

    /// Makes each number at least as large as another's.
    pub(crate) fn raise(&mut self, other: &Books) {
        for (name, n) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*n);
        }
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Everything whose name begins so.
    pub(crate) fn of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        let all = self.0.iter().filter(move |(name, _)| name.starts_with(start));
        all.map(|(name, n)| (name.as_str(), *n))
    }

    pub(crate) fn sum(&self, start: &str) -> u64 {
        self.of(start).map(|(_, n)| n).sum()
    }

    /// Only what is accepted, by its name.
    pub(crate) fn only(&self, accept: impl Fn(&str) -> bool) -> Books {
        Books(self.0.clone().into_iter().filter(|(name, _)| accept(name)).collect())
    }

    /// Where this has less than what was there before.
    pub(crate) fn shrunk(&self, before: &Books) -> Vec<String> {
        let fell = before.0.iter().filter(|(name, n)| self.get(name) < **n);
        fell.map(|(name, n)| format!("{name}: {n}, then {}", self.get(name))).collect()
    }

    /// Checks that two sources say the same.
    pub(crate) fn assert_equal(&self, what: &str, other: &Books) {
        self.assert_within(what, other, other);
    }

    /// Checks that each number lies between those of two others, themselves included.
    pub(crate) fn assert_within(&self, what: &str, low: &Books, high: &Books) {
        let names: BTreeSet<&String> =
            [self, low, high].iter().flat_map(|books| books.0.keys()).collect();
        let mut wrong = String::new();
        for name in names {
            let (n, low, high) = (self.get(name), low.get(name), high.get(name));
            if !(low..=high).contains(&n) {
                let _ = writeln!(wrong, "  {name}: {n}, not in {low}..={high}");
            }
        }
        assert!(wrong.is_empty(), "{what}:\n{wrong}");
    }

    /// Each number less what may be missing of it.
    pub(crate) fn less(&self, missing: impl Fn(&str) -> u64) -> Books {
        let mut books = Books::default();
        for (name, n) in &self.0 {
            books.add(name, n.saturating_sub(missing(name)));
        }
        books
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What stands under each key.
fn numbers(value: &Value) -> impl Iterator<Item = (&str, u64)> {
    let all = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    all.iter().map(|(name, n)| (name.as_str(), number(n)))
}

const OUTCOMES: [&str; 5] = ["failed", "masked", "truncated", "passed", "aborted"];

/// What the status document says.
pub(crate) fn status(document: &Value) -> Books {
    let mut books = Books::default();
    let totals = &document["totals"];
    books.add("requests", number(&totals["requests"]));
    for outcome in OUTCOMES {
        books.add(format!("outcome {outcome}"), number(&totals[outcome]));
    }
    for (cause, n) in numbers(&totals["causes"]) {
        books.add(format!("cause {cause}"), n);
    }
    for (cause, steps) in document["timeline"]["causes"].as_object().expect("causes") {
        let n = steps.as_array().expect("steps").iter().map(number).sum();
        books.add(format!("timeline {cause}"), n);
    }
    for (upstream, known) in document["upstreams"].as_object().expect("upstreams") {
        for outcome in OUTCOMES {
            books.add(format!("upstream {upstream} {outcome}"), number(&known[outcome]));
        }
        books.add(format!("connects {upstream}"), number(&known["connect_seconds"]["count"]));
        books.add(format!("headers {upstream}"), number(&known["header_bytes"]["count"]));
        for peer in known["peers"].as_array().expect("peers") {
            let name = format!("peer {upstream} {}", text(&peer["peer"]));
            for key in ["requests", "ok", "failed", "aborted"] {
                books.add(format!("{name} {key}"), number(&peer[key]));
            }
            for (cause, n) in numbers(&peer["causes"]) {
                books.add(format!("{name} cause {cause}"), n);
            }
        }
    }
    books
}

/// What the lines of the log say.
pub(crate) fn lines(records: &[Value]) -> Books {
    let mut books = Books::default();
    for record in records {
        let upstream = text(&record["upstream"]);
        books.add(format!("outcome {}", text(&record["outcome"])), 1);
        books.add(format!("cause {}", text(&record["cause"])), 1);
        books.add(format!("upstream {upstream} {}", text(&record["outcome"])), 1);
        for attempt in record["attempts"].as_array().expect("attempts") {
            if attempt["cause"].is_null() {
                continue;
            }
            // Without a peer nginx names the group.
            let chosen = !matches!(text(&attempt["phase"]), "resolve" | "select");
            let peer = if chosen { text(&attempt["peer"]) } else { "" };
            books.add(format!("peer {upstream} {peer} cause {}", text(&attempt["cause"])), 1);
            books.add(format!("peer {upstream} {peer} failed"), 1);
        }
    }
    books
}

/// What the metrics say, in either format.
pub(crate) fn metrics(text: &str) -> Books {
    let mut books = Books::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let label = |name: &str| {
            let labels = labels.trim_end_matches('}').split(',');
            let found = labels.filter_map(|label| label.split_once('=')).find(|l| l.0 == name);
            found.map_or("", |(_, value)| value.trim_matches('"'))
        };
        let (upstream, peer) = (label("upstream"), label("peer"));
        let name = match name.trim_start_matches("nginx_upstream_diag_") {
            "requests_total" => format!("peer {upstream} {peer} requests"),
            "failures_total" => format!("peer {upstream} {peer} cause {}", label("cause")),
            "outcomes_total" => format!("upstream {upstream} {}", label("outcome")),
            "connect_seconds_count" => format!("connects {upstream}"),
            "response_header_bytes_count" => format!("headers {upstream}"),
            _ => continue,
        };
        books.add(name, value.parse().unwrap_or_else(|e| panic!("{e}: {line}")));
    }
    books
}
