//! What stands behind a verdict, in a few lines for a human.

use serde_json::Value;

/// The attempts of a record, the good ones too, and the peers of a group in
/// which none could be chosen.
pub(crate) fn lines(record: &Value) -> Vec<String> {
    let list = |key| record.get(key).and_then(Value::as_array).into_iter().flatten();
    let attempts = list("attempts");
    let many = attempts.clone().count() > 1;
    let peers = list("peers");
    let mut lines = Vec::new();
    for attempt in attempts {
        let mut facts = facts(attempt);
        if facts.is_empty() && peers.clone().count() == 0 {
            facts.push(format!("nginx's message: {}", text(attempt, "message")));
        }
        let mut line = join(&facts);
        if many {
            let key = if attempt.get("cause").is_some() { "cause" } else { "status" };
            line = format!("{}\u{a0}{}: {line}", text(attempt, "peer"), text(attempt, key));
        }
        lines.extend(Some(line).filter(|line| !line.is_empty()));
        lines.extend(attempt.get("tcp").map(|tcp| tcp_facts(attempt, tcp)));
        lines.extend(attempt.get("peer_state").and_then(peer));
    }
    for peer in peers {
        let state = text(peer, "state");
        lines.push(format!("{} {state}{}", text(peer, "peer"), unavailable(peer)));
    }
    lines
}

fn facts(attempt: &Value) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(errno) = attempt.get("errno") {
        facts.push(format!("errno {errno} {}", text(attempt, "errname")));
    }
    if let Some(header) = attempt.get("header") {
        let least = if header.get("exact") == Some(&Value::Bool(true)) { "" } else { "at least " };
        facts.push(format!(
            "header {least}{} bytes, {} {}",
            text(header, "size"),
            text(header, "directive"),
            text(header, "limit")
        ));
    }
    facts.extend(seconds(attempt, "connect_time").map(|time| format!("connect time {time}")));
    // An error that the upstream itself answered with is no failure to answer.
    let answered = matches!(text(attempt, "cause").as_str(), "-" | "upstream_response");
    let elapsed = if answered { "took" } else { "failed after" };
    facts.extend(seconds(attempt, "elapsed").map(|time| format!("{elapsed} {time}")));
    if attempt.get("reused") == Some(&Value::Bool(true)) {
        facts.push("reused connection".to_owned());
    }
    for (key, words) in [("bytes_sent", "sent"), ("bytes_received", "received")] {
        facts.extend(attempt.get(key).map(|bytes| format!("{words} {bytes} bytes")));
    }
    facts
}

fn tcp_facts(attempt: &Value, tcp: &Value) -> String {
    let mut facts = vec![format!("TCP {}", text(tcp, "state"))];
    let number = |key| tcp.get(key).and_then(Value::as_f64).filter(|n| *n > 0.0);
    facts.extend(number("retransmits").map(|n| format!("{n} retransmits")));
    facts.extend(number("rtt").map(|rtt| format!("round trip {:.3} ms", rtt * 1_000.0)));
    // On a new connection it only tells the age of the connection.
    if attempt.get("reused") == Some(&Value::Bool(true)) {
        facts.extend(number("idle").map(|time| format!("last received {time:.3} s before")));
    }
    facts.extend(number("since_sent").map(|time| format!("last sent {time:.3} s before")));
    join(&facts)
}

/// Lines are broken between facts only: a no-break space is printed as a space.
fn join(facts: &[String]) -> String {
    facts.iter().map(|fact| fact.replace(' ', "\u{a0}")).collect::<Vec<_>>().join(", ")
}

/// nginx's bookkeeping of a server; an address without an upstream block has
/// none that matters.
fn peer(state: &Value) -> Option<String> {
    if state.get("max_fails").and_then(Value::as_u64) == Some(0) {
        return None;
    }
    Some(format!(
        "server {}{}, fails {} (max_fails={} fail_timeout={}s)",
        text(state, "state"),
        unavailable(state),
        text(state, "fails"),
        text(state, "max_fails"),
        text(state, "fail_timeout")
    ))
}

fn unavailable(of: &Value) -> String {
    match of.get("unavailable_for") {
        Some(time) => format!(" for {time} s more"),
        None => String::new(),
    }
}

/// Milliseconds is what nginx measures in.
fn seconds(of: &Value, key: &str) -> Option<String> {
    of.get(key).and_then(Value::as_f64).map(|time| format!("{time:.3} s"))
}

/// A value without the quotes of JSON.
fn text(of: &Value, key: &str) -> String {
    match of.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    }
}
