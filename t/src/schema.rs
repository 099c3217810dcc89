//! The JSON Schemas in docs/, to check what the module writes against what is
//! promised to those who read it.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static RECORD: LazyLock<Validator> =
    LazyLock::new(|| compile(include_str!("../../docs/record.schema.json")));

static STATUS: LazyLock<Validator> =
    LazyLock::new(|| compile(include_str!("../../docs/status.schema.json")));

/// Checks a record: a line of the module's log, or what the variable holds.
///
/// # Panics
/// With everything that is wrong.
pub fn check_record(record: &Value) {
    check(&RECORD, record);
}

/// Checks the status document, and the records in it.
///
/// # Panics
/// With everything that is wrong.
pub fn check_status(document: &Value) {
    check(&STATUS, document);
}

fn compile(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
    // The draft checks no format unless it is asked to.
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap_or_else(|error| panic!("not a schema: {error}"))
}

fn check(validator: &Validator, value: &Value) {
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?} in {value:#}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{RECORD, STATUS, check_record, check_status};

    /// A record with every key there is.
    fn record() -> Value {
        // As text: the macro does not reach that deep.
        let text = r#"{
            "v": 1, "time": "2026-11-21T01:45:45.123+00:00", "pid": 9446, "connection": 17,
            "request_id": "0123456789abcdef0123456789abcdef", "client": "192.0.2.7",
            "server": "example.com", "host": "api.example.com", "method": "GET",
            "uri": "/api/users", "location": "/api/", "subrequest": true, "status": 502,
            "outcome": "failed", "origin": "nginx", "cause": "header_too_big", "phase": "header",
            "proxy_error": "http_response_header_section_size", "summary": "It is.",
            "advice": "Do.",
            "findings": [{"code": "buffer_too_small", "confidence": "certain", "text": "It is.",
                "evidence": {"size": 9043}}],
            "upstream": "backend", "module": "proxy", "request_time": 0.004, "suppressed": 3,
            "attempts": [{
                "peer": "127.0.0.1:9101", "cause": "header_too_big", "phase": "header",
                "status": 502, "errno": 104, "errname": "ECONNRESET",
                "message": "upstream sent too big header", "connect_time": 0.0, "elapsed": 0.004,
                "reused": false, "bytes_sent": 120, "bytes_received": 4096,
                "header": {"size": 9043, "exact": true, "limit": 4096,
                    "directive": "proxy_buffer_size"},
                "first_bytes": "SSH-2.0", "stderr": "oops",
                "tls": {"verify": "certificate has expired", "alert": 40},
                "tcp": {"state": "CLOSE_WAIT", "rtt": 0.000039, "retransmits": 0, "idle": 1.752,
                    "since_sent": 0.052},
                "peer_state": {"state": "up", "fails": 1, "max_fails": 1, "fail_timeout": 10,
                    "unavailable_for": 9.8, "down": false, "backup": false, "weight": 1,
                    "conns": 0, "max_conns": 0},
                "history": {"ok": 120, "failed": 3, "last_ok": 12.4, "consecutive_failures": 1}
            }, {"status": 200}],
            "peers": [{"peer": "127.0.0.1:9101", "state": "unavailable", "unavailable_for": 6.8,
                "backup": true, "last_cause": "connection_refused", "last_failed": 3.2}]
        }"#;
        serde_json::from_str(text).unwrap()
    }

    /// A document with every key there is.
    fn status() -> Value {
        let usage = json!({"used": 1, "limit": 2});
        let mut causes = serde_json::Map::new();
        let schema: Value =
            serde_json::from_str(include_str!("../../docs/status.schema.json")).unwrap();
        for cause in schema["$defs"]["cause"]["enum"].as_array().unwrap() {
            causes.insert(cause.as_str().unwrap().to_owned(), 0.into());
        }
        let outcomes = json!({"failed": 1, "masked": 0, "truncated": 0, "passed": 0, "aborted": 0});
        let mut totals = outcomes.clone();
        totals["requests"] = 9.into();
        totals["causes"] = causes.into();
        let mut upstream = outcomes;
        let histogram =
            json!({"bounds": [0.001, 0.5], "counts": [1, 2, 0], "count": 3, "sum": 0.25});
        upstream["connect_seconds"] = histogram.clone();
        upstream["header_bytes"] = histogram;
        upstream["peers"] = json!([{
            "peer": "127.0.0.1:9101", "state": "unavailable", "unavailable_for": 7,
            "backup": true, "requests": 3, "ok": 1, "failed": 1, "aborted": 1,
            "causes": {"connection_refused": 1}, "last_ok": 1.5, "last_failed": 0.5,
            "last_cause": "connection_refused", "consecutive_failures": 1,
            "taken_out": {"cause": "connection_refused", "ago": 3}
        }]);
        json!({
            "v": 1, "time": "2026-11-21T01:45:45.123-03:30",
            "module": {"name": "ngx_http_upstream_diag_module", "version": "0.1.0"},
            "nginx": {"version": "1.28.3"},
            "worker": {"pid": 17, "connections": usage, "files": usage, "accepted": 5,
                "handled": 4, "not_handled": 1},
            "zone": {"bytes": 2_097_152, "used": 9, "peers": usage, "upstreams": usage,
                "records": 5},
            "dropped": {"records": 0, "lines": 0, "suppressed": 0, "peers": 0},
            "totals": totals, "upstreams": {"": upstream.clone(), "backend": upstream},
            "timeline": {"step": 10, "start": 1_795_225_540, "steps": 3,
                "causes": {"connection_refused": [0, 2, 1]}},
            "recent": [record()]
        })
    }

    /// Calls a function with each key there is, and the path to its object.
    fn each_key(path: &str, value: &Value, visit: &mut dyn FnMut(&str, &str)) {
        let items: Vec<(String, &Value)> = match value {
            Value::Object(keys) => keys.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
            }
            _ => return,
        };
        for (key, inside) in items {
            if value.is_object() {
                visit(path, &key);
            }
            each_key(&format!("{path}/{key}"), inside, visit);
        }
    }

    /// Guards against a schema that refuses what is promised, or that is none.
    #[test]
    fn what_is_promised_is_valid() {
        check_record(&record());
        check_status(&status());
        let mut least = record();
        let keys = least.as_object_mut().unwrap();
        for key in ["phase", "location", "upstream", "module", "host", "request_id", "findings"] {
            keys.remove(key);
        }
        keys["cause"] = "local_return".into();
        keys["origin"] = "config".into();
        keys["attempts"] = json!([]);
        check_record(&least);
    }

    /// Guards against a keyword that is misspelt, or that does not reach where it should: then the
    /// schema takes anything. No key there is may have a value of another type, or be accompanied
    /// by one that is not known.
    #[test]
    fn what_is_not_promised_is_not_valid() {
        for (good, validator) in [(record(), &*RECORD), (status(), &*STATUS)] {
            let mut tried = 0;
            each_key("", &good, &mut |path, key| {
                // What a finding was concluded from is its own.
                if path.ends_with("/evidence") {
                    return;
                }
                tried += 1;
                let with = |key: &str, value: Value| {
                    let mut changed = good.clone();
                    changed.pointer_mut(path).unwrap()[key] = value;
                    validator.is_valid(&changed)
                };
                assert!(!with(key, Value::Null), "null for {path}/{key}");
                assert!(!with(key, json!([[]])), "an array for {path}/{key}");
                // Upstreams have names of their own.
                let open = path.ends_with("upstreams");
                assert!(!with("unknown_key", 1.into()) || open, "a key beside {path}/{key}");
            });
            assert!(tried > 70, "{tried}");
        }
    }

    /// Guards against a value out of its set, and one that is out of its range.
    #[test]
    fn values_out_of_their_sets_are_found() {
        for (path, wrong) in [
            ("/v", json!(2)),
            ("/time", json!("2026-11-21T01:45:45+00:00")),
            ("/time", json!("2026-13-21T01:45:45.123+00:00")),
            ("/request_id", json!("0123456789ABCDEF0123456789abcdef")),
            ("/subrequest", json!(false)),
            ("/status", json!(1000)),
            ("/status", json!(-1)),
            ("/outcome", json!("ok")),
            ("/origin", json!("client")),
            ("/cause", json!("Unknown")),
            ("/phase", json!("read")),
            ("/proxy_error", json!("header_too_big")),
            ("/summary", json!("")),
            ("/request_time", json!(-0.001)),
            ("/request_time", json!("0.004")),
            ("/suppressed", json!(0.5)),
            ("/attempts", json!([])),
            ("/peers", json!([])),
            ("/findings/0/code", json!("guess")),
            ("/findings/0/confidence", json!("maybe")),
            ("/attempts/0/errname", json!("reset")),
            ("/attempts/0/tls/alert", json!(256)),
            ("/attempts/0/tcp/state", json!("closed")),
            ("/attempts/0/peer_state/state", json!("draining")),
            ("/attempts/1", json!({"phase": "header"})),
            ("/attempts/1", json!({"errname": "EPERM"})),
            ("/peers/0/state", json!("")),
        ] {
            let mut record = record();
            *record.pointer_mut(path).unwrap() = wrong.clone();
            assert!(!RECORD.is_valid(&record), "{path}: {wrong}");
            let mut status = status();
            status["recent"][0] = record;
            assert!(!STATUS.is_valid(&status), "recent{path}: {wrong}");
        }
        let mut own = record();
        own["cause"] = "cached_error".into();
        assert!(!RECORD.is_valid(&own), "no upstream was asked, and there is a phase");
        let mut nowhere = record();
        nowhere.as_object_mut().unwrap().remove("location");
        assert!(!RECORD.is_valid(&nowhere), "it is known where an upstream failed");
    }

    /// Guards against a key that may go missing unnoticed.
    #[test]
    fn what_has_to_be_there_is_missed() {
        for path in [
            "",
            "/module",
            "/nginx",
            "/worker/connections",
            "/worker/files",
            "/zone",
            "/zone/peers",
            "/dropped",
            "/totals",
            "/totals/causes",
            "/upstreams/backend/connect_seconds",
            "/upstreams/backend/peers/0/taken_out",
            "/timeline",
            "/recent/0/findings/0",
            "/recent/0/attempts/0/peer_state",
        ] {
            for key in status().pointer(path).unwrap().as_object().unwrap().keys() {
                let mut changed = status();
                changed.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(key);
                let optional = matches!(key.as_str(), "evidence" | "unavailable_for");
                assert!(!STATUS.is_valid(&changed) || optional, "without {path}/{key}");
            }
        }
    }
}
