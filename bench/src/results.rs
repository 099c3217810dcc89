//! What was measured: written as JSON, to be compared with later, and made into tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Version of the JSON.
pub(crate) const VERSION: u32 = 1;

/// Everything. Requests are those of `scenario` and `way`, by their names on the command line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Version of this format.
    pub(crate) v: u32,
    /// Where and when.
    pub(crate) machine: Machine,
    pub(crate) instructions: Vec<Instructions>,
    pub(crate) syscalls: Vec<Syscalls>,
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) zone: Vec<Zone>,
    pub(crate) scrapes: Vec<Scrape>,
    pub(crate) starts: Vec<Start>,
}

/// Work in user space.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Instructions {
    pub(crate) nginx: String,
    pub(crate) scenario: String,
    pub(crate) way: String,
    /// N: N and 2N were counted.
    pub(crate) requests: usize,
    /// The least of the starts.
    pub(crate) per_request: f64,
    /// By each start of nginx, none of which differs from the others.
    pub(crate) starts: Vec<f64>,
    /// Calls of malloc and its like.
    pub(crate) allocations: f64,
    /// Calls of what takes a lock.
    pub(crate) locks: f64,
}

/// Calls of the kernel for a request, by name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Syscalls {
    pub(crate) nginx: String,
    pub(crate) scenario: String,
    pub(crate) way: String,
    pub(crate) per_request: BTreeMap<String, f64>,
}

/// Requests in a second.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) nginx: String,
    pub(crate) scenario: String,
    pub(crate) way: String,
    /// In each run; the runs of the same place took turns.
    pub(crate) runs: Vec<f64>,
}

/// Memory of the worker while requests fail, in kB.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) nginx: String,
    pub(crate) way: String,
    /// How many requests had failed, and what the worker had then.
    pub(crate) seen: Vec<Resident>,
}

/// Resident memory of a worker.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Resident {
    pub(crate) failures: u64,
    /// All of it, with the pages of the zone it has touched and of programs.
    pub(crate) kb: u64,
    /// Its own.
    pub(crate) own_kb: u64,
}

/// What a zone holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Zone {
    pub(crate) nginx: String,
    /// For peers; in use or not, they are set aside.
    pub(crate) places: usize,
    /// Bytes in use.
    pub(crate) used: u64,
}

/// An answer of the status location.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scrape {
    pub(crate) nginx: String,
    pub(crate) format: String,
    pub(crate) peers: usize,
    pub(crate) instructions: f64,
    pub(crate) bytes: usize,
    /// How long it took, median.
    pub(crate) ms: f64,
}

/// What begins an nginx with many locations.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) nginx: String,
    pub(crate) way: String,
    pub(crate) locations: usize,
    /// Of `nginx -t`.
    pub(crate) instructions: u64,
    /// Until the worker serves, each time.
    pub(crate) start_ms: Vec<f64>,
    /// Until the new worker serves and the old one does not, each time.
    pub(crate) reload_ms: Vec<f64>,
    /// The worker's own memory.
    pub(crate) own_kb: u64,
}

/// The one in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
