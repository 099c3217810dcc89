//! The metrics, read by Prometheus and by `promtool`.

use std::io::Write as _;
use std::process::Stdio;

use crate::process::command;
use crate::prometheus::{Labels, Prometheus, Vector};
use crate::world::{JOBS, World};

/// Every counter that the module has, the parts of histograms among them.
const COUNTERS: &str = "{__name__=~\"nginx_upstream_diag_.*(_total|_count|_sum|_bucket)\"}";

/// The selector of a metric, so that the result keeps no name.
fn of(name: &str) -> String {
    format!("sum without (__name__) (nginx_upstream_diag_{name}) > 0")
}

/// Waits until Prometheus has exactly what there is.
fn reconcile(world: &World, prometheus: &mut Prometheus) {
    let wanted = &world.wanted;
    for (name, vector) in [
        // What a request does last comes last.
        ("outcomes_total", &wanted.outcomes),
        ("failures_total", &wanted.failures),
        ("requests_total", &wanted.requests),
        ("connect_seconds_count", &wanted.connects),
        ("connect_seconds_bucket{le=\"+Inf\"}", &wanted.connects),
        ("response_header_bytes_count", &wanted.headers),
        ("response_header_bytes_bucket{le=\"+Inf\"}", &wanted.headers),
    ] {
        prometheus.wait(&format!("sum without (le) ({})", of(name)), vector);
    }
}

fn without(mut labels: Labels, name: &str) -> Labels {
    labels.remove(name);
    labels
}

/// The same value for either job.
fn by_job(value: f64) -> Vector {
    let labels = |job: &str| [("job".to_owned(), job.to_owned())].into();
    JOBS.iter().map(|(job, _)| (labels(job), value)).collect()
}

/// Guards against metrics that Prometheus does not take, or takes for others than were meant: in
/// either format, whatever stands in a label, while they grow and while nginx reloads.
#[test]
fn prometheus_has_what_happened() {
    let mut world = World::start();
    world.ask(3);
    let mut prometheus = Prometheus::start(world.nginx.port_of(1), &JOBS);
    reconcile(&world, &mut prometheus);
    for more in [1, 4] {
        world.ask(more);
        reconcile(&world, &mut prometheus);
        let old = world.nginx.reload();
        world.nginx.wait_workers_gone(&old);
        prometheus.wait_scrapes();
    }
    world.ask(2);
    reconcile(&world, &mut prometheus);

    // Every scrape came through, in the format that it is to be in.
    assert_eq!(prometheus.query("min by (job) (min_over_time(up[1h]))"), by_job(1.0));
    let errors = prometheus.last_errors();
    assert_eq!(errors.len(), JOBS.len());
    assert!(errors.values().all(String::is_empty), "{errors:#?}");
    let scrapes = world.nginx.lines("scrapes.log");
    for wanted in [
        "/scrape 200 application/openmetrics-text; version=1.0.0; charset=utf-8",
        "/text 200 text/plain; version=0.0.4; charset=utf-8",
    ] {
        let path = wanted.split(' ').next().unwrap_or_default();
        let of_job: Vec<&String> = scrapes.iter().filter(|line| line.starts_with(path)).collect();
        assert!(of_job.len() > 4 && of_job.iter().all(|line| *line == wanted), "{of_job:#?}");
    }

    // Every sample of every scrape was taken, and either format tells the same.
    assert_eq!(prometheus.refused(), [""; 0]);
    assert_eq!(prometheus.complaints(), [""; 0]);
    let scraped = prometheus.query("sum by (job) (scrape_samples_scraped)");
    assert_eq!(prometheus.query("count by (job) ({__name__=~\"nginx_.*\"})"), scraped);
    let [openmetrics, text] = JOBS.map(|(job, _)| {
        let mut all = prometheus.query(&format!("{{__name__=~\"nginx_.*\", job=\"{job}\"}}"));
        // Of the worker that was asked, which can be another one.
        all.retain(|labels, _| !labels["__name__"].ends_with("worker_connections"));
        all.into_iter().map(|(labels, value)| (without(labels, "job"), value)).collect::<Vector>()
    });
    assert_eq!(openmetrics, text);

    // A counter that was reset starts from 0 again, which a reload must not look like.
    let counters = prometheus.query(&format!("count by (__name__) ({COUNTERS})"));
    assert!(counters.len() > 4, "{counters:#?}");
    for name in counters.keys().map(|labels| &labels["__name__"]) {
        let resets = prometheus.query(&format!("sum by (job) (resets({name}[1h]))"));
        assert_eq!(resets, by_job(0.0), "{name}");
    }
    world.nginx.stop();
}

/// Guards against metrics that go against the conventions of Prometheus: names, units, help.
#[test]
fn promtool_has_no_complaints() {
    let mut world = World::start();
    world.ask(1);
    let text = world.nginx.connect_to(2).get("/").text();
    assert!(text.contains("# HELP") && !text.contains("# EOF"), "{text}");
    assert_eq!(check(&text), (Some(0), String::new()));
    // It does look: this name is that of a counter and the metric is none.
    let (status, complaint) = check("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n");
    assert!(status != Some(0) && complaint.contains("a_total"), "{status:?} {complaint}");
    world.nginx.stop();
}

/// What `promtool check metrics` has to say about a text, and its exit status.
fn check(text: &str) -> (Option<i32>, String) {
    let mut promtool = command("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("promtool of the package prometheus: {e}"));
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write");
    let output = promtool.wait_with_output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
