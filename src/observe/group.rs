//! What is noted of an upstream request when it is first noticed.

use std::borrow::Cow;

use diagnosis::Cause;
use diagnosis::findings::Context;
use smallvec::SmallVec;

use crate::directives::LocConf;
use crate::ffi::hooks;
use crate::ffi::request::Request;
use crate::ffi::upstream::Upstream;
use crate::record::Group;

impl Group {
    /// A group without notes yet, of an upstream request that runs in its own location now.
    /// `states`: how many of the last entries in `r->upstream_states` are its own.
    pub(super) fn new(
        request: Request<'_>,
        upstream: Upstream<'_>,
        conf: &'static LocConf,
        states: usize,
    ) -> Group {
        Group {
            first: request.states().len().saturating_sub(states),
            request: request.id(),
            upstream: upstream.id(),
            conf,
            location: request.location(),
            uri: (!request.is_main()).then(|| {
                // Of a long one no more than is shown.
                diagnosis::text(&uri(request, conf.keeps_query())).into_owned()
            }),
            name: upstream.group_name(),
            module: upstream.module(),
            notes: SmallVec::new(),
            brief: Vec::new(),
            peers: Vec::new(),
            context: Context::default(),
            own: None,
            ended: None,
        }
    }
}

/// Notes an error that a subrequest found in the cache, when it is sent: the log phase, where this
/// is told of the client's request, is none of subrequests.
pub(crate) fn cached_in_subrequest(request: Request<'_>, upstream: Upstream<'_>) {
    let Some(conf) = request.loc_conf().filter(|conf| conf.enabled()) else { return };
    hooks::update(request, |diagnosis| {
        let group = diagnosis.group(upstream.id(), || Group::new(request, upstream, conf, 0));
        group.own = Some(Cause::CachedError);
    });
}

/// The URI to report: what the client sent, for a subrequest its own.
pub(crate) fn uri(request: Request<'_>, keep_query: bool) -> Cow<'_, [u8]> {
    if request.is_main() {
        let uri = request.unparsed_uri();
        let path = || uri.split(|byte| *byte == b'?').next().unwrap_or_default();
        return if keep_query { uri } else { path() }.into();
    }
    match (request.uri(), request.args()) {
        (uri, args) if keep_query && !args.is_empty() => [uri, args].join(&b'?').into(),
        (uri, _) => uri.into(),
    }
}
