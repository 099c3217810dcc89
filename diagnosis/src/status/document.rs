//! The JSON document.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    Dropped, Histogram, Module, PeerStatus, Snapshot, TakenOut, Timeline, Totals, Upstream, Worker,
    Zone, distinct, of_cause, of_outcome,
};
use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::seconds::Seconds;

/// Version of the document.
const VERSION: u8 = 1;

/// The module's name, as nginx's tables have it.
const NAME: &str = "ngx_http_upstream_diag_module";

impl Snapshot {
    /// The document, with a line feed at its end.
    ///
    /// # Errors
    /// As `serde_json`; these types give it no reason to.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(&Document {
            v: VERSION,
            time: &self.time,
            module: Name { name: NAME, version: self.module.version },
            nginx: &self.module,
            worker: &self.worker,
            zone: &self.zone,
            dropped: &self.dropped,
            totals: &self.totals,
            upstreams: Upstreams(&self.upstreams),
            timeline: &self.timeline,
            recent: Records(&self.recent),
        })?;
        json.push(b'\n');
        Ok(json)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    v: u8,
    time: &'a str,
    module: Name,
    #[serde(serialize_with = "nginx")]
    nginx: &'a Module,
    worker: &'a Worker,
    zone: &'a Zone,
    dropped: &'a Dropped,
    totals: &'a Totals,
    upstreams: Upstreams<'a>,
    timeline: &'a Timeline,
    recent: Records<'a>,
}

#[derive(Serialize)]
struct Name {
    name: &'static str,
    version: &'static str,
}

fn nginx<S: Serializer>(module: &Module, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map([("version", &module.nginx)])
}

impl Serialize for Worker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.pid)?;
        map.serialize_entry("connections", &self.connections)?;
        optional(&mut map, "files", self.files.as_ref())?;
        optional(&mut map, "accepted", self.accepted.as_ref())?;
        optional(&mut map, "handled", self.handled.as_ref())?;
        // The two are not read at one moment: between them another worker may count.
        let not_handled =
            self.accepted.zip(self.handled).map(|(all, good)| all.saturating_sub(good));
        optional(&mut map, "not_handled", not_handled.as_ref())?;
        map.end()
    }
}

impl Serialize for Totals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("requests", &self.requests)?;
        outcomes(&mut map, &self.outcomes)?;
        // Every cause is there, with 0 too: a counter that appears with its first event cannot
        // be told from one that was lost.
        map.serialize_entry(
            "causes",
            &Counts(|| {
                Cause::ALL.iter().map(|cause| (cause.slug(), of_cause(&self.causes, *cause)))
            }),
        )?;
        map.end()
    }
}

/// By name; those whose names are alike are one, as no parser keeps two keys of one name.
struct Upstreams<'a>(&'a [Upstream]);

impl Serialize for Upstreams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let upstreams = distinct(self.0, str::to_owned);
        serializer.collect_map(upstreams.iter().map(|upstream| (&upstream.name, upstream)))
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        outcomes(&mut map, &self.outcomes)?;
        let kept = |histogram: &Histogram| !histogram.bounds.is_empty();
        let connect = kept(&self.connect).then_some(Values(&self.connect, Seconds::Millis));
        optional(&mut map, "connect_seconds", connect.as_ref())?;
        let header = kept(&self.header).then_some(Values(&self.header, |bytes| bytes));
        optional(&mut map, "header_bytes", header.as_ref())?;
        map.serialize_entry("peers", &self.peers)?;
        map.end()
    }
}

impl Serialize for PeerStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let history = &self.history;
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "peer", self.peer.as_ref())?;
        optional(&mut map, "state", self.state.as_ref())?;
        optional(&mut map, "unavailable_for", self.unavailable_for.as_ref())?;
        optional(&mut map, "backup", self.backup.then_some(&true))?;
        map.serialize_entry("requests", &history.requests())?;
        map.serialize_entry("ok", &history.ok)?;
        map.serialize_entry("failed", &history.failed)?;
        map.serialize_entry("aborted", &history.aborted)?;
        map.serialize_entry(
            "causes",
            &Counts(|| history.causes().map(|(cause, count)| (cause.slug(), count))),
        )?;
        optional(&mut map, "last_ok", history.last_ok.as_ref())?;
        optional(&mut map, "last_failed", history.last_failed.as_ref())?;
        optional(&mut map, "last_cause", history.last_cause.as_ref())?;
        map.serialize_entry("consecutive_failures", &history.consecutive_failures)?;
        optional(&mut map, "taken_out", history.taken_out.as_ref())?;
        map.end()
    }
}

impl Serialize for TakenOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cause", &self.cause)?;
        map.serialize_entry("ago", &self.ago)?;
        map.end()
    }
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("start", &self.start)?;
        map.serialize_entry("steps", &self.steps)?;
        map.serialize_entry(
            "causes",
            &Counts(|| self.causes.iter().map(|(cause, counts)| (cause.slug(), counts))),
        )?;
        map.end()
    }
}

/// A histogram, with the bounds and the sum in the unit of the document.
struct Values<'a, F>(&'a Histogram, F);

impl<F: Fn(u64) -> T, T: Serialize> Serialize for Values<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Values(histogram, unit) = self;
        let bounds: Vec<T> = histogram.bounds.iter().map(|bound| unit(*bound)).collect();
        let counts: Vec<u64> = histogram.buckets().collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bounds", &bounds)?;
        map.serialize_entry("counts", &counts)?;
        map.serialize_entry("count", &histogram.count())?;
        map.serialize_entry("sum", &unit(histogram.sum))?;
        map.end()
    }
}

/// Records as they were kept.
struct Records<'a>(&'a [String]);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for json in self.0 {
            // What does not parse was torn by a crash: better one record less than a document
            // that no client can read.
            if let Ok(record) = serde_json::from_str::<&RawValue>(json) {
                list.serialize_element(record)?;
            }
        }
        list.end()
    }
}

/// A map of what a function lists.
struct Counts<F>(F);

impl<F, I, V> Serialize for Counts<F>
where
    F: Fn() -> I,
    I: Iterator<Item = (&'static str, V)>,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

fn outcomes<M: SerializeMap>(map: &mut M, counts: &[u64]) -> Result<(), M::Error> {
    for outcome in Outcome::ALL {
        map.serialize_entry(outcome.slug(), &of_outcome(counts, outcome))?;
    }
    Ok(())
}

fn optional<M: SerializeMap>(
    map: &mut M,
    key: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, value))
}
