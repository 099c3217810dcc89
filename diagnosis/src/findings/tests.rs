//! For each finding: when it is given, near misses that stay silent, and the words.

mod ages;
mod configuration;
mod history;
mod host;

use super::*;
use crate::cause::Phase;
use crate::peer::State;
use crate::record::{PeerState, Tcp};
use crate::zone::Past;

/// A failed request. What is not said is as in an ordinary one.
#[derive(Clone)]
struct Case {
    cause: Cause,
    failed: Attempt,
    past: Option<Past>,
    outcome: Outcome,
    upstream: String,
    module: &'static str,
    method: &'static str,
    peers: Vec<PeerReport>,
    context: Context,
}

fn case(cause: Cause) -> Case {
    let failed = Attempt {
        peer: Some("10.0.3.7:8080".into()),
        cause: Some(cause),
        phase: cause.row().phase,
        ..Attempt::default()
    };
    Case {
        cause,
        failed,
        past: Some(Past::default()),
        outcome: Outcome::Failed,
        upstream: "app".into(),
        module: "proxy",
        method: "GET",
        peers: Vec::new(),
        context: Context { is_block: true, servers: Some(3), ..Context::default() },
    }
}

impl Case {
    fn findings(&self) -> Findings<'_> {
        findings(&Evidence {
            cause: self.cause,
            failed: &self.failed,
            past: self.past.as_ref(),
            outcome: self.outcome,
            upstream: Some(self.upstream.as_str().into()),
            module: Some(self.module),
            method: self.method.as_bytes(),
            peers: &self.peers,
            context: &self.context,
            // What a test finds it keeps to its end.
            arena: Box::leak(Box::default()),
        })
    }

    /// The finding with this code, if it is given.
    fn find(&self, code: Code) -> Option<&Finding<'_>> {
        self.findings().into_iter().find(|finding| finding.code == code)
    }

    fn is_silent(&self, code: Code) -> bool {
        self.find(code).is_none()
    }

    /// Checks everything that is said.
    fn expect(&self, code: Code, sure: Confidence, text: &str, evidence: &str, advice: &str) {
        let finding = self.find(code).unwrap_or_else(|| panic!("no {code:?}"));
        assert_eq!((finding.confidence, finding.text.to_string().as_str()), (sure, text));
        assert_eq!(finding.evidence.to_json(), evidence);
        assert_eq!(finding.advice.unwrap_or_default().to_string(), advice);
        self.check_advice();
        self.with(|case| {
            case.upstream = "long.example.com.".repeat(9);
            let unix = case.failed.peer.as_deref().is_some_and(|peer| peer.starts_with("unix:"));
            let tcp = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
            let long = if unix { format!("unix:/{}", "run/".repeat(25)) } else { tcp.into() };
            case.failed.peer = Some(long.into());
        })
        .check_advice();
    }

    /// Advice fits two lines, whatever the names.
    fn check_advice(&self) {
        for advice in self.findings().into_iter().filter_map(|finding| finding.advice) {
            assert!(advice.len() <= crate::words::LONGEST, "{} bytes: {advice}", advice.len());
        }
    }

    fn sure(&self, code: Code) -> Confidence {
        self.find(code).unwrap_or_else(|| panic!("no {code:?}")).confidence
    }

    fn with(&self, change: impl FnOnce(&mut Case)) -> Case {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn with_past(&self, change: impl FnOnce(&mut Past)) -> Case {
        self.with(|case| change(case.past.as_mut().unwrap()))
    }
}

fn tcp(idle: u64, since_sent: u64) -> Option<Tcp> {
    Some(Tcp {
        state: "CLOSE_WAIT",
        rtt: Seconds::Micros(39),
        retransmits: 0,
        idle: Some(Seconds::Millis(idle)),
        since_sent: Some(Seconds::Millis(since_sent)),
    })
}

/// Guards against evidence under a key that the documentation does not have, whatever is found:
/// the assertions in `Finding::fact` see to that. And against the weaker coming first.
#[test]
fn the_strongest_comes_first() {
    let cluster = crate::zone::Cluster { from: 4_990, to: 5_020, mean: 5_000, count: 3, latest: 3 };
    let idle = crate::zone::Closes { total: 3, latest: 3, clusters: vec![cluster] };
    let race = case(Cause::KeepaliveRace)
        .with(|case| {
            case.failed.tcp = tcp(5_001, 1);
            case.context.servers = Some(1);
        })
        .with_past(|past| past.idle = idle);
    let codes = |case: &Case| -> Vec<&str> {
        case.findings().iter().map(|finding| finding.code.slug()).collect()
    };
    // Three closes may be chance, and one server is one server.
    assert_eq!(codes(&race), ["single_server", "idle_timeout"]);
    let sure = race.with_past(|past| {
        past.idle.clusters[0].latest = 6;
        past.idle.latest = 6;
    });
    assert_eq!(codes(&sure), ["idle_timeout", "single_server"]);
    let finding = sure.findings().remove(0);
    let mut json = Vec::new();
    finding.write_to(&mut json);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "confidence", "evidence", "text"]);
}

/// Guards against a name from a variable that breaks a log or a header.
#[test]
fn hostile_names_are_made_plain() {
    let evil = case(Cause::ConnectionRefused).with(|case| {
        case.failed.peer = Some("unix:/a\r\nX: y".into());
        case.context.host = Some(Host::Unix { listener: Listening::Nobody, process: None });
    });
    for finding in evil.findings() {
        assert!(!finding.text.to_string().contains(char::is_control), "{finding:?}");
    }
}

/// Guards against conclusions from nothing.
#[test]
fn without_evidence_there_is_silence() {
    for cause in Cause::ALL {
        let bare = case(*cause).with(|case| {
            case.past = None;
            case.context = Context::default();
        });
        assert!(bare.findings().is_empty(), "{cause:?}");
        let empty = case(*cause);
        assert!(empty.findings().is_empty(), "{cause:?}: {:?}", empty.findings());
    }
}
