//! A record as JSON.

use super::{Attempt, Header, PeerReport, PeerState, Record, Request, Tally, Tcp};
use crate::errno;
use crate::json::{Member, Object, end_object, key, member, object};
use crate::seconds::Seconds;
use crate::tls::Tls;

/// Version of the JSON object.
const VERSION: u8 = 1;

/// Room for a record with one attempt.
const USUAL: usize = 2_048;

impl Record<'_, '_> {
    /// One line of JSON, without a line feed.
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(USUAL);
        self.write_to(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// As [`Record::to_json`], written behind what is in a buffer.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(USUAL);
        let start = out.len();
        self.members(&mut Object::begun(out));
        end_object(out, start);
    }

    #[inline(always)]
    fn members(&self, o: &mut Object<'_>) {
        o.number(key!("v"), VERSION);
        self.parts.request.members(o);
        o.member(self.parts.outcome.member());
        o.member(self.origin.member());
        o.member(self.cause.row().member);
        if let Some(phase) = self.phase {
            o.member(phase.member());
        }
        o.member(self.cause.row().error_member);
        o.phrase(key!("summary"), &self.summary);
        o.phrase(key!("advice"), &self.advice);
        if !self.findings.is_empty() {
            o.list(key!("findings"), &self.findings, |out, finding| finding.write_to(out));
        }
        if let Some(upstream) = self.upstream {
            o.name(key!("upstream"), upstream);
        }
        if let Some(module) = self.parts.module {
            o.word(key!("module"), module);
        }
        o.time(key!("request_time"), self.parts.request_time);
        o.list(key!("attempts"), &self.parts.attempts, |out, attempt| {
            object(out, |o| attempt.attempt().members(o));
        });
        if !self.peers.is_empty() {
            o.list(key!("peers"), self.peers, |out, peer| object(out, |o| peer.members(o)));
        }
    }
}

/// The line of a record, with the number of lines that were left out of a log before it.
pub fn with_suppressed(line: &[u8], suppressed: u64) -> Vec<u8> {
    let mut with = line.strip_suffix(b"}\n").unwrap_or(line).to_vec();
    with.extend_from_slice(b",\"suppressed\":");
    crate::json::number(&mut with, suppressed);
    with.extend_from_slice(b"}\n");
    with
}

impl Request<'_> {
    fn members(&self, o: &mut Object<'_>) {
        o.ascii(key!("time"), &self.time);
        o.number(key!("pid"), self.pid);
        o.number(key!("connection"), self.connection);
        if let Some(id) = self.request_id {
            o.bytes(key!("request_id"), id);
        }
        o.bytes(key!("client"), self.client);
        o.bytes(key!("server"), self.server);
        if let Some(host) = self.host {
            o.bytes(key!("host"), host);
        }
        match self.method {
            // Most are.
            b"GET" => o.member(member!("method", "GET")),
            other => o.bytes(key!("method"), other),
        }
        o.bytes(key!("uri"), &self.uri);
        if let Some(location) = self.location {
            o.bytes(key!("location"), location);
        }
        if self.subrequest {
            o.flag(key!("subrequest"), true);
        }
        if self.status != 0 {
            status(o, self.status);
        }
    }
}

fn status(o: &mut Object<'_>, status: u16) {
    match status {
        // Most are one of these.
        502 => o.member(Member(r#","status":502"#)),
        504 => o.member(Member(r#","status":504"#)),
        200 => o.member(Member(r#","status":200"#)),
        other => o.number(key!("status"), other),
    }
}

impl Attempt {
    pub(super) fn members(&self, o: &mut Object<'_>) {
        if let Some(peer) = &self.peer {
            peer.member(o);
        }
        if let Some(cause) = self.cause {
            o.member(cause.row().member);
        }
        if self.undiagnosed {
            o.flag(key!("diagnosed"), false);
        }
        if let Some(phase) = self.phase {
            o.member(phase.member());
        }
        if let Some(status) = self.status {
            self::status(o, status);
        }
        match self.message.as_ref().and_then(|message| message.json(self.errno)) {
            Some(json) => o.members(json),
            None => say(o, self.errno, self.message.as_deref()),
        }
        if let Some(time) = self.connect_time {
            o.time(key!("connect_time"), time);
        }
        if let Some(time) = self.elapsed {
            o.time(key!("elapsed"), time);
        }
        if let Some(reused) = self.reused {
            o.flag(key!("reused"), reused);
        }
        if let Some(sent) = self.bytes_sent {
            o.number(key!("bytes_sent"), sent);
        }
        if let Some(received) = self.bytes_received {
            o.number(key!("bytes_received"), received);
        }
        if let Some(header) = &self.header {
            o.object(key!("header"), |o| header.members(o));
        }
        if let Some(bytes) = &self.first_bytes {
            o.text(key!("first_bytes"), bytes);
        }
        if let Some(stderr) = &self.stderr {
            o.text(key!("stderr"), stderr);
        }
        if let Some(tls) = &self.tls {
            o.object(key!("tls"), |o| tls.members(o));
        }
        if let Some(tcp) = &self.tcp {
            o.object(key!("tcp"), |o| tcp.members(o));
        }
        if let Some(state) = &self.peer_state {
            o.object(key!("peer_state"), |o| state.members(o));
        }
        if let Some(history) = &self.history {
            o.object(key!("history"), |o| history.members(o));
        }
    }
}

/// What an error number and a message are written as: members of an object, to be kept.
pub(crate) fn said(errno: Option<i32>, message: &str) -> Vec<u8> {
    let mut json = Vec::new();
    say(&mut Object::begun(&mut json), errno, Some(message));
    json
}

fn say(o: &mut Object<'_>, number: Option<i32>, message: Option<&str>) {
    if let Some(number) = number {
        o.number(key!("errno"), number);
    }
    if let Some(name) = number.and_then(errno::name) {
        o.word(key!("errname"), name);
    }
    if let Some(message) = message {
        o.text(key!("message"), message);
    }
}

impl Header {
    fn members(&self, o: &mut Object<'_>) {
        o.number(key!("size"), self.size);
        o.flag(key!("exact"), self.exact);
        o.number(key!("limit"), self.limit);
        if let Some(directive) = self.directive {
            o.word(key!("directive"), directive);
        }
    }
}

impl Tls {
    fn members(&self, o: &mut Object<'_>) {
        if let Some(verify) = &self.verify {
            o.text(key!("verify"), verify);
        }
        if let Some(alert) = self.alert {
            o.number(key!("alert"), alert);
        }
    }
}

impl Tcp {
    fn members(&self, o: &mut Object<'_>) {
        o.word(key!("state"), self.state);
        o.time(key!("rtt"), self.rtt);
        o.number(key!("retransmits"), self.retransmits);
        if let Some(idle) = self.idle {
            o.time(key!("idle"), idle);
        }
        if let Some(since) = self.since_sent {
            o.time(key!("since_sent"), since);
        }
    }
}

impl PeerState {
    fn members(&self, o: &mut Object<'_>) {
        o.member(self.state.member());
        o.number(key!("fails"), self.fails);
        if (self.max_fails, self.fail_timeout) == (1, Seconds::Whole(10)) {
            o.member(USUAL_LIMITS);
        } else {
            o.number(key!("max_fails"), self.max_fails);
            o.time(key!("fail_timeout"), self.fail_timeout);
        }
        if let Some(time) = self.unavailable_for {
            o.time(key!("unavailable_for"), time);
        }
        let rest = (self.down, self.backup, self.weight, self.conns, self.max_conns);
        if rest == (false, false, 1, 0, 0) {
            // Most have nothing configured.
            o.member(PLAIN_PEER);
            return;
        }
        o.flag(key!("down"), self.down);
        o.flag(key!("backup"), self.backup);
        o.number(key!("weight"), self.weight);
        o.number(key!("conns"), self.conns);
        o.number(key!("max_conns"), self.max_conns);
    }
}

/// nginx's own values of the two parameters.
const USUAL_LIMITS: Member = Member(r#","max_fails":1,"fail_timeout":10"#);

/// What is said of a peer without parameters that nothing else is connected to.
const PLAIN_PEER: Member =
    Member(r#","down":false,"backup":false,"weight":1,"conns":0,"max_conns":0"#);

impl Tally {
    fn members(&self, o: &mut Object<'_>) {
        o.number(key!("ok"), self.ok);
        o.number(key!("failed"), self.failed);
        if let Some(time) = self.last_ok {
            o.time(key!("last_ok"), time);
        }
        o.number(key!("consecutive_failures"), self.consecutive_failures);
    }
}

impl PeerReport {
    fn members(&self, o: &mut Object<'_>) {
        o.text(key!("peer"), &self.peer);
        o.member(self.state.member());
        if let Some(time) = self.unavailable_for {
            o.time(key!("unavailable_for"), time);
        }
        if self.backup {
            o.flag(key!("backup"), true);
        }
        if let Some(cause) = self.last_cause {
            o.word(key!("last_cause"), cause.slug());
        }
        if let Some(time) = self.last_failed {
            o.time(key!("last_failed"), time);
        }
    }
}
