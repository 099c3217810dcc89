//! From what nginx saw of an upstream failure to what it means.
//!
//! Pure logic: plain structs in, plain values out, no nginx type and no I/O. The nginx module
//! observes ([`Observation`]), this crate decides ([`classify`]), concludes ([`mod@findings`]) and
//! words the result ([`Record`], [`proxy_status`]).
#![forbid(unsafe_code)]

pub mod attempts;
pub mod cause;
pub mod errno;
pub mod exposition;
pub mod findings;
pub mod header;
mod http2;
mod json;
pub mod message;
mod outcome;
pub mod peer;
pub mod protocol;
mod proxy_status;
pub mod query;
mod record;
pub mod runbook;
pub mod schema;
mod seconds;
mod slugs;
mod status;
pub mod tls;
mod verdict;
mod words;
pub mod zone;

pub use cause::{Cause, Phase};
pub use findings::{Context, Evidence, Finding, Findings, findings};
pub use outcome::{Answer, Ending, Origin, Outcome, origin, outcome};
pub use proxy_status::proxy_status;
pub use record::{
    Attempt, Attempts, Header, Parts, PeerName, PeerReport, PeerState, Record, Request, Shown,
    Stamp, Tally, Tcp, text, with_suppressed,
};
pub use seconds::Seconds;
pub use status::{
    Dropped, Histogram, History, Module, PeerStatus, Snapshot, TakenOut, Timeline, Totals,
    Upstream, Usage, Worker, Zone,
};
pub use verdict::{Failure, Observation, Progress, Verdict, classify, classify_known};
pub use words::Name;
pub use words::numbers::Number;
pub use words::phrase::{Arena, Part, Phrase};
