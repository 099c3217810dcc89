//! Which of the latest records a client wants.

use serde::Deserialize;

use super::Query;

/// What is asked of a record.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    upstream: String,
    cause: String,
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    #[serde(default)]
    peer: String,
}

impl Query {
    /// Those of the records that are asked for, in their order. A record that was torn by a crash
    /// is none that a filter can find.
    pub fn select(&self, records: &[&[u8]]) -> Vec<String> {
        let all = self.upstream.is_none() && self.peer.is_none() && self.cause.is_none();
        // Without a filter nothing has to be taken apart.
        let wanted = |json: &&&[u8]| {
            all || serde_json::from_slice(json).is_ok_and(|record| self.wants(&record))
        };
        let limit = self.limit.unwrap_or(usize::MAX);
        let wanted = records.iter().filter(wanted).take(limit);
        wanted.map(|json| String::from_utf8_lossy(json).into_owned()).collect()
    }

    fn wants(&self, record: &Record) -> bool {
        let peer = |wanted: &String| record.attempts.iter().any(|attempt| attempt.peer == *wanted);
        self.upstream.as_ref().is_none_or(|wanted| is_upstream(&record.upstream, wanted))
            && self.cause.is_none_or(|cause| cause.slug() == record.cause)
            && self.peer.as_ref().is_none_or(peer)
    }
}

/// Whether an upstream has this name. nginx's name of one that is a unix socket is the path alone,
/// and who reads `unix:` before it in nginx.conf, or in the name of the peer, asks for that.
fn is_upstream(name: &str, wanted: &str) -> bool {
    name == wanted || (name.starts_with('/') && wanted.strip_prefix("unix:") == Some(name))
}
