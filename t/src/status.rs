//! The status document, and what is in it.

use serde_json::Value;

use crate::client::Response;
use crate::nginx::Nginx;
use crate::schema::check_status;

/// The status document, from the second server.
///
/// # Panics
/// When it is none.
pub fn status(nginx: &Nginx) -> Value {
    status_in(&nginx.connect_to(1).get("/"))
}

/// The status document at a path of the first server.
///
/// # Panics
/// When it is none.
pub fn status_at(nginx: &Nginx, path: &str) -> Value {
    status_in(&nginx.get(path))
}

/// The status document that came as a response.
///
/// # Panics
/// When it is none.
pub fn status_in(response: &Response) -> Value {
    let text = response.text();
    assert_eq!((response.status, response.truncated), (200, false), "{text}");
    let document = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    check_status(&document);
    document
}

/// A peer in the status document; the empty name is that of attempts without one.
///
/// # Panics
/// When it is not there, or twice.
pub fn peer<'a>(status: &'a Value, upstream: &str, name: &str) -> &'a Value {
    let peers = &status["upstreams"][upstream]["peers"];
    let all = peers.as_array().into_iter().flatten();
    let mut found = all.filter(|peer| peer["peer"].as_str().unwrap_or_default() == name);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "{name} is twice in {upstream}: {peers:#}");
    first.unwrap_or_else(|| panic!("no {name:?} in {upstream:?}: {:#}", status["upstreams"]))
}

/// How often a peer was asked: well, in vain, and not to the end.
///
/// # Panics
/// When it is no peer, or its sums are not those of its parts.
pub fn counts(peer: &Value) -> [u64; 3] {
    let [requests, ok, failed, aborted] = ["requests", "ok", "failed", "aborted"]
        .map(|key| peer[key].as_u64().unwrap_or_else(|| panic!("no {key} in {peer:#}")));
    let causes = peer["causes"].as_object().into_iter().flatten();
    let causes: u64 = causes.filter_map(|(_, count)| count.as_u64()).sum();
    assert_eq!((requests, causes), (ok + failed + aborted, failed), "{peer:#}");
    [ok, failed, aborted]
}
