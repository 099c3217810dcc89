//! The document of the status endpoint.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use crate::cause::Cause;
use crate::outcome::Outcome;

/// Version of the JSON document.
const VERSION: u8 = 1;

/// The module.
#[derive(Clone, Debug, Serialize)]
pub struct Module {
    /// Its version.
    pub version: &'static str,
    /// The nginx it was built for, `MAJOR.MINOR.PATCH`.
    pub nginx: String,
}

/// What became of the records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Zone {
    /// Size of the shared memory, bytes.
    pub bytes: u64,
    /// Bytes set aside for records.
    pub ring_bytes: u64,
    /// Records that could not be kept.
    pub dropped: u64,
}

/// Numbers of records by verdict.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By [`Outcome::index`].
    pub outcomes: Vec<u64>,
    /// By [`Cause::index`].
    pub causes: Vec<u64>,
}

impl Serialize for Totals {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for outcome in Outcome::ALL {
            let count = self.outcomes.get(outcome.index()).copied().unwrap_or(0);
            map.serialize_entry(outcome.slug(), &count)?;
        }
        map.serialize_entry("causes", &Causes(&self.causes))?;
        map.end()
    }
}

struct Causes<'a>(&'a [u64]);

impl Serialize for Causes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Every cause is there, with 0 too: a counter that appears with its first event cannot
        // be told from one that was lost.
        let counts = Cause::ALL
            .iter()
            .map(|cause| (cause.slug(), self.0.get(cause.index()).copied().unwrap_or(0)));
        serializer.collect_map(counts)
    }
}

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Status {
    v: u8,
    module: Module,
    zone: Zone,
    totals: Totals,
    recent: Vec<Box<RawValue>>,
}

impl Status {
    /// Puts the document together. `recent` are records as they were kept, newest first.
    pub fn new(module: Module, zone: Zone, totals: Totals, recent: Vec<String>) -> Status {
        // What does not parse was torn by a crash: better one record less than a document that
        // no client can read.
        let recent =
            recent.into_iter().filter_map(|json| RawValue::from_string(json).ok()).collect();
        Status { v: VERSION, module, zone, totals, recent }
    }

    /// The document as JSON, with a line feed at its end.
    ///
    /// # Errors
    /// As `serde_json`; these types give it no reason to.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_does_not_break_the_document() {
        let mut totals = Totals { outcomes: vec![0; 5], causes: vec![0; Cause::ALL.len()] };
        totals.outcomes[Outcome::Masked.index()] = 2;
        totals.causes[Cause::ConnectionRefused.index()] = 2;
        let module = Module { version: "0", nginx: "1.28.3".into() };
        let recent = vec![r#"{"v":1}"#.into(), r#"{"v":1"#.into()];
        let json = Status::new(module, Zone::default(), totals, recent).to_json().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["recent"].as_array().unwrap().len(), 1);
        assert_eq!(json["totals"]["masked"], 2);
        assert_eq!(json["totals"]["failed"], 0);
        assert_eq!(json["totals"]["causes"]["connection_refused"], 2);
        assert_eq!(json["totals"]["causes"].as_object().unwrap().len(), Cause::ALL.len());
    }
}
