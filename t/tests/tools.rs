//! Programs that users have, not parsers of our own: Prometheus reads the metrics, `promtool` looks
//! for what is wrong with them, and `rsyslogd` takes the lines of the log.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

#[path = "tools/metrics.rs"]
mod metrics;
#[path = "tools/process.rs"]
mod process;
#[path = "tools/prometheus.rs"]
mod prometheus;
#[path = "tools/rsyslog.rs"]
mod rsyslog;
#[path = "tools/world.rs"]
mod world;
