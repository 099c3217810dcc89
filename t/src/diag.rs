//! What the module says about a request, and whether it says the same
//! everywhere: in its log, in its variables and in the status document.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::client::Response;
use crate::nginx::{Conf, Nginx};
use crate::schema::check_record;
pub use crate::status::{counts, peer, status, status_at, status_in};

/// The variables with one value, by the names of their keys in the record;
/// `proxy_status` has none.
const VERDICT: [&str; 7] =
    ["cause", "phase", "outcome", "origin", "summary", "advice", "proxy_status"];

/// The variables with one value for each attempt.
const ATTEMPTS: [&str; 7] =
    ["causes", "errno", "errname", "connect_time", "header_size", "reused", "peer_state"];

/// A configuration that diagnoses every request of this server: the records
/// in `diag.json`, all variables in `access.log` and some in the response, and
/// the status document on the second server.
pub fn conf(server: impl Into<String>) -> Conf {
    let mut format = r#"{"request_id":"$request_id","uri":"$uri","status":"$status""#.to_owned();
    format.push_str(r#","addr":"$upstream_addr","json":"$upstream_diag_json""#);
    for name in VERDICT.iter().chain(&ATTEMPTS) {
        let _ = write!(format, r#","{name}":"$upstream_diag_{name}""#);
    }
    format.push('}');
    Conf::new(server)
        .server("access_log off; location / { upstream_diag_status json; }")
        .access_log(format)
        .http("upstream_diag on; upstream_diag_log {prefix}/diag.json;")
        .http("add_header X-Cause $upstream_diag_cause always;")
        .http("add_header X-Causes $upstream_diag_causes always;")
        .http("add_header X-Outcome $upstream_diag_outcome always;")
        .http("add_header Proxy-Status $upstream_diag_proxy_status always;")
}

/// What is known of one diagnosed request.
#[derive(Debug)]
pub struct Seen {
    /// The line in the module's log.
    pub record: Value,
    /// The variables when the request was logged.
    pub variables: Map<String, Value>,
}

/// Waits for record `n` (from 0), and for the line of the access log that
/// belongs to it.
///
/// # Panics
/// When one of them does not come, or when they contradict each other.
pub fn seen(nginx: &Nginx, n: usize) -> Seen {
    let seen = found(nginx, n);
    assert!(seen.record["subrequest"].is_null(), "a subrequest: {:#}", seen.record);
    seen.check();
    seen
}

/// [`seen`] for a subrequest: the variables are those of its main request, which are its own
/// only where they say so ([`Seen::explains`]).
///
/// # Panics
/// When it is none, or the record or the line does not come.
pub fn subrequest(nginx: &Nginx, n: usize) -> Seen {
    let seen = found(nginx, n);
    assert_eq!(seen.record["subrequest"], true, "{:#}", seen.record);
    seen
}

/// Record `n` with the latest line of its request, which is the main request's.
fn found(nginx: &Nginx, n: usize) -> Seen {
    let record = nginx.wait_json_lines("diag.json", n + 1).swap_remove(n);
    check_record(&record);
    let id = &record["request_id"];
    assert!(id.is_string(), "no request_id: {record}");
    let find = || nginx.json_log("access.log").into_iter().rfind(|line| &line["request_id"] == id);
    let line = crate::eventually("the line in the access log", crate::client::TIMEOUT, find);
    let Value::Object(variables) = line else { panic!("not an object: {line}") };
    Seen { record, variables }
}

impl Seen {
    /// A variable of the access log, by its name without `upstream_diag_`.
    pub fn variable(&self, name: &str) -> &str {
        self.variables[name].as_str().unwrap_or_else(|| panic!("{name} is no string"))
    }

    /// Attempt `n` of the record.
    pub fn attempt(&self, n: usize) -> &Value {
        &self.record["attempts"][n]
    }

    /// Checks the cause and the rest of the record; see [`matches`].
    ///
    /// # Panics
    /// With what differs.
    pub fn expect(&self, cause: &str, rest: &Value) -> &Self {
        assert_eq!(self.record["cause"], cause, "{:#}", self.record);
        let differences = differences(rest, &self.record);
        assert!(differences.is_empty(), "{differences:#?} in {:#}", self.record);
        self
    }

    /// Checks that the variables had the same values when the response's
    /// header was made.
    ///
    /// # Panics
    /// When one had not.
    pub fn in_header(&self, response: &Response) -> &Self {
        for (header, name) in [
            ("X-Cause", "cause"),
            ("X-Causes", "causes"),
            ("X-Outcome", "outcome"),
            ("Proxy-Status", "proxy_status"),
        ] {
            // nginx sends no header with an empty value.
            let value = response.header(header).unwrap_or_default();
            assert_eq!(value, self.variable(name), "{header} in {response:?}");
        }
        self
    }

    /// Checks that the main request has its variables from this subrequest.
    ///
    /// # Panics
    /// When it has others.
    pub fn explains(&self) -> &Self {
        self.check_verdict();
        for name in ATTEMPTS {
            // What they line up with is the subrequest's own $upstream_addr.
            assert_eq!(values(self.variable(name)).0, self.attempt_values(name), "{name}");
        }
        self
    }

    /// Checks that the main request has no variables: nothing is wrong with it.
    ///
    /// # Panics
    /// When it has one.
    pub fn explains_nothing(&self) -> &Self {
        let empty = Value::Object(self.variables.clone());
        assert_empty(&empty);
        self
    }

    /// Checks what holds for every record: that the variables say what it says.
    fn check(&self) {
        self.check_verdict();
        // "009" for a response without a status line.
        assert_eq!(self.variable("status").parse().ok(), self.record["status"].as_u64());
        self.check_attempts();
    }

    fn check_verdict(&self) {
        let record = &self.record;
        for name in VERDICT {
            let value = match name {
                "proxy_status" => continue,
                _ => record[name].as_str().unwrap_or_default(),
            };
            assert_eq!(self.variable(name), value, "{name} in {record:#}");
            assert!(!value.is_empty() || name == "phase", "no {name} in {record:#}");
        }
        let cause = self.variable("cause");
        assert!(self.variable("summary").ends_with('.'), "{}", self.variable("summary"));
        let (member, details) = (self.variable("proxy_status"), format!("details=\"{cause}\""));
        assert!(member.starts_with("nginx; ") && member.ends_with(&details), "{member}");
        let error = format!("; error={};", record["proxy_error"].as_str().unwrap_or_default());
        assert!(cause == "upstream_response" || member.contains(&error), "{member}");

        let mut json: Value = serde_json::from_str(self.variable("json")).expect("a JSON variable");
        for time in ["time", "request_time"] {
            assert!(!json[time].is_null(), "no {time} in {json:#}");
            json[time] = record[time].clone();
        }
        assert_eq!(&json, record);
    }

    fn attempts(&self) -> &[Value] {
        self.record["attempts"].as_array().expect("attempts")
    }

    /// What a variable has to say. Without any attempt there is one value, an empty one.
    fn attempt_values(&self, name: &str) -> Vec<String> {
        match self.attempts() {
            [] => vec![String::new()],
            attempts => attempts.iter().map(|attempt| attempt_value(attempt, name)).collect(),
        }
    }

    fn check_attempts(&self) {
        let attempts = self.attempts();
        let (addrs, separators) = values(self.variable("addr"));
        for name in ATTEMPTS {
            let (found, between) = values(self.variable(name));
            assert_eq!(between, separators, "{name} beside {addrs:?}: {found:?}");
            assert_eq!(found, self.attempt_values(name), "{name} in {:#}", self.record);
        }
        // nginx knows no address where it made no connection; there is one attempt all the same.
        if addrs != [""] {
            let peers: Vec<&str> =
                attempts.iter().map(|a| a["peer"].as_str().unwrap_or_default()).collect();
            assert_eq!(addrs, peers);
        }
    }
}

/// The values of a variable with one for each attempt, and what is between them.
fn values(text: &str) -> (Vec<&str>, Vec<&'static str>) {
    let (mut found, mut between) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some((at, separator)) =
        [", ", " : "].iter().filter_map(|s| Some((rest.find(s)?, *s))).min()
    {
        found.push(&rest[..at]);
        between.push(separator);
        rest = &rest[at + separator.len()..];
    }
    found.push(rest);
    (found, between)
}

/// What a variable has to say about an attempt of the record.
fn attempt_value(attempt: &Value, name: &str) -> String {
    let value = match name {
        "causes" => &attempt["cause"],
        "header_size" => &attempt["header"]["size"],
        "peer_state" => &attempt["peer_state"]["state"],
        _ => &attempt[name],
    };
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(is) => u8::from(*is).to_string(),
        // Times have milliseconds, everything else is whole.
        Value::Number(n) => match n.as_u64() {
            Some(n) => n.to_string(),
            None => format!("{:.3}", n.as_f64().unwrap_or(f64::NAN)),
        },
        _ => panic!("{name} is {value}"),
    }
}

/// Where a value differs from what is wanted. An object has the wanted keys
/// and may have others, one that is wanted to be null is not there, and an
/// array is as long as wanted.
pub fn differences(wanted: &Value, got: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", wanted, got, &mut found);
    found
}

fn compare(path: &str, wanted: &Value, got: &Value, found: &mut Vec<String>) {
    match (wanted, got) {
        (Value::Object(keys), Value::Object(_)) => {
            for (key, wanted) in keys {
                compare(&format!("{path}.{key}"), wanted, &got[key], found);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (i, (wanted, got)) in items.iter().zip(others).enumerate() {
                compare(&format!("{path}[{i}]"), wanted, got, found);
            }
        }
        _ if wanted == got => {}
        _ => found.push(format!("{path}: wanted {wanted}, got {got}")),
    }
}

/// Checks that a number lies in a range.
///
/// # Panics
/// When it does not, or is none.
pub fn assert_in(value: &Value, range: Range<f64>) {
    assert!(value.as_f64().is_some_and(|n| range.contains(&n)), "{value} is not in {range:?}");
}

/// Checks that the status document agrees with the log, that a request
/// without a record has no variables, and ends nginx.
///
/// # Panics
/// When that is not so.
pub fn finish(nginx: &Nginx) {
    let records = nginx.json_log("diag.json");
    let status = status(nginx);
    let mut counts = Map::new();
    for record in &records {
        for key in ["cause", "outcome"] {
            let count = counts.entry(record[key].as_str().unwrap_or_default()).or_insert(0.into());
            *count = (count.as_u64().unwrap_or(0) + 1).into();
        }
    }
    let totals = &status["totals"];
    for (name, count) in &counts {
        let total = if totals[name].is_null() { &totals["causes"][name] } else { &totals[name] };
        assert_eq!(total, count, "{name} in {status:#}");
    }
    let sum = |v: &Value| -> u64 {
        // How many requests there were counts the good ones too.
        let all = v.as_object().into_iter().flatten().filter(|(name, _)| *name != "requests");
        all.filter_map(|(_, count)| count.as_u64()).sum()
    };
    let wanted = u64::try_from(records.len()).expect("few records");
    assert_eq!((sum(totals), sum(&totals["causes"])), (wanted, wanted), "{status:#}");
    let newest_first: Vec<&Value> = records.iter().rev().collect();
    let recent: Vec<&Value> = status["recent"].as_array().expect("recent").iter().collect();
    assert_eq!(recent, newest_first);

    for line in nginx.json_log("access.log") {
        if !records.iter().any(|record| record["request_id"] == line["request_id"]) {
            assert_empty(&line);
        }
    }
    nginx.stop();
}

/// Checks that all variables in a line of the access log are empty.
///
/// # Panics
/// When one is not.
pub fn assert_empty(line: &Value) {
    for name in VERDICT.iter().chain(&ATTEMPTS).chain(&["json"]) {
        assert_eq!(line[name], "", "{name} without a failure: {line:#}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{differences, values};

    /// Guards against a comparison that lets a wrong record through.
    #[test]
    fn differences_are_found() {
        let got = json!({"a": 1, "b": [{"c": "x", "d": 2}], "e": false});
        for same in [json!({}), json!({"a": 1, "f": null}), json!({"b": [{"c": "x"}]})] {
            assert_eq!(differences(&same, &got), [""; 0]);
        }
        for other in [
            json!({"a": 2}),
            json!({"a": null}),
            json!({"f": 1}),
            json!({"b": []}),
            json!({"b": [{}, {}]}),
            json!({"b": [{"c": "y"}]}),
            json!({"e": {}}),
        ] {
            assert_eq!(differences(&other, &got).len(), 1, "{other}");
        }
    }

    /// Guards against values that are not lined up counting as such.
    #[test]
    fn values_are_told_from_separators() {
        assert_eq!(values(""), (vec![""], vec![]));
        let addrs = values("[::1]:1, unix:/a : 127.0.0.1:2");
        assert_eq!(addrs, (vec!["[::1]:1", "unix:/a", "127.0.0.1:2"], vec![", ", " : "]));
        assert_eq!(values("-, - : 111"), (vec!["-", "-", "111"], vec![", ", " : "]));
    }
}
