//! What all workers share: the module's memory across requests, workers and reloads.
//!
//! Everything here lives in memory that several processes map. It is made of atomics, valid as
//! zeros, and changed in an order that leaves it whole if a process is killed at any point.
//! Counting takes no lock. What changes the structure (a new peer, a new upstream, a record) is
//! done under a lock of the caller's; the functions that need it say so.

mod ages;
mod head;
mod histogram;
mod layout;
mod memory;
mod name;
mod outages;
mod past;
mod rate;
pub mod ring;
mod slots;
mod sweeps;
mod table;
mod timeline;

pub use ages::{Closes, Cluster};
pub(crate) use ages::{SHORTEST, widest};
pub use head::{Count, Head, RATES};
pub use layout::{Layout, TooSmall};
pub use memory::{Memory, Parts, Place, Read};
pub use outages::Outage;
pub use past::{Close, Noted, Past};
pub(crate) use past::{Reach, STALE, idle, reach, since_sent, worked_on};
pub use rate::Allowed;
pub use slots::{Attempted, PeerSlot, UpstreamSlot};
pub use sweeps::Spared;
pub use timeline::{STEP, Step};

/// The peer that stands for those without a place of their own.
pub const OTHER: &str = "other";
