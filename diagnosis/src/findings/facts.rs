//! What a finding was concluded from: a small JSON object.

use bumpalo::collections::Vec as ArenaVec;

use crate::json::{self, Object, object};
use crate::seconds::Seconds;
use crate::words::phrase::{Arena, Part};

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Count,
    /// Seconds.
    Time,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// True or false.
    Flag,
}

macro_rules! keys {
    ($( $name:ident = $slug:literal, $kind:ident, $meaning:literal; )+) => {
        /// A key of the evidence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Key { $( #[doc = $meaning] $name, )+ }

        impl Key {
            /// Every key.
            pub const ALL: &'static [Key] = &[ $( Key::$name, )+ ];

            /// Its name.
            pub const fn slug(self) -> &'static str {
                match self { $( Key::$name => $slug, )+ }
            }

            /// What its value is.
            pub const fn kind(self) -> Kind {
                match self { $( Key::$name => Kind::$kind, )+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $( Key::$name => $meaning, )+ }
            }
        }
    };
}

keys! {
    Age = "age", Time, "age at which this connection was closed";
    From = "from", Time, "lowest age of the closes that are alike";
    To = "to", Time, "highest age of them";
    AtAge = "at_age", Count, "closes between these ages";
    Closes = "closes", Count, "all closes";
    Latest = "latest", Count, "the latest closes that are looked at";
    LatestAtAge = "latest_at_age", Count, "those of them between these ages";
    KeepaliveTimeout = "keepalive_timeout", Time, "`keepalive_timeout` of the upstream block";
    Set = "set", Text, "the value to set, as it is written in the configuration";
    Size = "size", Count, "bytes of the response header";
    Exact = "exact", Flag, "it ends there; otherwise it is at least that long";
    Limit = "limit", Count, "bytes that the buffer has room for";
    Queue = "queue", Count, "connections that wait to be accepted";
    Backlog = "backlog", Count, "connections that the queue has room for";
    Port = "port", Count, "the port";
    ListensOn = "listens_on", Texts, "the addresses that have the port open, four at most";
    Began = "began", Time, "since the first connection failed";
    Ended = "ended", Time, "since one was made again";
    Outages = "outages", Count, "outages that are known";
    Within = "within", Time, "since the first of them began";
    Took = "took", Time, "how long no connection was made";
    LastOk = "last_ok", Time, "since the last good answer";
    Ok = "ok", Count, "good answers";
    Failures = "failures", Count, "failed attempts since then; of a peer that never answered, all of them; of an outage, as far as 255";
    FailingFor = "failing_for", Time, "since the first of those";
    KnownFor = "known_for", Time, "since the peer was configured, or first used";
    Siblings = "siblings", Count, "other servers of the group that have answered within the last minute";
    FileType = "file_type", Text, "what is in the place of the socket: `regular file`, `directory`, `pipe`, `device`";
    Pid = "pid", Count, "the process that listens";
    Started = "started", Time, "since it started";
    Peer = "peer", Text, "the peer";
    Peers = "peers", Texts, "the peers that are out for that cause, sixteen at most";
    Ejected = "ejected", Count, "how many peers are";
    MaxFails = "max_fails", Count, "`max_fails` of the peer";
    FailTimeout = "fail_timeout", Time, "`fail_timeout` of the peer";
    Reason = "reason", Text, "why: `not_configured`, `non_idempotent`, `tries`, `timeout`, `no_server_left`, `request_not_buffered`, `response_started`";
    Servers = "servers", Count, "servers of the group, backup servers too";
    Tries = "tries", Count, "`proxy_next_upstream_tries`";
    Timeout = "timeout", Time, "`proxy_next_upstream_timeout`";
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact<'a> {
    /// A whole number.
    Count(u64),
    /// Seconds.
    Time(Seconds),
    /// A text.
    Text(Part<'a>),
    /// A list of texts.
    Texts(&'a [Part<'a>]),
    /// True or false.
    Flag(bool),
}

impl Fact<'_> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Fact::Count(_) => Kind::Count,
            Fact::Time(_) => Kind::Time,
            Fact::Text(_) => Kind::Text,
            Fact::Texts(_) => Kind::Texts,
            Fact::Flag(_) => Kind::Flag,
        }
    }
}

/// The evidence of a finding, in the order in which it was added.
#[derive(Clone, Debug)]
pub struct Facts<'a>(ArenaVec<'a, (Key, Fact<'a>)>);

/// Room for what most findings have.
const USUAL: usize = 4;

impl<'a> Facts<'a> {
    pub(super) fn new(arena: &'a Arena) -> Facts<'a> {
        Facts(ArenaVec::with_capacity_in(USUAL, arena))
    }

    pub(super) fn add(&mut self, key: Key, fact: Fact<'a>) {
        self.0.push((key, fact));
    }

    /// The value of a key.
    pub fn get(&self, key: Key) -> Option<&Fact<'a>> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, fact)| fact)
    }

    /// All there is.
    pub fn iter(&self) -> impl Iterator<Item = &(Key, Fact<'a>)> {
        self.0.iter()
    }

    /// As a JSON object.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        object(&mut out, |o| self.members(o));
        String::from_utf8(out).unwrap_or_default()
    }

    pub(super) fn members(&self, o: &mut Object<'_>) {
        for (key, fact) in &self.0 {
            let out = o.word_key(key.slug());
            match fact {
                Fact::Count(count) => json::number(out, *count),
                Fact::Time(time) => time.write_to(out),
                Fact::Text(text) => text.write_json(out),
                Fact::Texts(texts) => json::list(out, *texts, |out, text| text.write_json(out)),
                Fact::Flag(flag) => json::flag(out, *flag),
            }
        }
    }
}
