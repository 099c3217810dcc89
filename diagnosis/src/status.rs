//! What the status endpoint tells: plain values, taken from shared memory and from nginx at one
//! moment. [`Snapshot::to_json`] makes the JSON document of them, [`crate::exposition`] the
//! metrics.

mod document;
mod merge;
#[cfg(test)]
mod tests;

pub(crate) use merge::distinct;

use crate::cause::Cause;
use crate::outcome::Outcome;
use crate::peer::State;
use crate::seconds::Seconds;
use crate::zone::STEP;

/// The module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Its version.
    pub version: &'static str,
    /// The nginx it was built for, `MAJOR.MINOR.PATCH`.
    pub nginx: String,
}

/// How much is in use of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// All there is.
    pub limit: u64,
}

/// The worker process that answers.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// Process id.
    pub pid: i64,
    /// Connection slots of this worker (`worker_connections`).
    pub connections: Usage,
    /// File descriptors of this worker (`RLIMIT_NOFILE`).
    pub files: Option<Usage>,
    /// Client connections that nginx accepted, all workers together; only where nginx counts them
    /// (`--with-http_stub_status_module`).
    pub accepted: Option<u64>,
    /// Those it could handle; the others were closed at once for want of a connection slot.
    pub handled: Option<u64>,
}

/// The shared memory.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Zone {
    /// Its size, bytes.
    pub bytes: u64,
    /// Bytes in use.
    pub used: u64,
    /// Places for the history of peers.
    pub peers: Usage,
    /// Places for the counters of upstreams.
    pub upstreams: Usage,
    /// Bytes set aside for the latest records.
    pub records: u64,
}

/// What was lost, or left out as configured.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Dropped {
    /// Records that could not be kept in shared memory.
    pub records: u64,
    /// Log lines that could not be written.
    pub lines: u64,
    /// Log lines left out by `rate=`.
    pub suppressed: u64,
    /// Attempts counted under the peer `other`, because there was no place for their own.
    pub peers: u64,
}

/// Numbers of requests and records, by verdict.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests that were passed to an upstream, good ones too.
    pub requests: u64,
    /// Records by [`Outcome::index`].
    pub outcomes: Vec<u64>,
    /// Records by [`Cause::index`].
    pub causes: Vec<u64>,
}

/// How many values were how large. Without bounds: none was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds of the buckets, ascending, themselves included; in the unit of the values.
    pub bounds: &'static [u64],
    /// Values in each bucket, those of smaller ones not counted again; one more than there are
    /// bounds, for the values above the last.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

/// The failure that made nginx stop choosing a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOut {
    /// Why it failed.
    pub cause: Cause,
    /// How long ago.
    pub ago: Seconds,
}

/// The attempts on a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Good ones.
    pub ok: u64,
    /// Failed ones.
    pub failed: u64,
    /// Those that the client did not wait for.
    pub aborted: u64,
    /// Failed ones by [`Cause::index`].
    pub causes: Vec<u64>,
    /// How long ago the last good one was.
    pub last_ok: Option<Seconds>,
    /// How long ago the last failed one was.
    pub last_failed: Option<Seconds>,
    /// Why that one failed.
    pub last_cause: Option<Cause>,
    /// Failed ones since the last good one.
    pub consecutive_failures: u64,
    /// What took the peer out, if it is out.
    pub taken_out: Option<TakenOut>,
}

impl History {
    /// Whether the last failure that is known is one that nginx counted when it counted the peer's
    /// last, so long ago. nginx also counts what is no failure here, a 500 with `http_500`.
    pub fn explains(&self, counted: Seconds) -> bool {
        // That is told in whole seconds, and noted here at once or when the request ends.
        let longest = counted.millis().saturating_add(1_000);
        self.last_failed.is_some_and(|failed| failed.millis() <= longest)
    }
}

/// A peer.
#[derive(Clone, Debug, Default)]
pub struct PeerStatus {
    /// Its address, as in `$upstream_addr`. `None` holds the attempts for which nginx made no
    /// peer: no live upstreams, a name that was not resolved.
    pub peer: Option<String>,
    /// Whether nginx may choose it; `None` where nginx keeps no account of it.
    pub state: Option<State>,
    /// For how long still it is out.
    pub unavailable_for: Option<Seconds>,
    /// A backup server.
    pub backup: bool,
    /// The attempts on it.
    pub history: History,
}

/// An upstream group, or an address that stands in a pass directive.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Its name; empty for what belongs to none.
    pub name: String,
    /// Records by [`Outcome::index`].
    pub outcomes: Vec<u64>,
    /// Time it took to connect, milliseconds.
    pub connect: Histogram,
    /// Size of response headers, bytes.
    pub header: Histogram,
    /// Its peers.
    pub peers: Vec<PeerStatus>,
}

/// When what failed.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Length of a step, seconds.
    pub step: u64,
    /// When the first step began: Unix time, seconds.
    pub start: i64,
    /// Number of steps.
    pub steps: usize,
    /// Records in each step, oldest first, for the causes there were.
    pub causes: Vec<(Cause, Vec<u32>)>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { step: STEP, start: 0, steps: 0, causes: Vec::new() }
    }
}

/// Everything the status endpoint tells.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken: ISO 8601 with milliseconds and the offset of the local time zone.
    pub time: String,
    /// The module.
    pub module: Module,
    /// The worker.
    pub worker: Worker,
    /// The shared memory.
    pub zone: Zone,
    /// What was lost.
    pub dropped: Dropped,
    /// The sums.
    pub totals: Totals,
    /// The upstreams.
    pub upstreams: Vec<Upstream>,
    /// The last hour.
    pub timeline: Timeline,
    /// The latest records as JSON text, newest first.
    pub recent: Vec<String>,
}

/// The count for an outcome in an array that has a place for each.
pub(crate) fn of_outcome(counts: &[u64], outcome: Outcome) -> u64 {
    counts.get(outcome.index()).copied().unwrap_or(0)
}

/// The count for a cause in an array that has a place for each.
pub(crate) fn of_cause(counts: &[u64], cause: Cause) -> u64 {
    counts.get(cause.index()).copied().unwrap_or(0)
}

impl History {
    /// All attempts.
    pub fn requests(&self) -> u64 {
        self.ok.saturating_add(self.failed).saturating_add(self.aborted)
    }

    /// The causes that happened, with how often.
    pub fn causes(&self) -> impl Iterator<Item = (Cause, u64)> {
        let counts = Cause::ALL.iter().map(|cause| (*cause, of_cause(&self.causes, *cause)));
        counts.filter(|(_, count)| *count > 0)
    }
}

impl Histogram {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets().fold(0, u64::saturating_add)
    }

    /// The count of each bucket, with 0 where none was given: always one more than bounds.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = u64> {
        let zeros = self.bounds.len().saturating_add(1);
        (0..zeros).map(|at| self.counts.get(at).copied().unwrap_or(0))
    }
}
