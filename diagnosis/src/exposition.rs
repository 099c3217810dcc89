//! The metrics of the status endpoint, in the text formats of Prometheus and of OpenMetrics.
//!
//! `prometheus-client` writes OpenMetrics and escapes what stands in labels. The older format of
//! Prometheus differs in the descriptions alone: there the name of a counter has its `_total`
//! already, units are not told, there is no type for information, and no mark at the end.

mod encode;
#[cfg(test)]
mod parser;
#[cfg(test)]
mod tests;

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::registry::Unit;

use crate::outcome::Outcome;
use crate::peer::State;
use crate::status::{PeerStatus, Snapshot, Upstream, Usage, of_outcome};
use encode::{Dialect, Samples, registry};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Numbers of values by size.
    Histogram,
    /// Labels alone; the value is 1.
    Info,
}

impl Kind {
    /// Its name in OpenMetrics.
    pub fn slug(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

/// A metric: a row of the table.
#[derive(Debug)]
pub struct Metric {
    /// The name to look for in Prometheus.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells. One line, which nothing escapes.
    pub help: &'static str,
    /// The unit, which ends the name.
    unit: Option<Unit>,
    /// Gives the samples.
    samples: fn(&Snapshot, &mut Samples<'_>) -> fmt::Result,
}

/// Every metric.
static METRICS: [Metric; 10] = [
    Metric {
        name: "nginx_upstream_diag_requests_total",
        kind: Kind::Counter,
        labels: &["upstream", "peer"],
        help: "Attempts on a peer, good ones too.",
        unit: None,
        samples: |snapshot, samples| {
            for (upstream, peer, name) in named(snapshot) {
                samples.number(&[&upstream.name, name], peer.history.requests())?;
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_failures_total",
        kind: Kind::Counter,
        labels: &["upstream", "peer", "cause"],
        help: "Failed attempts by cause, for causes that happened; the peer is empty where nginx made none.",
        unit: None,
        samples: |snapshot, samples| {
            for (upstream, peer) in peers(snapshot) {
                let name = peer.peer.as_deref().unwrap_or_default();
                for (cause, count) in peer.history.causes() {
                    samples.number(&[&upstream.name, name, cause.slug()], count)?;
                }
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_outcomes_total",
        kind: Kind::Counter,
        labels: &["upstream", "outcome"],
        help: "Diagnosed requests by what the client got; the upstream is empty where none was asked.",
        unit: None,
        samples: |snapshot, samples| {
            for upstream in &snapshot.upstreams {
                for outcome in Outcome::ALL {
                    let count = of_outcome(&upstream.outcomes, outcome);
                    samples.number(&[&upstream.name, outcome.slug()], count)?;
                }
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_peer_unavailable",
        kind: Kind::Gauge,
        labels: &["upstream", "peer"],
        help: "1 while nginx does not choose the peer because it reached max_fails, else 0.",
        unit: None,
        samples: |snapshot, samples| {
            for (upstream, peer, name) in named(snapshot) {
                if let Some(state) = peer.state {
                    let out = u64::from(state == State::Unavailable);
                    samples.number(&[&upstream.name, name], out)?;
                }
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_connect_seconds",
        kind: Kind::Histogram,
        labels: &["upstream"],
        help: "Time it took to connect to a peer, with the TLS handshake.",
        unit: Some(Unit::Seconds),
        samples: |snapshot, samples| {
            for upstream in &snapshot.upstreams {
                samples.histogram(&[&upstream.name], &upstream.connect, MILLISECONDS)?;
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_response_header_bytes",
        kind: Kind::Histogram,
        labels: &["upstream"],
        help: "Size of response headers that were sent on, those of tunnels aside.",
        unit: Some(Unit::Bytes),
        samples: |snapshot, samples| {
            for upstream in &snapshot.upstreams {
                samples.histogram(&[&upstream.name], &upstream.header, BYTES)?;
            }
            Ok(())
        },
    },
    Metric {
        name: "nginx_upstream_diag_worker_connections",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Connection slots, used and free, of the worker that answers: each request can be answered by another.",
        unit: None,
        samples: |snapshot, samples| samples.usage(snapshot.worker.connections),
    },
    Metric {
        name: "nginx_upstream_diag_zone_bytes",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Shared memory, used and free.",
        unit: Some(Unit::Bytes),
        samples: |snapshot, samples| {
            samples.usage(Usage { used: snapshot.zone.used, limit: snapshot.zone.bytes })
        },
    },
    Metric {
        name: "nginx_upstream_diag_dropped_total",
        kind: Kind::Counter,
        labels: &["what"],
        help: "Records not kept (record), log lines not written (line) or left out by rate= (suppressed), attempts counted under the peer other for want of room (peer).",
        unit: None,
        samples: |snapshot, samples| {
            let dropped = &snapshot.dropped;
            samples.number(&["record"], dropped.records)?;
            samples.number(&["line"], dropped.lines)?;
            samples.number(&["suppressed"], dropped.suppressed)?;
            samples.number(&["peer"], dropped.peers)
        },
    },
    Metric {
        name: "nginx_upstream_diag_build_info",
        kind: Kind::Info,
        labels: &["version", "nginx"],
        help: "Version of the module, and of the nginx it was built for.",
        unit: None,
        samples: |snapshot, samples| {
            samples.number(&[snapshot.module.version, &snapshot.module.nginx], 1)
        },
    },
];

/// The value of `Content-Type` for [`prometheus`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The value of `Content-Type` for [`openmetrics`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many of a histogram's own unit make one of the metric's.
const MILLISECONDS: f64 = 1_000.0;
const BYTES: f64 = 1.0;

/// Every metric, in the order in which they are written.
pub fn metrics() -> &'static [Metric] {
    &METRICS
}

/// The metrics in the text format of Prometheus, version 0.0.4.
///
/// # Errors
/// As `prometheus-client`; a `String` gives it no reason to.
pub fn prometheus(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode_registry(&mut text, &registry(snapshot, Dialect::Prometheus))?;
    Ok(text)
}

/// The metrics in the text format of OpenMetrics, version 1.0.0.
///
/// # Errors
/// As `prometheus-client`; a `String` gives it no reason to.
pub fn openmetrics(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, &registry(snapshot, Dialect::OpenMetrics))?;
    Ok(text)
}

/// Every peer with its upstream.
fn peers<'a>(snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a Upstream, &'a PeerStatus)> {
    let of = |upstream: &'a Upstream| std::iter::repeat(upstream).zip(&upstream.peers);
    snapshot.upstreams.iter().flat_map(of)
}

/// Every peer that has a name, with it.
fn named(snapshot: &Snapshot) -> impl Iterator<Item = (&Upstream, &PeerStatus, &str)> {
    peers(snapshot).filter_map(|(upstream, peer)| Some((upstream, peer, peer.peer.as_deref()?)))
}
