//! What goes out: variables, log lines, the status document.

mod emit;
mod status;
mod variables;

pub(crate) use emit::emit;
pub(crate) use status::status;
pub(crate) use variables::{VARIABLES, variable};

use std::borrow::Cow;
use std::sync::LazyLock;

use diagnosis::zone::Place;
use diagnosis::{Cause, Context, Ending, Outcome, Phase, Seconds};

use crate::directives::LocConf;
use crate::ffi::request::Request;
use crate::ffi::{process, time};
use crate::observe::{self, Assembled};
use crate::record::{Diagnosis, Group};

/// A diagnosed request: its attempts, and what became of it.
pub(crate) struct Diagnosed<'a, 'd> {
    request: Request<'a>,
    assembled: Assembled<'d>,
    /// The verdict.
    cause: Cause,
    /// The cause, where no attempt failed.
    own: Option<Cause>,
    /// The upstream request that the verdict is of, where something was noted of it.
    group: Option<&'d Group>,
    status: u16,
    outcome: Outcome,
}

impl<'a, 'd> Diagnosed<'a, 'd> {
    /// Looks at a request as it stands. `None` if there is no failure to report.
    fn new(request: Request<'a>, diagnosis: Option<&'d Diagnosis>) -> Option<Diagnosed<'a, 'd>> {
        let assembled = observe::assemble(request, diagnosis);
        let failed = assembled.failed().and_then(|failed| failed.cause);
        // An error of the main request's can also be what became of a subrequest's.
        let explained =
            failed.is_some() || diagnosis.is_some_and(|d| failed_subrequest(request, d).is_some());
        let noted = || diagnosis.and_then(|d| d.of(request.id()).find(|g| g.own.is_some()));
        let group = assembled.failed_group().or_else(noted);
        let own = match (explained, request.is_main()) {
            (true, _) => None,
            (false, true) => observe::own_error(request),
            (false, false) => group.and_then(|group| group.own),
        };
        let cause = failed.or(own)?;
        // While an error page is on its way the response has no status yet: nginx has decided
        // on one all the same.
        let status = match request.status() {
            0 => group.and_then(|group| group.ended).and_then(|ended| ended.status).unwrap_or(0),
            status => status,
        };
        let outcome = diagnosis::outcome(&Ending {
            cause,
            answer: match cause {
                Cause::UpstreamResponse => assembled.failed().and_then(|failed| failed.answer),
                _ => None,
            },
            status,
            cut_short: assembled.cut_short(),
            client_gone: request.client_gone(),
        });
        Some(Diagnosed { request, assembled, cause, own, group, status, outcome })
    }

    /// The configuration that decides where the record goes: that of the location in which the
    /// upstream failed. After a redirect to an error page the request is in another one.
    fn conf(&self) -> Option<&'static LocConf> {
        match self.group {
            Some(group) => Some(group.conf),
            None => self.request.loc_conf(),
        }
    }

    /// Where the failed peer is counted, if that was noted.
    fn place(&self) -> Option<Place<'static>> {
        self.assembled.failed_place()
    }

    fn phase(&self) -> Option<Phase> {
        self.assembled.failed()?.phase
    }

    /// What a record is made of.
    ///
    /// `place`: that of [`Diagnosed::place`]. The histories of what was noted have to be there
    /// ([`observe::add_histories`]).
    fn parts(mut self, place: Option<Place<'static>>) -> diagnosis::Parts<'a>
    where
        'd: 'a,
    {
        static UNKNOWN: LazyLock<Context> = LazyLock::new(Context::default);
        let request = self.request;
        observe::add_other_histories(request, &mut self.assembled);
        let group = self.group;
        let upstream = request.upstream().filter(|_| self.own != Some(Cause::LocalReturn));
        let (name, module) = match group {
            Some(group) => (group.name.clone(), group.module),
            None => (upstream.and_then(|u| u.group_name()), upstream.and_then(|u| u.module())),
        };
        diagnosis::Parts {
            request: self.facts(group),
            outcome: self.outcome,
            upstream: name,
            module,
            request_time: Seconds::Millis(request.time()),
            past: observe::past(request, &self.assembled, place),
            own: self.own.map(|cause| diagnosis::Parts::own(cause, self.status)),
            attempts: self.assembled.into_attempts(),
            peers: group.map(|group| group.peers.as_slice()).unwrap_or_default(),
            context: group.map_or_else(|| &*UNKNOWN, |group| &group.context),
        }
    }

    #[inline(always)]
    fn facts(&self, group: Option<&'d Group>) -> diagnosis::Request<'a>
    where
        'd: 'a,
    {
        let request = self.request;
        let keep_query = self.conf().is_some_and(LocConf::keeps_query);
        let index = request.main_conf().and_then(|conf| conf.request_id);
        diagnosis::Request {
            time: time::iso8601(),
            pid: process::id(),
            connection: request.connection_number(),
            request_id: index.and_then(|index| request.variable(index)),
            client: request.client(),
            server: request.server(),
            host: Some(request.host()).filter(|host| !host.is_empty()),
            method: request.method(),
            uri: group
                .and_then(|group| group.uri.as_deref())
                .map(|uri| Cow::Borrowed(uri.as_bytes()))
                .unwrap_or_else(|| observe::uri(request, keep_query)),
            location: match group {
                Some(group) => Some(group.location),
                None if self.own.is_some() && request.is_on_error_page() => None,
                None => Some(request.location()),
            },
            subrequest: !request.is_main(),
            status: self.status,
        }
    }
}

/// The subrequest that explains a main request's error, where the main request has no failure of
/// its own: an auth_request that could not ask, for one. What was made good explains nothing, and
/// nothing waits for one in the background (a mirror, an update of the cache).
fn failed_subrequest<'a>(request: Request<'a>, diagnosis: &Diagnosis) -> Option<Request<'a>> {
    if !request.is_main() || request.status() < 500 {
        return None;
    }
    let ids = diagnosis.subrequests(request.id());
    ids.into_iter().rev().find_map(|id| {
        id.subrequest(request).filter(|subrequest| {
            let diagnosed = Diagnosed::new(*subrequest, Some(diagnosis));
            !subrequest.is_in_background()
                && diagnosed.is_some_and(|d| d.outcome != Outcome::Masked)
        })
    })
}
