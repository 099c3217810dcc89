//! Test harness: an nginx with its own prefix, a small HTTP client, upstreams
//! that misbehave on purpose and a scripted DNS server.
//!
//! Nothing here uses a fixed port, and everything that was started is ended
//! when its handle is dropped, also when the test panics.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support: a broken assumption is a failed test and should stop it at once"
)]

pub mod backend;
pub mod client;
pub mod diag;
pub mod dns;
mod finding;
pub mod nginx;
pub mod ports;
pub mod schema;
mod status;
pub mod streams;
pub mod upstream;
mod wait;

pub use backend::Backend;
pub use client::{Client, Response};
pub use dns::{Answer, Dns};
pub use finding::span;
pub use nginx::{Conf, ErrorLog, Nginx, netns_available};
pub use nginx_setup::Name;
pub use rustix::process::Signal;
pub use streams::Streams;
pub use upstream::guards::{
    FullBacklog, RefusedPort, dead_unix, full_backlog_tcp, full_backlog_unix, refused_port,
};
pub use upstream::{Conn, Gate, Step, Upstream, fastcgi, h2, protocol, script, tls};
pub use wait::{eventually, poll};

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

/// A temporary directory that workers running as another user can enter
/// (`tempfile` makes them 0700), with a path short enough for a unix socket.
pub fn temp_dir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("t-").tempdir().expect("temporary directory");
    // Not through the builder: that mode would go through the umask.
    set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod temporary directory");
    dir
}
