//! The table of faults: what upstreams, and configurations in front of them, can do wrong, and
//! what is to be said of each.
//!
//! Every row is checked in the same way (`faults/run.rs`): its cause, phase, errno, outcome and
//! origin, the status its client gets and the evidence; and that the record, the variables and the
//! status document agree. `faults/row.rs` says what a row is made of. Other tests of causes have
//! set-ups of their own: several attempts, times, sizes that follow from the advice.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "faults/connect.rs"]
mod connect;
#[path = "faults/every.rs"]
mod every;
#[path = "faults/fastcgi.rs"]
mod fastcgi;
#[path = "faults/grpc.rs"]
mod grpc;
#[path = "faults/http.rs"]
mod http;
#[path = "faults/lines.rs"]
mod lines;
#[path = "faults/own.rs"]
mod own;
#[path = "faults/peer.rs"]
mod peer;
#[path = "faults/reused.rs"]
mod reused;
#[path = "faults/row.rs"]
mod row;
#[path = "faults/run.rs"]
mod run;
#[path = "faults/select.rs"]
mod select;
#[path = "faults/tls.rs"]
mod tls;
#[path = "faults/transfer.rs"]
mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use row::Row;
use t::diag;
use t::{Nginx, netns_available};

/// Every cause with its error type of RFC 9209.
const CAUSES: [(&str, &str); 42] = [
    ("dns_no_resolver", "proxy_configuration_error"),
    ("dns_not_found", "dns_error"),
    ("dns_timed_out", "dns_timeout"),
    ("dns_failure", "dns_error"),
    ("no_live_upstreams", "destination_unavailable"),
    ("max_conns_reached", "connection_limit_reached"),
    ("invalid_upstream_url", "proxy_configuration_error"),
    ("connection_refused", "connection_refused"),
    ("connection_timed_out", "connection_timeout"),
    ("unreachable", "destination_ip_unroutable"),
    ("permission_denied", "proxy_configuration_error"),
    ("socket_not_found", "destination_not_found"),
    ("listen_queue_full", "destination_unavailable"),
    ("local_ports_exhausted", "proxy_internal_error"),
    ("local_fds_exhausted", "proxy_internal_error"),
    ("worker_connections_exhausted", "proxy_internal_error"),
    ("bind_failed", "proxy_configuration_error"),
    ("tls_protocol_error", "tls_protocol_error"),
    ("tls_alert_received", "tls_alert_received"),
    ("tls_certificate_error", "tls_certificate_error"),
    ("tls_name_mismatch", "tls_certificate_error"),
    ("tls_closed", "connection_terminated"),
    ("tls_timed_out", "connection_timeout"),
    ("send_timed_out", "connection_write_timeout"),
    ("keepalive_race", "connection_terminated"),
    ("closed_before_response", "connection_terminated"),
    ("closed_in_header", "http_response_incomplete"),
    ("connection_reset", "connection_terminated"),
    ("header_too_big", "http_response_header_section_size"),
    ("invalid_header", "http_protocol_error"),
    ("protocol_mismatch", "http_protocol_error"),
    ("invalid_response", "http_protocol_error"),
    ("stream_reset", "http_response_incomplete"),
    ("response_timed_out", "http_response_timeout"),
    ("response_truncated", "http_response_incomplete"),
    ("body_timed_out", "connection_read_timeout"),
    ("invalid_body", "http_response_transfer_coding"),
    ("upstream_response", "destination_unavailable"),
    ("cached_error", "proxy_internal_response"),
    ("local_return", "proxy_internal_response"),
    ("internal_error", "proxy_internal_error"),
    ("unknown", "proxy_internal_error"),
];

/// Causes without a row, and why.
const ELSEWHERE: [(&str, &str); 2] = [
    ("local_fds_exhausted", "takes every descriptor from its nginx: causes_connect.rs"),
    ("worker_connections_exhausted", "takes every connection from its nginx: causes_connect.rs"),
];

/// Causes that are easily taken for one another.
const CLOSE: [&str; 8] = [
    "keepalive_race",
    "closed_before_response",
    "closed_in_header",
    "connection_reset",
    "response_timed_out",
    "response_truncated",
    "protocol_mismatch",
    "tls_closed",
];

macro_rules! groups {
    ($($test:ident = $rows:path;)+) => {
        /// The rows, in groups that each share an nginx.
        const GROUPS: &[fn() -> Vec<Row>] = &[$($rows,)+ connect::in_a_namespace];

        $(
            #[test]
            fn $test() {
                run::run($rows());
            }
        )+
    };
}

groups! {
    names = select::names;
    addresses = select::addresses;
    groups_of_servers = select::groups;
    connecting = connect::rows;
    tls_handshake = tls::handshake;
    tls_alerts = tls::alerts;
    tls_certificates = tls::certificates;
    behind_tls = tls::behind;
    sending = transfer::sending;
    bodies = transfer::bodies;
    http_transports = http::transports;
    http_headers = http::headers;
    http_other_protocols = http::other_protocols;
    reused_connections = reused::rows;
    every_http = every::http;
    every_http_of_http2_clients = every::http_of_http2_clients;
    every_fastcgi = every::fastcgi;
    every_uwsgi = every::uwsgi;
    every_scgi = every::scgi;
    every_grpc = every::grpc;
    every_memcached = every::memcached;
    fastcgi_framing = fastcgi::rows;
    grpc_framing = grpc::rows;
    lines_of_text = lines::rows;
    own_errors = own::rows;
}

/// The rows that need a network of their own.
#[test]
fn in_a_namespace() {
    if !netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    run::run_in(Some(connect::NAMESPACE), connect::in_a_namespace());
}

fn all() -> Vec<Row> {
    GROUPS.iter().flat_map(|rows| rows()).collect()
}

/// Guards against rows that get lost, and against two of one name.
#[test]
fn the_table_is_large() {
    let rows = all();
    assert!(rows.len() >= 250, "{} rows", rows.len());
    let mut names = BTreeSet::new();
    for row in rows {
        let name = format!("{}: {}", row.speaks, row.name);
        assert!(names.insert(name.clone()), "{name}");
    }
}

/// Guards against a cause that no row makes happen, and against too few of those that are easily
/// taken for one another.
#[test]
fn every_cause_has_a_row() {
    let nginx = Nginx::start(diag::conf("return 200;"));
    let status = diag::status(&nginx);
    let of_module = status["totals"]["causes"].as_object().expect("causes");
    let known: BTreeSet<&str> = CAUSES.iter().map(|(cause, _)| *cause).collect();
    assert_eq!(of_module.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in all() {
        *counts.entry(row.cause).or_default() += 1;
    }
    for cause in known {
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| *other == cause);
        assert_eq!(counts.contains_key(cause), !elsewhere, "{cause}");
        let least = if CLOSE.contains(&cause) { 5 } else { 0 };
        assert!(counts.get(cause).copied().unwrap_or(0) >= least, "{cause}: {counts:?}");
    }
    diag::finish(&nginx);
}
