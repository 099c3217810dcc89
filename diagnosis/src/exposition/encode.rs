//! From the table of metrics to the calls of `prometheus-client`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Kind, Metric, metrics};
use crate::status::{Histogram, Snapshot, Usage, distinct};

/// The format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// What can be written out.
pub(super) fn registry(snapshot: &Snapshot, dialect: Dialect) -> Registry {
    let snapshot = Snapshot {
        upstreams: distinct(&snapshot.upstreams, label),
        module: snapshot.module.clone(),
        worker: snapshot.worker.clone(),
        zone: snapshot.zone.clone(),
        dropped: snapshot.dropped.clone(),
        ..Snapshot::default()
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Source { snapshot, dialect }));
    registry
}

/// A name as the value of a label.
///
/// Any character may stand there once it is escaped, but Prometheus' own parser takes NUL for the
/// end of its input, and others take a line to end at more characters than LF.
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What the registry asks when it is written out.
#[derive(Debug)]
struct Source {
    snapshot: Snapshot,
    dialect: Dialect,
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in metrics() {
            let (name, unit) = match self.dialect {
                Dialect::Prometheus => (metric.name, None),
                Dialect::OpenMetrics => (metric.stem(), metric.unit.as_ref()),
            };
            let kind = match (metric.kind, self.dialect) {
                (Kind::Counter, _) => MetricType::Counter,
                (Kind::Histogram, _) => MetricType::Histogram,
                (Kind::Info, Dialect::OpenMetrics) => MetricType::Info,
                (Kind::Info, Dialect::Prometheus) | (Kind::Gauge, _) => MetricType::Gauge,
            };
            let encoder = encoder.encode_descriptor(name, metric.help, unit, kind)?;
            let mut samples = Samples { metric, dialect: self.dialect, encoder };
            (metric.samples)(&self.snapshot, &mut samples)?;
        }
        Ok(())
    }
}

impl Metric {
    /// The name without what `prometheus-client` appends to it for OpenMetrics.
    fn stem(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let family = self.name.strip_suffix(suffix).unwrap_or(self.name);
        let unit = self.unit.as_ref().map_or("", |unit| unit.as_str());
        family.strip_suffix(unit).and_then(|stem| stem.strip_suffix('_')).unwrap_or(family)
    }
}

/// Takes the samples of one metric. `values` are those of its labels, in their order.
pub(super) struct Samples<'e> {
    metric: &'static Metric,
    dialect: Dialect,
    encoder: MetricEncoder<'e>,
}

impl Samples<'_> {
    /// A sample of anything but a histogram.
    pub(super) fn number(&mut self, values: &[&str], number: u64) -> fmt::Result {
        let labels = self.labels(values);
        match (self.metric.kind, self.dialect) {
            (Kind::Info, Dialect::OpenMetrics) => self.encoder.encode_info(&labels),
            (Kind::Counter, Dialect::OpenMetrics) => self
                .encoder
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(&number, None),
            // Nothing is appended to the name of a gauge: a counter of Prometheus has its whole
            // name already.
            _ => self.encoder.encode_family(&labels)?.encode_gauge(&number),
        }
    }

    /// A histogram, unless none was kept. `unit` is how many of its own unit make one of the
    /// metric's.
    pub(super) fn histogram(
        &mut self,
        values: &[&str],
        histogram: &Histogram,
        unit: f64,
    ) -> fmt::Result {
        if histogram.bounds.is_empty() {
            return Ok(());
        }
        let labels = self.labels(values);
        let bounds = histogram.bounds.iter().map(|bound| *bound as f64 / unit);
        let buckets: Vec<(f64, u64)> =
            bounds.chain([f64::INFINITY]).zip(histogram.buckets()).collect();
        self.encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            histogram.sum as f64 / unit,
            histogram.count(),
            &buckets,
            None,
        )
    }

    /// What is used and what is free.
    pub(super) fn usage(&mut self, usage: Usage) -> fmt::Result {
        self.number(&["used"], usage.used)?;
        self.number(&["free"], usage.limit.saturating_sub(usage.used))
    }

    fn labels<'l>(&self, values: &[&'l str]) -> Vec<(&'static str, &'l str)> {
        self.metric.labels.iter().copied().zip(values.iter().copied()).collect()
    }
}
