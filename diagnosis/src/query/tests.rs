use super::{Format, Query, QueryError, View, negotiate};
use crate::cause::Cause;

fn ask(args: &str) -> Result<Query, QueryError> {
    negotiate(None, args.as_bytes(), None)
}

fn format(directive: Option<View>, args: &str, accept: &str) -> Format {
    negotiate(directive, args.as_bytes(), Some(accept.as_bytes())).unwrap().format
}

/// Guards against a scraper that gets JSON and a person that gets metrics.
#[test]
fn the_header_decides_where_nothing_else_does() {
    use Format::{Json, OpenMetrics, Prometheus};
    for (accept, wanted) in [
        // Prometheus 2 and 3, curl, a browser.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OpenMetrics,
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            OpenMetrics,
        ),
        ("*/*", Json),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Json),
        ("", Json),
        ("text/plain", Prometheus),
        ("application/json", Json),
        ("Application/OpenMetrics-Text", OpenMetrics),
        ("image/png", Json),
        // Weights before order, order among equals.
        ("text/plain;q=0.3, application/json;q=0.4", Json),
        ("text/plain, application/json", Prometheus),
        ("application/json, text/plain", Json),
        ("text/plain;q=0.3, application/openmetrics-text;q=0.300", Prometheus),
        ("text/html, text/plain;q=0.1", Prometheus),
        // What is named exactly counts before a wildcard, and 0 is a no.
        ("*/*, application/json;q=0.1", Prometheus),
        ("*/*, application/json;q=0, text/plain;q=0", OpenMetrics),
        ("application/json;q=0", Json),
        ("text/*", Prometheus),
        ("application/*", Json),
        ("application/*;q=0.9, text/*", Prometheus),
        // A separator in a quoted string is none.
        (
            "text/plain;a=\",application/json,\";q=0.5, application/openmetrics-text;q=0.4",
            Prometheus,
        ),
        ("text/plain;a=\"\\\";q=0.1\";q=0.9, application/json;q=0.5", Prometheus),
        // What is no range is passed over.
        (
            "text, /, ;, ,, text/plain;q=2, text/plain;q=x, text/plain;q=0.1234, application/json",
            Json,
        ),
        ("text/plain;q=, application/openmetrics-text;q=1.", OpenMetrics),
    ] {
        assert_eq!(format(None, "", accept), wanted, "{accept}");
    }
    let no_text = negotiate(None, b"", Some(b"\xff\x00/\xff, text/plain;q=\xff, text/plain"));
    assert_eq!(no_text.unwrap().format, Prometheus);
    assert_eq!(ask("").unwrap().format, Json);
}

/// Guards against a location set up for Prometheus that anyone can turn into the document with its
/// records, and against the other way round.
#[test]
fn the_directive_comes_first_and_then_the_query() {
    use Format::{Json, OpenMetrics, Prometheus};
    let (json, metrics) = (Some(View::Json), Some(View::Prometheus));
    for (directive, args, accept, wanted) in [
        (json, "format=prometheus", "text/plain", Json),
        (metrics, "format=json", "application/json", Prometheus),
        (None, "format=json", "text/plain", Json),
        (None, "format=prometheus", "application/json", Prometheus),
        // Of the two formats of metrics, the one that the client reads.
        (metrics, "", "application/openmetrics-text", OpenMetrics),
        (None, "format=prometheus", "application/openmetrics-text", OpenMetrics),
        (metrics, "", "text/plain;q=0.5, application/openmetrics-text;q=0.6", OpenMetrics),
        (metrics, "", "*/*", Prometheus),
        (metrics, "", "application/openmetrics-text;q=0, text/plain;q=0", Prometheus),
    ] {
        assert_eq!(format(directive, args, accept), wanted, "{directive:?} {args} {accept}");
    }
}

/// Guards against a filter that is not decoded, or that is decoded twice.
#[test]
fn parameters_are_decoded() {
    let all = ask("upstream=my%20backend+x&peer=%5B%3A%3A1%5D%3A80&cause=unknown&limit=010");
    assert_eq!(
        all.unwrap(),
        Query {
            format: Format::Json,
            upstream: Some("my backend x".into()),
            peer: Some("[::1]:80".into()),
            cause: Some(Cause::Unknown),
            limit: Some(10),
        }
    );
    assert_eq!(ask("upstream=%2541").unwrap().upstream.as_deref(), Some("%41"));
    assert_eq!(ask("upstream=%zz%").unwrap().upstream.as_deref(), Some("%zz%"));
    assert_eq!(ask("peer=").unwrap().peer.as_deref(), Some(""));
    assert_eq!(ask("p%65er=a").unwrap().peer.as_deref(), Some("a"));
    assert_eq!(ask("&&limit=0&").unwrap().limit, Some(0));
    assert_eq!(ask("limit=1;cause=x"), Err(QueryError::BadLimit("1?cause?x".into())));
}

/// Guards against a typo that is passed over: the answer would look complete.
#[test]
fn what_is_not_understood_is_refused() {
    for (args, wanted) in [
        (
            "causes=unknown",
            "unknown parameter 'causes': there are format, upstream, peer, cause, limit",
        ),
        ("unknown", "unknown parameter 'unknown': there are format, upstream, peer, cause, limit"),
        ("=", "unknown parameter '': there are format, upstream, peer, cause, limit"),
        ("format=html", "unknown format 'html': there are json, prometheus"),
        ("format=JSON", "unknown format 'JSON': there are json, prometheus"),
        ("format", "unknown format '': there are json, prometheus"),
        (
            "cause=Unknown",
            "unknown cause 'Unknown': the document lists all of them in totals.causes",
        ),
        ("limit=", "limit '' is not a number of records"),
        ("limit=-1", "limit '-1' is not a number of records"),
        ("limit=%2B1", "limit '?1' is not a number of records"),
        ("limit=1.5", "limit '1.5' is not a number of records"),
        ("limit=99999999999999999999", "limit '99999999999999999999' is not a number of records"),
        ("cause=unknown&cause=unknown", "parameter 'cause' is given twice"),
        ("upstream=a&upstream=", "parameter 'upstream' is given twice"),
    ] {
        let error = ask(args).unwrap_err();
        assert_eq!(error.to_string(), wanted, "{args}");
        let json: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(json, serde_json::json!({"v": 1, "error": wanted}));
    }
    // The directive decides the format, and still a wrong one is told.
    assert!(negotiate(Some(View::Json), b"format=xml", None).is_err());
}

/// Guards against an error message that carries what an attacker put into a link: into a page, a
/// terminal or a log, and at any length.
#[test]
fn what_is_refused_is_not_repeated_as_it_was() {
    for args in [
        "<script>alert(1)</script>=1".to_owned(),
        "format=%1b%5B2J%0d%0aX-Header:%20a%00%22'%5C%26".to_owned(),
        "cause=\u{202e}\u{e9}\u{1f980}%ff%fe%c3".to_owned(),
        "limit=".to_owned() + &"9".repeat(100_000),
        "a".repeat(100_000),
        "&a%".repeat(10_000),
    ] {
        let error = negotiate(None, args.as_bytes(), None).unwrap_err();
        let text = error.to_string();
        let quoted = text.split('\'').nth(1).unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/ ?".contains(c);
        assert!(quoted.chars().all(plain) && quoted.len() <= 43, "{text}");
        assert_eq!(text.matches('\'').count(), 2, "{text}");
        assert!(error.to_json().len() < 200);
    }
    // Any bytes: there is an answer, of whichever kind.
    for byte in 0..=u8::MAX {
        let _ = negotiate(None, &[byte, b'=', byte, b'&', b'%', byte], Some(&[byte, b'/', byte]));
    }
}

/// Guards against a filter that finds what it should not, or not what it should, and against one
/// that looks at all attempts where the verdict is meant.
#[test]
fn records_are_selected() {
    let record = |id: u8, upstream: &str, cause: &str, attempts: &str| {
        format!(r#"{{"v":1,"id":{id}{upstream},"cause":"{cause}","attempts":[{attempts}]}}"#)
    };
    let records = vec![
        record(1, r#","upstream":"a""#, "connection_refused", r#"{"peer":"p"},{"peer":"q"}"#),
        record(2, r#","upstream":"b""#, "unknown", r#"{"peer":"q","cause":"header_too_big"}"#),
        record(3, "", "local_return", ""),
        record(4, r#","upstream":"a""#, "no_live_upstreams", "{}"),
        record(5, r#","upstream":"a \"\u00e9\"""#, "unknown", r#"{"peer":"unix:/\t"}"#),
        r#"{"v":1,"upstream":"a","cause":"unknown","attempts":[{"peer":"q"#.to_owned(),
    ];
    let bytes: Vec<&[u8]> = records.iter().map(String::as_bytes).collect();
    for (args, wanted) in [
        ("upstream=a", vec![1, 4]),
        ("upstream=", vec![3]),
        ("upstream=A", vec![]),
        ("upstream=a+%22%C3%A9%22", vec![5]),
        ("peer=q", vec![1, 2]),
        ("peer=unix:/%09", vec![5]),
        ("peer=", vec![4]),
        ("cause=unknown", vec![2, 5]),
        ("cause=header_too_big", vec![]),
        ("upstream=a&peer=q&cause=connection_refused", vec![1]),
        ("upstream=b&cause=connection_refused", vec![]),
        ("peer=q&limit=1", vec![1]),
        ("limit=2", vec![1, 2]),
        ("limit=0", vec![]),
    ] {
        let selected = ask(args).unwrap().select(&bytes);
        let id =
            |json: &String| serde_json::from_str::<serde_json::Value>(json).unwrap()["id"].clone();
        assert_eq!(selected.iter().map(id).collect::<Vec<_>>(), wanted, "{args}");
    }
    // Without a filter, and with a limit, nothing is taken apart.
    assert_eq!(ask("").unwrap().select(&bytes), records);
    assert_eq!(ask("limit=9").unwrap().select(&bytes), records);
}
