//! From what was seen to what it means.
//!
//! A cause is what was observed. What is concluded from history, from the host or from the
//! configuration is a finding: it never changes the cause, says how sure it is, and is silent where
//! its evidence is not there.

mod ages;
mod code;
mod configuration;
mod context;
mod facts;
mod history;
mod host;
mod page;
#[cfg(test)]
mod tests;

pub use code::{Code, Confidence, Row};
pub use context::{Context, Host, Listener, Listening, NotRetried, Process, Sibling};
pub use facts::{Fact, Facts, Key, Kind};
pub use page::page;

use smallvec::SmallVec;

use crate::cause::Cause;
use crate::json::{key, object};
use crate::outcome::Outcome;
use crate::record::{Attempt, PeerName, PeerReport};
use crate::seconds::Seconds;
use crate::words::Name;
use crate::words::phrase::{Arena, Part, Phrase, Quoted, say};
use crate::zone::Past;

/// What is known of a failed request: what conclusions are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The cause of the verdict.
    pub cause: Cause,
    /// The attempt that the verdict is of.
    pub failed: &'a Attempt,
    /// What is known of its peer from before.
    pub past: Option<&'a Past>,
    /// What the client got.
    pub outcome: Outcome,
    /// Name of the upstream group, or the address where there is no group.
    pub upstream: Option<Name<'a>>,
    /// The protocol module.
    pub module: Option<&'a str>,
    /// The request's method.
    pub method: &'a [u8],
    /// The group's peers, where none of them could be chosen.
    pub peers: &'a [PeerReport],
    /// What is known beyond that.
    pub context: &'a Context,
    /// Where conclusions and their texts are until they are written.
    pub arena: &'a Arena,
}

/// A conclusion.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// What it is.
    pub code: Code,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence.
    pub text: Phrase<'a>,
    /// What it was concluded from.
    pub evidence: Facts<'a>,
    /// What to do, where it tells better than the cause does.
    pub(crate) advice: Option<Phrase<'a>>,
    /// What it adds to the record's summary: few do.
    pub(crate) clause: Option<Phrase<'a>>,
}

/// Most failures have fewer findings than have room in here.
pub type Findings<'a> = SmallVec<[&'a Finding<'a>; 4]>;

/// What a rule gives.
type Found<'a> = Option<&'a mut Finding<'a>>;

/// Draws all conclusions, the strongest first.
pub fn findings<'a>(evidence: &Evidence<'a>) -> Findings<'a> {
    let e = evidence;
    let mut found = Findings::new();
    let mut add = |finding: Found<'a>| match finding {
        Some(finding) => {
            found.push(finding);
            true
        }
        None => false,
    };
    let nobody = add(host::nothing_listening(e));
    add(host::bound_elsewhere(e));
    add(host::backlog_full(e));
    let idle = ages::idle_timeout(e);
    let likely_idle = idle.as_ref().is_some_and(|idle| idle.confidence <= Confidence::Likely);
    add(idle);
    add(configuration::buffer_too_small(e));
    add(ages::request_timeout(e));
    add(history::flapping(e));
    add(host::restarted(e).or_else(|| history::restarted(e)));
    add(history::went_away(e, nobody));
    add(history::never_connected(e));
    add(configuration::ejected_healthy(e, likely_idle));
    add(configuration::not_retried(e));
    add(configuration::single_server(e));
    // What is only possible explains less than what is likely, whatever it is.
    found.sort_by_key(|f| (f.confidence == Confidence::Possible, f.code));
    found
}

impl<'a> Finding<'a> {
    fn new(
        e: &Evidence<'a>,
        (code, confidence): (Code, Confidence),
        text: Phrase<'a>,
    ) -> &'a mut Finding<'a> {
        let evidence = Facts::new(e.arena);
        e.arena.alloc(Finding { code, confidence, text, evidence, advice: None, clause: None })
    }

    fn fact(&'a mut self, key: Key, fact: Fact<'a>) -> &'a mut Finding<'a> {
        debug_assert!(self.code.row().evidence.contains(&key), "{key:?} of {:?}", self.code);
        debug_assert_eq!(fact.kind(), key.kind(), "{key:?}");
        self.evidence.add(key, fact);
        self
    }

    fn count(&'a mut self, key: Key, count: impl Into<u64>) -> &'a mut Finding<'a> {
        self.fact(key, Fact::Count(count.into()))
    }

    fn time(&'a mut self, key: Key, millis: u64) -> &'a mut Finding<'a> {
        self.fact(key, Fact::Time(Seconds::Millis(millis)))
    }

    fn peer(&'a mut self, e: &Evidence<'a>) -> &'a mut Finding<'a> {
        self.fact(Key::Peer, Fact::Text(Part::Name(e.peer())))
    }

    fn advise(&'a mut self, advice: impl Into<Option<Phrase<'a>>>) -> &'a mut Finding<'a> {
        self.advice = advice.into();
        self
    }

    /// Writes it as JSON.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.member(self.code.row().member);
            o.member(self.confidence.member());
            o.phrase(key!("text"), &self.text);
            o.object(key!("evidence"), |o| self.evidence.members(o));
        });
    }
}

/// Longest name in advice: that of an IPv6 address with its port.
const SHORT: usize = 47;

impl<'a> Evidence<'a> {
    /// The peer's name, or what stands for it.
    fn peer(&self) -> Name<'a> {
        let peer = self.failed.peer.as_ref().map(PeerName::name);
        peer.or(self.upstream).unwrap_or_else(|| Name::known("the upstream", true))
    }

    /// The peer's name for advice, which is to fit two lines.
    fn short_peer(&self) -> Name<'a> {
        let peer = self.peer();
        if peer.text().len() <= SHORT { peer } else { Name::known("that server", true) }
    }

    /// The upstream block, for advice. The name of one only if there is one.
    fn block(&self) -> Phrase<'a> {
        match self.upstream.filter(|name| name.text().len() <= SHORT) {
            Some(name) if self.context.is_block => say![self.arena, "upstream ", Quoted(name)],
            _ => say![self.arena, "the upstream block"],
        }
    }

    /// Where the peer's address stands, for advice.
    fn place(&self) -> Phrase<'a> {
        if self.context.is_block { self.block() } else { say![self.arena, "nginx's configuration"] }
    }
}
