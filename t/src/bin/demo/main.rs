//! `make demo`: a real nginx with the module in front of upstreams that are
//! really broken, and what is said about each of them.
//!
//! On a terminal nginx stays until Ctrl-C, to be asked by hand. Otherwise this
//! ends by itself, with status 0 if all was as expected.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a demo that cannot go on should say so at once"
)]

mod cases;
mod evidence;
mod page;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use t::{Client, Nginx, Response, poll};

use cases::{Case, Site};
use page::Page;

/// How long lines may take to be in the logs.
const SOON: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // Ctrl-C must not end this before nginx and the files are gone.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("signal handlers");
    let started = Instant::now();
    let site = Site::new();
    let nginx = Nginx::start(site.conf());
    let mut page = Page::new(nginx.port());
    page.header(&ask(&nginx, "GET", "upstream_diag"), site.cases.len());

    let mut seen = Vec::new();
    for (at, case) in site.cases.iter().enumerate() {
        let answer = run(&nginx, case);
        // It has ended nginx too.
        if signals.pending().next().is_some() {
            page.say("interrupted");
            return ExitCode::from(130);
        }
        let (shown, differences) = match answer {
            Ok(shown) => {
                let differences = shown.differences(case);
                (shown, differences)
            }
            Err(e) => (Shown::default(), vec![e]),
        };
        page.case(at + 1, case, &shown, &differences);
        seen.push((case, shown, differences));
    }
    let counted = count(&nginx);
    page.overview(&seen, &counted);
    let differences = seen.iter().map(|(_, _, differences)| differences.len()).sum::<usize>()
        + usize::from(counted.is_err());
    page.end(&nginx, started.elapsed(), differences);
    if io::stdout().is_terminal() {
        signals.forever().next();
        page.say("\nending nginx and removing its files");
    }
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the status location has counted, in words.
type Counted = Result<String, String>;

/// Asks the status location, and compares it with the log.
fn count(nginx: &Nginx) -> Counted {
    let response = ask(nginx, "GET", "upstream_diag")?;
    let status: Value =
        serde_json::from_slice(&response.body).map_err(|e| format!("status: {e}"))?;
    let log = nginx.lines("upstream_diag.json");
    let mut counts = Vec::new();
    for outcome in ["failed", "masked", "truncated", "passed", "aborted"] {
        let counted = status["totals"][outcome].as_u64();
        let key = format!("\"outcome\":\"{outcome}\"");
        let logged = log.iter().filter(|line| line.contains(&key)).count();
        if counted != u64::try_from(logged).ok() {
            return Err(format!("status: {counted:?} {outcome}, but {logged} in the log"));
        }
        counts.push(format!("{logged} {outcome}"));
    }
    Ok(counts.join(", "))
}

/// What came of one request.
#[derive(Default)]
struct Shown {
    /// What the client got.
    response: Option<Response>,
    /// The line of the access log.
    nginx: Value,
    /// The line of the module's log.
    module: Option<Value>,
}

impl Shown {
    /// What is not as the case says.
    fn differences(&self, case: &Case) -> Vec<String> {
        let mut differences = Vec::new();
        let status = self.response.as_ref().map_or(0, |response| response.status);
        if status != case.status {
            differences.push(format!("status: expected {}, got {status}", case.status));
        }
        match &self.module {
            None if case.expected.is_empty() => {}
            None => differences.push("no line in upstream_diag_log".to_owned()),
            Some(record) if case.expected.is_empty() => {
                differences.push(format!("a line in upstream_diag_log: {record}"));
            }
            Some(record) => {
                differences.extend(case.expected.iter().filter_map(|(pointer, expected)| {
                    let got = record.pointer(pointer).unwrap_or(&Value::Null);
                    (got != expected).then(|| format!("{pointer}: expected {expected}, got {got}"))
                }));
            }
        }
        differences
    }
}

/// Sends the requests of a case; shows the last one.
fn run(nginx: &Nginx, case: &Case) -> Result<Shown, String> {
    if let Some(pause) = case.before {
        logged(nginx, || ask(nginx, "GET", case.name))?;
        // The connection becomes idle, as between two requests of a quiet hour.
        std::thread::sleep(pause);
    }
    logged(nginx, || ask(nginx, case.method, case.name))
}

/// Asks, and collects what was logged of it.
fn logged(nginx: &Nginx, ask: impl FnOnce() -> Result<Response, String>) -> Result<Shown, String> {
    let lines = nginx.lines("access.log").len();
    let response = ask()?;
    // The module's line is written before that of the access log.
    let line = poll(SOON, || nginx.lines("access.log").get(lines).cloned());
    let line = line.ok_or("no line in the access log")?;
    let line: Value = serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))?;
    let mut record = None;
    for text in nginx.lines("upstream_diag.json") {
        let found: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        if found.get("request_id") == line.get("id") {
            record = Some(found);
        }
    }
    Ok(Shown { response: Some(response), nginx: line, module: record })
}

/// A request; unlike the harness's own it survives an nginx that has ended.
fn ask(nginx: &Nginx, method: &str, name: &str) -> Result<Response, String> {
    let mut client = Client::connect(&nginx.addr(0)).map_err(|e| e.to_string())?;
    let body = if method == "POST" { "item=42" } else { "" };
    let request = format!(
        "{method} /{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.try_request(request.as_bytes()).map_err(|e| format!("{method} /{name}: {e}"))
}
