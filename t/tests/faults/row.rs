//! A row of the table.

use std::any::Any;
use std::sync::Arc;

use serde_json::{Value, json};
use t::protocol::{self, Protocol};

use crate::peer::Peer;

/// An error number with its name.
pub(crate) type Errno = (i32, &'static str);

pub(crate) const EPIPE: Errno = (32, "EPIPE");
pub(crate) const ECONNRESET: Errno = (104, "ECONNRESET");
pub(crate) const ECONNREFUSED: Errno = (111, "ECONNREFUSED");
pub(crate) const ETIMEDOUT: Errno = (110, "ETIMEDOUT");

/// nginx's words for a FIN.
pub(crate) const CLOSED: &str = "upstream prematurely closed connection";
/// nginx's words for a RST.
pub(crate) const RESET: &str = "recv() failed (104: Connection reset by peer)";
/// nginx's words for a timer that ran out.
pub(crate) const TIMED_OUT: &str = "upstream timed out (110: Connection timed out)";

/// How long nginx waits where it waits for nothing else before, milliseconds.
pub(crate) const SOON: u32 = 150;
/// The same where something has to come before that, which must not be late.
pub(crate) const LATER: u32 = 400;

/// What nginx is asked for.
pub(crate) enum Ask {
    Get,
    /// With a body of so many bytes.
    Post(usize),
    /// By a client that speaks HTTP/2.
    H2,
}

/// What comes before the request.
pub(crate) enum Before {
    Nothing,
    /// The same request, which is answered with this status. Its failure, if it is one, is
    /// another row's.
    Answer(u16),
    /// The same request, which the upstream has read and does not answer.
    Held,
    /// This is removed from nginx's directory.
    Removed(&'static str),
}

/// A fault, and what is to be said of it.
///
/// In its texts `{n}` stands for its number, `{u}` for its group of servers, `{addr}` for the
/// address, `{addr_port}` for its port, `{good}` for the address of an HTTP server without faults
/// and `{dns}` for that of a resolver.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) peer: Peer,
    /// The protocol; see [`row`].
    pub(crate) speaks: &'static str,
    /// nginx's module, as in the record; none where the cause is none of an upstream's.
    pub(crate) module: Option<&'static str>,
    /// The directive that passes the request on.
    pub(crate) pass: String,
    /// More of the location.
    pub(crate) location: String,
    /// More of the parameters of the server.
    pub(crate) server: &'static str,
    /// More of the group.
    pub(crate) group: &'static str,
    /// More of the block around the servers.
    pub(crate) http: &'static str,
    pub(crate) before: Before,
    pub(crate) ask: Ask,
    /// More of the client's header.
    pub(crate) header: &'static str,
    /// Files that the directives name.
    pub(crate) kept: Option<Arc<dyn Any>>,
    /// Not every nginx sees a fault here: one that does not passes the response on.
    pub(crate) lenient: bool,

    pub(crate) cause: &'static str,
    pub(crate) phase: Option<&'static str>,
    /// Those of which one is to be reported; none if empty.
    pub(crate) errnos: &'static [Errno],
    pub(crate) outcome: &'static str,
    pub(crate) origin: &'static str,
    /// The client's.
    pub(crate) status: u16,
    /// Of the attempt that failed.
    pub(crate) evidence: Value,
    /// nginx has then tried again, with success.
    pub(crate) retried: bool,
    /// Of the record, beside that.
    pub(crate) record: Value,
    /// Parts of the summary and of the advice.
    pub(crate) words: [&'static str; 2],
}

/// A fault of a server that is spoken to in a protocol, with TLS if the module's name has an "s"
/// behind it: `proxy`, `proxys`, `grpcs`, `uwsgis` and so on.
pub(crate) fn row(name: impl Into<String>, speaks: &'static str, peer: Peer) -> Row {
    let module = speaks.strip_suffix('s').unwrap_or(speaks);
    let scheme = match speaks {
        "proxy" => "http://",
        "proxys" => "https://",
        "grpcs" => "grpcs://",
        "uwsgis" => "suwsgi://",
        _ => "",
    };
    Row {
        name: name.into(),
        peer,
        speaks,
        module: Some(module),
        pass: format!("{module}_pass {scheme}{{u}};"),
        location: protocol_of(module).location.to_owned(),
        server: "",
        group: "",
        http: "",
        before: Before::Nothing,
        ask: Ask::Get,
        header: "",
        kept: None,
        lenient: false,
        cause: "",
        phase: None,
        errnos: &[],
        outcome: "",
        origin: "nginx",
        status: 0,
        evidence: json!({}),
        retried: false,
        record: json!({}),
        words: [""; 2],
    }
}

fn protocol_of(module: &str) -> Protocol {
    let known = protocol::all().into_iter().find(|protocol| protocol.name == module);
    known.unwrap_or_else(|| panic!("no module {module}"))
}

/// An error that no upstream has to do with: what the location consists of.
pub(crate) fn own(name: &str, location: &str) -> Row {
    let row = row(name, "proxy", Peer::Refused);
    Row { module: None, pass: String::new(), location: location.to_owned(), ..row }
}

impl Row {
    fn verdict(
        self,
        outcome: &'static str,
        status: u16,
        (cause, phase): (&'static str, &'static str),
        errnos: &'static [Errno],
    ) -> Self {
        Self { outcome, status, cause, phase: Some(phase), errnos, ..self }
    }

    /// The client got nginx's error: a 504 for a time that ran out, else a 502.
    pub(crate) fn failed(
        self,
        cause: &'static str,
        phase: &'static str,
        errnos: &'static [Errno],
    ) -> Self {
        let status = if cause.ends_with("_timed_out") && phase != "resolve" { 504 } else { 502 };
        self.verdict("failed", status, (cause, phase), errnos)
    }

    /// The client got a part of a response.
    pub(crate) fn truncated(
        self,
        cause: &'static str,
        phase: &'static str,
        errnos: &'static [Errno],
    ) -> Self {
        // Bytes without a status line are passed on as HTTP/0.9.
        let status = if phase == "body" { 200 } else { 9 };
        self.verdict("truncated", status, (cause, phase), errnos)
    }

    /// The client was served all the same.
    pub(crate) fn masked(
        self,
        cause: &'static str,
        phase: &'static str,
        errnos: &'static [Errno],
    ) -> Self {
        self.verdict("masked", 200, (cause, phase), errnos)
    }

    /// The client got the upstream's own error.
    pub(crate) fn passed(self, status: u16) -> Self {
        let evidence = json!({"status": status, "message": null});
        let cause = "upstream_response";
        Self { outcome: "passed", status, cause, origin: "upstream", ..self }.shows(evidence)
    }

    /// The client got an error that is none of an upstream request's.
    pub(crate) fn made(self, cause: &'static str, origin: &'static str, status: u16) -> Self {
        Self { outcome: "failed", status, cause, origin, ..self }
    }

    /// The client was served all the same, in spite of an error of the upstream's own.
    pub(crate) fn served(self) -> Self {
        Self { outcome: "masked", status: 200, ..self }
    }

    /// The client was served by the attempt that followed.
    pub(crate) fn retried(self) -> Self {
        Self { retried: true, ..self }
    }

    pub(crate) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Evidence of the attempt that failed.
    pub(crate) fn shows(mut self, evidence: Value) -> Self {
        merge(&mut self.evidence, &evidence);
        self
    }

    /// What else is in the record.
    pub(crate) fn record(mut self, record: Value) -> Self {
        merge(&mut self.record, &record);
        self
    }

    /// Parts of what people are told.
    pub(crate) fn says(self, summary: &'static str, advice: &'static str) -> Self {
        Self { words: [summary, advice], ..self }
    }

    /// Directives of the location.
    pub(crate) fn with(mut self, directives: impl AsRef<str>) -> Self {
        self.location.push_str(directives.as_ref());
        self
    }

    /// Lines of the client's header.
    pub(crate) fn header(self, header: &'static str) -> Self {
        Self { header, ..self }
    }

    pub(crate) fn before(self, before: Before) -> Self {
        Self { before, ..self }
    }

    /// With the time that nginx waits for something in the protocol at hand.
    pub(crate) fn waits(self, what: &str, milliseconds: u32) -> Self {
        let module = self.module.unwrap_or_default();
        self.with(format!("{module}_{what}_timeout {milliseconds}ms;"))
    }

    /// Another directive that passes the request on.
    pub(crate) fn pass(self, directive: &str) -> Self {
        Self { pass: directive.to_owned(), ..self }
    }

    pub(crate) fn group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    pub(crate) fn ask(self, ask: Ask) -> Self {
        Self { ask, ..self }
    }

    /// On a connection that a good request was served on before.
    pub(crate) fn reused(self) -> Self {
        let module = self.module.unwrap_or_default();
        let keeps = protocol_of(module).keeps;
        let keeps = keeps.unwrap_or_else(|| panic!("{module} keeps no connections"));
        Self { group: "keepalive 4;", before: Before::Answer(200), ..self }
            .with(keeps)
            .shows(json!({"reused": true}))
    }

    /// By a client that speaks HTTP/2, with a name that says so.
    pub(crate) fn by_h2(self) -> Self {
        Self { name: format!("{}, HTTP/2 client", self.name), ..self }.ask(Ask::H2)
    }
}

/// Sets the keys of an object in another.
pub(crate) fn merge(to: &mut Value, from: &Value) {
    let (Value::Object(to), Value::Object(from)) = (to, from) else { panic!("no object: {from}") };
    to.extend(from.clone());
}
