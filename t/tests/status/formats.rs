//! In which format the answer comes.

use t::Nginx;

use super::{assert_not_kept, conf};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What Prometheus 2 sends.
const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// What Prometheus 3 sends, with native histograms on.
const PROMETHEUS_3: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
    encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
    escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// What a browser sends.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,\
    */*;q=0.8";

/// Asks with these `Accept` headers, and checks what comes.
fn is(nginx: &Nginx, path: &str, accept: &[&str], content_type: &str) {
    let headers: String = accept.iter().map(|value| format!("Accept: {value}\r\n")).collect();
    let response = nginx.get_with(path, &headers);
    assert_eq!(response.status, 200, "{path} {accept:?}");
    assert_eq!(response.header("Content-Type"), Some(content_type), "{path} {accept:?}");
    assert_not_kept(&response);
    let text = response.text();
    let (start, end) = match content_type {
        JSON => ("{\"v\":1,", "}\n"),
        TEXT => ("# HELP ", "\n"),
        _ => ("# HELP ", "\n# EOF\n"),
    };
    assert!(text.starts_with(start) && text.ends_with(end), "{path} {accept:?}: {text}");
    assert_eq!(text.contains("# EOF"), content_type == OPEN, "{path} {accept:?}: {text}");
}

/// Guards against a scraper that gets JSON, a person who gets metrics, and a header that is taken
/// for something it does not say.
#[test]
fn what_the_client_accepts() {
    let nginx = Nginx::start(conf(""));
    is(&nginx, "/status", &[], JSON);
    for (accept, content_type) in [
        // curl.
        ("*/*", JSON),
        (PROMETHEUS_2, OPEN),
        (PROMETHEUS_3, OPEN),
        (BROWSER, JSON),
        ("text/html", JSON),
        ("text/plain", TEXT),
        ("text/plain; version=0.0.4", TEXT),
        ("TEXT/Plain", TEXT),
        ("text/*", TEXT),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPEN),
        ("application/json", JSON),
        ("application/json;charset=utf-8", JSON),
        ("application/*", JSON),
        // What is named first, of what is liked equally.
        ("text/plain, application/json", TEXT),
        ("application/json, text/plain", JSON),
        // What is liked more.
        ("application/json;q=0.4, text/plain;q=0.5", TEXT),
        ("text/plain;q=0.5, application/json;q=0.501", JSON),
        ("text/plain;q=0.999, application/openmetrics-text", OPEN),
        ("*/*;q=0.1, text/plain;q=0.05", JSON),
        ("text/*;q=0.3, text/plain;q=0.9, */*;q=0.5", TEXT),
        // What is ruled out.
        ("application/json;q=0, */*", TEXT),
        ("application/json;q=0.000, text/plain;q=0, */*", OPEN),
        ("application/json;q=0, text/plain", TEXT),
        // Nothing that there is: better something than an error.
        ("image/png", JSON),
        ("*/*;q=0", JSON),
        ("text/plain;q=0", JSON),
        // What cannot be read counts for nothing, and does not hide what can.
        ("", JSON),
        (";;;,,,", JSON),
        ("text", JSON),
        ("text/plain;q=high", JSON),
        ("text/plain;q=2", JSON),
        ("text/plain;q=-1", JSON),
        ("text/plain;q=0.0001", JSON),
        ("/, text/, /plain, text/plain", TEXT),
        ("\"text/plain\"", JSON),
        ("a/b;c=\",text/plain;\", image/png", JSON),
        ("a/b;c=\"\\\",text/plain\", image/png", JSON),
        (" \t text/plain \t ; \t q=1 ", TEXT),
    ] {
        is(&nginx, "/status", &[accept], content_type);
    }
    let long = format!("{}text/plain", "a/b;c=d;q=0.5,".repeat(400));
    is(&nginx, "/status", &[&long], TEXT);
    let garbage = b"GET /status HTTP/1.1\r\nHost: x\r\nAccept: \xff\xfe/\x80;q=\xc3,\"\r\n\r\n";
    let response = nginx.request(garbage);
    assert_eq!((response.status, response.header("Content-Type")), (200, Some(JSON)));
}

/// Guards against half of a header that came in two lines deciding: they are one list.
#[test]
fn a_header_in_two_lines() {
    let nginx = Nginx::start(conf(""));
    is(&nginx, "/status", &["image/png", "text/plain"], TEXT);
    is(&nginx, "/status", &["text/plain;q=0.1", "application/json;q=0.2"], JSON);
}

/// Guards against a client that can have another format than the configuration says, or than the
/// query says.
#[test]
fn what_comes_before_what() {
    let nginx = Nginx::start(conf(
        "location = /json { upstream_diag_status json; }
         location = /prometheus { upstream_diag_status prometheus; }",
    ));
    for (path, accept, content_type) in [
        ("/json", "text/plain", JSON),
        ("/json", PROMETHEUS_2, JSON),
        ("/json?format=prometheus", "text/plain", JSON),
        ("/json?format=json", "", JSON),
        // Between the two formats of the metrics the client may choose.
        ("/prometheus", "", TEXT),
        ("/prometheus", "*/*", TEXT),
        ("/prometheus", PROMETHEUS_2, OPEN),
        ("/prometheus", "application/json", TEXT),
        ("/prometheus?format=json", "application/json", TEXT),
        ("/prometheus?format=prometheus", "text/plain", TEXT),
        ("/status?format=json", "text/plain", JSON),
        ("/status?format=json", PROMETHEUS_3, JSON),
        ("/status?format=prometheus", "application/json", TEXT),
        ("/status?format=prometheus", BROWSER, TEXT),
        ("/status?format=prometheus", "application/openmetrics-text", OPEN),
        ("/status?format=prometheus", "", TEXT),
    ] {
        let accept: &[&str] = if accept.is_empty() { &[] } else { &[accept] };
        is(&nginx, path, accept, content_type);
    }
}
