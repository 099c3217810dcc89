//! What goes out: variables, log lines, the status document.

mod emit;
mod status;
mod variables;

pub(crate) use emit::emit;
pub(crate) use status::status;
pub(crate) use variables::{VARIABLES, variable};

use diagnosis::{Ending, Outcome, Record, Seconds};

use crate::directives::LocConf;
use crate::ffi::request::Request;
use crate::ffi::time;
use crate::observe::{self, Assembled};
use crate::record::{Diagnosis, Group};

/// A diagnosed request: its attempts, and what became of it.
pub(crate) struct Diagnosed<'a> {
    request: Request<'a>,
    assembled: Assembled,
    status: u16,
    outcome: Outcome,
}

impl<'a> Diagnosed<'a> {
    /// Looks at a request as it stands. `None` if no upstream of it failed.
    fn new(request: Request<'a>, diagnosis: Option<&Diagnosis>) -> Option<Diagnosed<'a>> {
        let assembled = observe::assemble(request, diagnosis)?;
        let cause = assembled.failed()?.cause?;
        // While an error page is on its way the response has no status yet: nginx has decided
        // on one all the same.
        let status = match request.status() {
            0 => last_group(request, diagnosis)
                .and_then(|group| group.ended)
                .and_then(|ended| ended.status)
                .unwrap_or(0),
            status => status,
        };
        let outcome = diagnosis::outcome(&Ending {
            cause,
            status,
            cut_short: assembled.cut_short(),
            client_gone: request.client_gone(),
        });
        Some(Diagnosed { request, assembled, status, outcome })
    }

    /// The configuration that decides where the record goes: that of the location in which the
    /// upstream failed. After a redirect to an error page the request is in another one.
    fn conf(&self, diagnosis: Option<&Diagnosis>) -> Option<&'static LocConf> {
        match last_group(self.request, diagnosis) {
            Some(group) => Some(group.conf),
            None => self.request.loc_conf(),
        }
    }

    /// The whole record.
    fn record(self, diagnosis: Option<&Diagnosis>) -> Option<Record> {
        let request = self.request;
        let group = last_group(request, diagnosis);
        let upstream = request.upstream();
        let name = group.map(|group| group.name.clone());
        let module = group.map(|group| group.module.clone());
        Record::new(diagnosis::Parts {
            request: self.facts(group),
            outcome: self.outcome,
            upstream: name.unwrap_or_else(|| upstream.and_then(|u| u.group_name())),
            module: module.unwrap_or_else(|| upstream.and_then(|u| u.module())),
            request_time: Seconds::Millis(request.time()),
            attempts: self.assembled.attempts().cloned().collect(),
            peers: group.map(|group| group.peers.clone()).unwrap_or_default(),
        })
    }

    fn facts(&self, group: Option<&Group>) -> diagnosis::Request {
        let request = self.request;
        let keep_query = request.loc_conf().is_some_and(LocConf::keeps_query);
        let index = request.main_conf().and_then(|conf| conf.request_id);
        diagnosis::Request {
            time: time::iso8601(),
            pid: std::process::id().into(),
            connection: request.connection_number(),
            request_id: index.and_then(|index| request.variable(index)).map(diagnosis::text),
            client: diagnosis::text(request.client()),
            server: diagnosis::text(request.server()),
            host: Some(request.host()).filter(|host| !host.is_empty()).map(diagnosis::text),
            method: diagnosis::text(request.method()),
            uri: group
                .map(|group| group.uri.clone())
                .unwrap_or_else(|| observe::uri(request, keep_query)),
            location: group
                .map(|group| group.location.clone())
                .unwrap_or_else(|| diagnosis::text(request.location())),
            subrequest: !request.is_main(),
            status: self.status,
        }
    }
}

/// The last upstream request of which something was noted.
fn last_group<'d>(request: Request<'_>, diagnosis: Option<&'d Diagnosis>) -> Option<&'d Group> {
    diagnosis?.of(request.id()).next_back()
}
