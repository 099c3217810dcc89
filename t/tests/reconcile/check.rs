//! What has to agree with what.
//!
//! - The status document with the clients: every number, by the kinds of the requests.
//! - It with the upstreams: connections that were made, and requests that came.
//! - It with itself: sums, the timeline, the records in it.
//! - It with the metrics in both formats, with the lines of the log, and with nginx's access log.
//!
//! A worker that is killed takes requests with it. Those of its clients that wait for a response
//! see their connection break, and some of such a request may have been counted: that makes the
//! upper bounds. The lower ones are for a request whose client has all of the response, while the
//! worker dies before it has counted it. Of these it can hold only one, as it does nothing else
//! between the two; of the requests whose clients cannot tell, as many as there are clients.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use t::Nginx;

use crate::books::{self, Books};
use crate::kinds::{MOST_RACES, RACE};
use crate::load::{CLIENTS, Counted};
use crate::world::World;

/// What is left when the load is over.
pub(crate) struct Left {
    pub(crate) counted: Counted,
    pub(crate) status: Value,
    pub(crate) openmetrics: Books,
    pub(crate) text: Books,
    pub(crate) records: Vec<Value>,
    pub(crate) access: Vec<Value>,
    pub(crate) rate: Vec<Value>,
    pub(crate) nginx: Nginx,
}

/// What killed workers may have taken with them.
pub(crate) struct Losses {
    kills: u64,
    /// Of requests whose clients got what they were to get.
    unseen: Books,
    /// Of requests whose connections broke.
    broken: Books,
    /// Such requests, by kind.
    requests: BTreeMap<&'static str, u64>,
}

impl Losses {
    pub(crate) fn none() -> Losses {
        Losses {
            kills: 0,
            unseen: Books::default(),
            broken: Books::default(),
            requests: BTreeMap::new(),
        }
    }

    pub(crate) fn of(world: &World, counted: &Counted, kills: usize) -> Losses {
        let mut unseen = Books::default();
        for kind in &world.kinds {
            let held = if kind.is_certain() { 1 } else { CLIENTS };
            let mut adds = Books::default();
            adds.add_all(&kind.adds, number(held * kills));
            if kind.name == "race" {
                crate::load::lost_races(&mut adds, kind, kills * MOST_RACES);
            }
            unseen.raise(&adds);
        }
        let (broken, requests) = (counted.broken.clone(), counted.broken_requests.clone());
        Losses { kills: number(kills), unseen, broken, requests }
    }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).expect("a small number")
}

fn is_of_clients(name: &str) -> bool {
    !name.starts_with("connects")
}

/// Whether it is also in the lines of the log.
fn is_of_lines(name: &str) -> bool {
    let attempts = name.contains(" cause ") || name.ends_with(" failed");
    ["outcome ", "cause ", "upstream "].iter().any(|start| name.starts_with(start))
        || name.starts_with("peer ") && attempts
}

/// Whether it is also in the metrics: requests only of peers with a name.
fn is_of_metrics(name: &str) -> bool {
    ["upstream ", "connects ", "headers "].iter().any(|start| name.starts_with(start))
        || name.starts_with("peer ")
            && (name.contains(" cause ") || name.ends_with(" requests") && !name.contains("  "))
}

impl Left {
    pub(crate) fn check(&self, world: &World, losses: &Losses) {
        let status = books::status(&self.status);
        let low = self.counted.adds.less(|name| losses.unseen.get(name));
        let mut high = self.counted.adds.clone();
        high.add_all(&losses.broken, 1);
        status.only(is_of_clients).assert_within("the status and the clients", &low, &high);

        let servers = world.books();
        let lost = |name: &str| match name.strip_prefix("connects ") {
            // A connection is for one request.
            Some(upstream) => losses.of_upstream(upstream),
            None => losses.unseen.get(name) + losses.broken.get(name),
        };
        let known = |name: &str| name.starts_with("connects") || servers.get(name) > 0;
        let (least, what) = (servers.less(lost), "the status and the upstreams");
        status.only(known).assert_within(what, &least, &servers);

        self.check_sums(&status, losses.kills);
        self.openmetrics.assert_equal("OpenMetrics", &status.only(is_of_metrics));
        self.text.assert_equal("the older format", &status.only(is_of_metrics));
        self.check_lines(&status, &low, losses);
        self.check_access_log(world, &status, losses);
    }

    /// What the status document says twice. A worker may be killed between the one and the other.
    fn check_sums(&self, status: &Books, kills: u64) {
        let mut again = Books::default();
        let mut once = Books::default();
        let all: Vec<(&str, u64)> = status.of("").collect();
        for (name, n) in all {
            let words: Vec<&str> = name.split(' ').collect();
            match words[..] {
                ["outcome", outcome] => {
                    again.add("records", n);
                    once.add(format!("upstreams {outcome}"), n);
                }
                ["cause", cause] => {
                    once.add("records", n);
                    once.add(format!("timeline {cause}"), n);
                }
                ["timeline", _] => again.add(name, n),
                ["upstream", _, outcome] => again.add(format!("upstreams {outcome}"), n),
                ["peer", upstream, peer, "cause", _] => {
                    once.add(format!("causes {upstream} {peer}"), n);
                }
                ["peer", upstream, peer, "failed"] => {
                    again.add(format!("causes {upstream} {peer}"), n);
                    again.add(format!("requests {upstream} {peer}"), n);
                }
                ["peer", upstream, peer, "ok" | "aborted"] => {
                    again.add(format!("requests {upstream} {peer}"), n);
                }
                ["peer", upstream, peer, "requests"] => {
                    once.add(format!("requests {upstream} {peer}"), n);
                }
                _ => {}
            }
        }
        let mut more = Books::default();
        for (name, _) in once.of("").chain(again.of("")).collect::<BTreeMap<_, _>>() {
            more.add(name, once.get(name) + kills);
        }
        again.assert_within("sums of the status", &once.less(|_| kills), &more);
    }

    /// The log: its lines, those that `rate=` left out of the other one, and the records that the
    /// status document has.
    fn check_lines(&self, status: &Books, low: &Books, losses: &Losses) {
        let lines = books::lines(&self.records);
        let least = low.only(is_of_lines);
        lines.assert_within("the lines and the status", &least, &status.only(is_of_lines));
        if losses.kills == 0 {
            lines.assert_equal("the lines and the status", &status.only(is_of_lines));
        }
        let records = number(self.records.len());
        let all = status.sum("outcome ");
        assert!((all.saturating_sub(losses.kills)..=all).contains(&records), "{records} of {all}");

        let recent = self.status["recent"].as_array().expect("recent");
        let texts = |records: &[Value]| -> BTreeSet<String> {
            records.iter().map(Value::to_string).collect()
        };
        let (kept, written) = (texts(recent), texts(&self.records));
        assert_eq!(number(written.len()), records, "records that are alike");
        assert_eq!(
            written.difference(&kept).collect::<Vec<_>>(),
            [""; 0],
            "lines without a record"
        );
        let more = number(kept.difference(&written).count());
        assert!(more <= losses.kills, "{more} records without a line");

        let dropped = &self.status["dropped"];
        let dropped = |what: &str| dropped[what].as_u64().expect("a number");
        for what in ["records", "lines", "peers"] {
            assert_eq!(dropped(what), 0, "{what}");
        }
        let told: u64 = self.rate.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
        let suppressed = dropped("suppressed");
        assert!(suppressed > 0 && told <= suppressed, "{told} of {suppressed}");
        let rated = number(self.rate.len()) + suppressed;
        // That log's line is the second.
        assert!((records.saturating_sub(losses.kills)..=records).contains(&rated), "{rated}");
    }

    /// nginx's own log: the requests and their ends by kind, the verdicts, and the addresses that
    /// it tried.
    fn check_access_log(&self, world: &World, status: &Books, losses: &Losses) {
        let mut requests: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        let mut addrs = Books::default();
        for line in &self.access {
            let text = |key: &str| line[key].as_str().expect("text");
            let kind = text("request").split('/').nth(1).expect("a kind");
            if !text("uri").starts_with("/sub-") {
                *requests.entry((kind, text("status"), text("cause"))).or_default() += 1;
            }
            if kind != "off" {
                let tried = text("addr").split(" : ").flat_map(|group| group.split(", "));
                tried.filter(|addr| addr.contains(':')).for_each(|addr| addrs.add(addr, 1));
            }
        }
        for kind in &world.kinds {
            let mut all = 0;
            let primed = u64::from(matches!(kind.name, "cached" | "hit"));
            let answered = self.counted.answered.get(kind.name).copied().unwrap_or(0) + primed;
            for ((_, ended, cause), n) in
                requests.iter().filter(|((name, ..), _)| *name == kind.name)
            {
                let verdict = match kind.name {
                    "cached" if *cause == "upstream_response" && *n == 1 => "upstream_response",
                    "race" if *cause == RACE => RACE,
                    _ => kind.verdict,
                };
                // A request that breaks off may not have come to its end.
                let is_usual = *ended == kind.status.to_string() && *cause == verdict;
                assert!(is_usual || losses.kills > 0, "{}: {n} with {ended} {cause}", kind.name);
                all += n;
            }
            let held = if kind.is_certain() { 1 } else { number(CLIENTS) };
            let least = answered.saturating_sub(losses.kills * held);
            let most = answered + losses.requests.get(kind.name).copied().unwrap_or(0);
            assert!((least..=most).contains(&all), "{}: {all} of {least}..={most}", kind.name);
        }
        let mut counted = Books::default();
        for (name, n) in status.of("peer ").filter(|(name, _)| name.ends_with(" requests")) {
            let addr = name.split(' ').nth(2).expect("an address");
            if !addr.is_empty() {
                counted.add(addr, n);
            }
        }
        // What is counted before a request is at its end may be of one that has none.
        let lost = |addr: &str| {
            let of = format!(" {addr} requests");
            let all = losses.unseen.of("peer ").chain(losses.broken.of("peer "));
            all.filter(|(name, _)| name.ends_with(&of)).map(|(_, n)| n).sum()
        };
        addrs.assert_within("addresses in the access log", &counted.less(lost), &counted);
    }
}

impl Losses {
    /// Attempts on servers of one upstream.
    fn of_upstream(&self, upstream: &str) -> u64 {
        let start = format!("peer {upstream} ");
        let all = self.unseen.of(&start).chain(self.broken.of(&start));
        all.filter(|(name, _)| name.ends_with(" requests")).map(|(_, n)| n).sum()
    }
}
