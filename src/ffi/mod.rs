//! Thin safe views over nginx: the only unsafe code of the module, and its panic boundary.
//!
//! A view is a pointer that nginx handed out and that is valid for as long as the C call into the
//! module lasts (nginx is single-threaded in a worker, and nothing here is kept beyond the call
//! unless its documentation says which pool keeps it alive). Views hand out plain values.

pub(crate) mod command;
pub(crate) mod conf;
pub(crate) mod filter;
pub(crate) mod guard;
pub(crate) mod hooks;
pub(crate) mod keepalive;
pub(crate) mod log;
pub(crate) mod module;
pub(crate) mod output;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod retry;
pub(crate) mod socket;
pub(crate) mod string;
pub(crate) mod time;
pub(crate) mod upstream;
pub(crate) mod variable;
pub(crate) mod watch;
pub(crate) mod zone;
