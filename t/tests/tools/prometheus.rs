//! A Prometheus that scrapes one nginx, and what it has to say about that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use t::client::{Addr, Client};
use t::ports::Reservation;
use tempfile::TempDir;

use crate::process::Running;

/// The labels of a series, without that of the target's address.
pub(crate) type Labels = BTreeMap<String, String>;

/// Series with their values.
pub(crate) type Vector = BTreeMap<Labels, f64>;

/// A running Prometheus.
pub(crate) struct Prometheus {
    running: Running,
    port: Reservation,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts it with a job for each name and path, all at one port, and waits until it serves.
    pub(crate) fn start(port: u16, jobs: &[(&str, &str)]) -> Prometheus {
        let dir = t::temp_dir();
        let mut conf =
            "global: { scrape_interval: 1s, scrape_timeout: 1s }\nscrape_configs:\n".to_owned();
        for (name, path) in jobs {
            let _ = writeln!(
                conf,
                "- job_name: {name}\n  metrics_path: {path}\n  \
                 static_configs: [ {{ targets: [ '127.0.0.1:{port}' ] }} ]"
            );
        }
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, conf).expect("prometheus.yml");
        let port = Reservation::v4().expect("a port");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            "--storage.tsdb.retention.time=1h".to_owned(),
            format!("--web.listen-address={}", port.addr()),
        ];
        let running = Running::start("prometheus", "prometheus", dir.path(), &args);
        let mut prometheus = Prometheus { running, port, _dir: dir };
        let addr = Addr::Tcp(prometheus.port.port());
        prometheus.running.until("answer", || {
            let ready = b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let answer = Client::connect(&addr).ok()?.try_request(ready).ok()?;
            (answer.status == 200).then_some(())
        });
        prometheus
    }

    /// What a path of its API has under `data`.
    fn api(&self, path: &str) -> Value {
        let response = self.get(&format!("/api/v1/{path}"));
        let mut answer: Value = serde_json::from_str(&response).expect("JSON");
        assert_eq!(answer["status"], "success", "{path}: {answer:#}");
        answer["data"].take()
    }

    fn get(&self, path: &str) -> String {
        let mut client = Client::connect(&Addr::Tcp(self.port.port())).expect("Prometheus");
        let response = client.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text()
    }

    /// The value of an expression now.
    pub(crate) fn query(&self, expression: &str) -> Vector {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let data = self.api(&format!("query?query={encoded}"));
        assert_eq!(data["resultType"], "vector", "{data:#}");
        let series = data["result"].as_array().expect("series").iter().map(|series| {
            let value = series["value"][1].as_str().and_then(|text| text.parse().ok());
            let labels = series["metric"].as_object().expect("labels");
            let known = labels.iter().filter(|(name, _)| *name != "instance");
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let labels = known.map(|(name, value)| (name.clone(), text(value))).collect();
            (labels, value.expect("a number"))
        });
        let vector: Vector = series.collect();
        assert_eq!(data["result"].as_array().map(Vec::len), Some(vector.len()), "{data:#}");
        vector
    }

    /// Waits until an expression has this value.
    pub(crate) fn wait(&mut self, expression: &str, wanted: &Vector) {
        let mut last = Vector::new();
        let equal = t::poll(crate::process::DEADLINE, || {
            last = self.query(expression);
            (last == *wanted).then_some(())
        });
        assert!(equal.is_some(), "{expression}: wanted {wanted:#?}, got {last:#?}");
    }

    /// Waits until each target was scraped again.
    pub(crate) fn wait_scrapes(&mut self) {
        let scrapes = || self.query("count_over_time(up[1h])");
        let before = scrapes();
        t::eventually("more scrapes", crate::process::DEADLINE, || {
            let now = scrapes();
            before.iter().all(|(labels, n)| now[labels] > *n).then_some(())
        });
    }

    /// The error of each target's last scrape, by job; empty where there was none.
    pub(crate) fn last_errors(&self) -> BTreeMap<String, String> {
        let data = self.api("targets?state=active");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let targets = data["activeTargets"].as_array().expect("targets").iter();
        targets.map(|t| (text(&t["labels"]["job"]), text(&t["lastError"]))).collect()
    }

    /// Its own counters of samples and scrapes that it did not take, those that are not 0.
    pub(crate) fn refused(&self) -> Vec<String> {
        let metrics = self.get("/metrics");
        let counters: Vec<&str> =
            metrics.lines().filter(|line| line.starts_with("prometheus_target_scrape")).collect();
        let known = |what: &str| counters.iter().any(|line| line.contains(what));
        for what in ["duplicate_timestamp_total", "out_of_order_total", "out_of_bounds_total"] {
            assert!(known(what), "no {what} in {counters:#?}");
        }
        let lost = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            [
                "_order_total",
                "_bounds_total",
                "_timestamp_total",
                "_limit_total",
                "_limits_total",
                "_failed_total",
            ]
            .iter()
            .any(|end| name.ends_with(end))
                && !line.ends_with(" 0")
        };
        counters.into_iter().filter(lost).map(str::to_owned).collect()
    }

    /// What it complains of in its log.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let output = self.running.output();
        let bad =
            |line: &&str| ["level=warn", "level=error"].iter().any(|level| line.contains(level));
        output.lines().filter(bad).map(str::to_owned).collect()
    }
}
