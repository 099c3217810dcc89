//! What each directive accepts, and how it merges.

use diagnosis::query::View;
use diagnosis::zone::{Layout, Memory};
use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_FLAG, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_HTTP_LIF_CONF,
    NGX_HTTP_LOC_CONF, NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF,
};

use crate::ffi::command::Directive;
use crate::ffi::conf::{Conf, VariableIndex};
use crate::ffi::keepalive::KeepaliveTimeout;
use crate::ffi::log::{self as error_log, Heads};
use crate::ffi::module;
use crate::ffi::time;
use crate::ffi::watch::Groups;
use crate::ffi::zone::{self as memory_zone, Zone};
use crate::present;
use crate::record::Places;

mod error;
mod log;
mod zone;

pub(crate) use error::ConfError;
pub(crate) use log::{LogTarget, Sink, UpstreamDiagLog};
pub(crate) use zone::UpstreamDiagZone;

/// Contexts and parameters of the directives, for the module's table.
pub(crate) mod contexts {
    use super::*;

    pub(crate) const UPSTREAM_DIAG: u32 = ANY_BLOCK | NGX_HTTP_LIF_CONF | NGX_CONF_FLAG;
    pub(crate) const ZONE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE;
    pub(crate) const LOG: u32 = ANY_BLOCK | NGX_CONF_1MORE;
    pub(crate) const STATUS: u32 = NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1;
    pub(crate) const QUERY: u32 = ANY_BLOCK | NGX_CONF_FLAG;

    const ANY_BLOCK: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;
}

/// Size of the zone without `upstream_diag_zone`.
const DEFAULT_ZONE: usize = 2 * 1_024 * 1_024;

/// Configuration of the http block.
#[derive(Default)]
pub(crate) struct MainConf {
    /// Heads in front of the error logs.
    pub(crate) heads: Heads,
    /// The shared zone.
    pub(crate) zone: Option<Zone>,
    /// The number that this configuration has in it.
    pub(crate) generation: u32,
    /// Its memory, once that is there.
    pub(crate) memory: Option<Memory<'static>>,
    /// Its sizes.
    layout: Option<Layout>,
    /// `events=` of it.
    events: Option<usize>,
    /// The groups of servers.
    pub(crate) groups: Groups,
    /// Where their peers are counted.
    pub(crate) places: Places,
    /// Where they have their `keepalive_timeout`.
    pub(crate) keepalive_timeout: Option<KeepaliveTimeout>,
    /// `$request_id`, where the configuration uses it. Elsewhere nobody else knows it, and it is not
    /// made: random numbers take longer than all of a record.
    pub(crate) request_id: Option<VariableIndex>,
    /// Some block has `upstream_diag on`.
    wanted: bool,
    /// Number of logs with `rate=`.
    rates: usize,
}

impl Drop for MainConf {
    fn drop(&mut self) {
        module::give_up_conf(self);
    }
}

impl MainConf {
    /// Whether some block has `upstream_diag on`.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// What is wrong if the upstreams `have` so many peers.
    fn lack_of_room(&self, have: usize) -> Option<ConfError> {
        let room = self.layout?.peers;
        if have <= room {
            return None;
        }
        let size = self.zone?.size();
        let size = match memory_zone::layout(size, Some(have), self.events) {
            Ok(_) => size,
            Err(small) => small.least,
        };
        let events = self.events.map(|events| format!(" events={events}")).unwrap_or_default();
        let kilobytes = size.div_ceil(1_024);
        let remedy = format!("upstream_diag_zone {kilobytes}k peers={have}{events};");
        Some(ConfError::MorePeers { room, have, remedy })
    }

    /// Runs `work` on the zone's memory under its lock. `None` where there is no memory.
    pub(crate) fn locked<T>(
        &self,
        work: impl FnOnce(Memory<'static>, &mut [u8]) -> T,
    ) -> Option<T> {
        Some(self.zone?.locked(self.memory?, work))
    }
}

/// Configuration of a location, or of a block above it.
#[derive(Default)]
pub(crate) struct LocConf {
    enabled: Option<bool>,
    keep_query: Option<bool>,
    logs: Option<Vec<LogTarget>>,
    /// `upstream_diag_status` stands in this very block, with what it gives if it says so.
    status: Option<Option<View>>,
}

impl LocConf {
    /// `upstream_diag`.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled.unwrap_or(false)
    }

    /// `upstream_diag_query`.
    pub(crate) fn keeps_query(&self) -> bool {
        self.keep_query.unwrap_or(false)
    }

    /// `upstream_diag_log`.
    pub(crate) fn logs(&self) -> &[LogTarget] {
        self.logs.as_deref().unwrap_or_default()
    }

    /// What `upstream_diag_status` gives, if it gives one.
    pub(crate) fn status_view(&self) -> Option<View> {
        self.status.flatten()
    }

    /// Takes over from the block above what this one leaves open.
    pub(crate) fn merge(&mut self, above: &LocConf) {
        self.enabled = self.enabled.or(above.enabled);
        self.keep_query = self.keep_query.or(above.keep_query);
        // For an `if` in the location: nginx keeps the content handler there.
        self.status = self.status.or(above.status);
        if self.logs.is_none() {
            self.logs.clone_from(&above.logs);
        }
    }
}

/// Before the http block is read: defines the variables.
pub(crate) fn before(cf: &mut Conf<'_>) -> bool {
    present::VARIABLES
        .iter()
        .enumerate()
        .all(|(at, variable)| cf.add_variable(variable.name.as_bytes(), at))
}

/// When the http block is read and before blocks are merged: makes the zone.
pub(crate) fn complete(cf: &mut Conf<'_>) -> bool {
    let Some(main) = cf.main_conf() else { return false };
    if !main.wanted || main.zone.is_some() {
        return true;
    }
    memory_zone::layout(DEFAULT_ZONE, None, None)
        .ok()
        .is_some_and(|layout| add_zone(cf, DEFAULT_ZONE, layout, None).is_ok())
}

fn add_zone(
    cf: &mut Conf<'_>,
    size: usize,
    layout: Layout,
    events: Option<usize>,
) -> Result<(), ConfError> {
    let zone = cf.add_zone(size, layout).ok_or(ConfError::Reported)?;
    let main = cf.main_conf().ok_or(ConfError::Reported)?;
    main.zone = Some(zone);
    main.layout = Some(layout);
    main.events = events;
    Ok(())
}

/// When a block was merged with the one above. A subrequest logs through the main request's
/// location, so if any block wants diagnosis, every error log is listened to.
pub(crate) fn merged(cf: &mut Conf<'_>) -> bool {
    match cf.main_conf() {
        Some(main) if main.wanted => cf.tap_error_log(),
        _ => true,
    }
}

/// When all blocks are merged: takes a place in nginx's log phase.
pub(crate) fn after(cf: &mut Conf<'_>) -> bool {
    if !cf.main_conf().is_some_and(|main| main.wanted) {
        return true;
    }
    let request_id = cf.used_variable(b"request_id");
    let keepalive_timeout = cf.keepalive_timeout();
    let groups = cf.watch_upstreams();
    let have = groups.peers().map(|(_, peers)| peers.len()).fold(0, usize::saturating_add);
    if let Some(error) = cf.main_conf().and_then(|main| main.lack_of_room(have)) {
        cf.warn(&error);
    }
    if let Some(main) = cf.main_conf() {
        main.request_id = request_id;
        main.groups = groups;
        main.keepalive_timeout = keepalive_timeout;
        main.places = Places::new(have);
    }
    cf.add_log_handler()
}

/// When nginx begins to use the configuration: every peer of it has its place from the start.
pub(crate) fn begin(main: &mut MainConf) {
    if memory_zone::starts_empty() {
        error_log::cycle_notice(
            "upstream_diag: the sizes of the zone have changed, it starts empty",
        );
    }
    // Read before, as that takes the locks of the peers' zones.
    let groups: Vec<_> = main.groups.peers().collect();
    let named: Vec<(&str, Vec<&str>)> = groups
        .iter()
        .map(|(name, peers)| (*name, peers.iter().map(|peer| peer.name.as_str()).collect()))
        .collect();
    let generation = main.locked(|memory, _| memory.configure(&named, time::current_msec()));
    main.generation = generation.unwrap_or(0);
}

fn flag(cf: &Conf<'_>, directive: &'static str, before: Option<bool>) -> Result<bool, ConfError> {
    if before.is_some() {
        return Err(ConfError::Duplicate);
    }
    match cf.words().get(1) {
        Some(&b"on") => Ok(true),
        Some(&b"off") => Ok(false),
        other => Err(ConfError::NotAFlag { directive, value: words(other) }),
    }
}

fn words(word: Option<&&[u8]>) -> String {
    word.map(|word| diagnosis::text(word).into_owned()).unwrap_or_default()
}

/// `upstream_diag on|off`
pub(crate) struct UpstreamDiag;

impl Directive for UpstreamDiag {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        let before = cf.loc_conf().and_then(|conf| conf.enabled);
        let enabled = flag(cf, "upstream_diag", before)?;
        cf.loc_conf().ok_or(ConfError::Reported)?.enabled = Some(enabled);
        cf.main_conf().ok_or(ConfError::Reported)?.wanted |= enabled;
        Ok(())
    }
}

/// `upstream_diag_query on|off`
pub(crate) struct UpstreamDiagQuery;

impl Directive for UpstreamDiagQuery {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        let before = cf.loc_conf().and_then(|conf| conf.keep_query);
        let keep = flag(cf, "upstream_diag_query", before)?;
        cf.loc_conf().ok_or(ConfError::Reported)?.keep_query = Some(keep);
        Ok(())
    }
}

/// A number from 1 on.
fn number(text: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(text).ok()?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && *number > 0)
}

/// Sets what was not set yet. False if it was, or there is nothing to set.
fn set_once<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let taken = place.is_none() && value.is_some();
    if taken {
        *place = value;
    }
    taken
}

/// `upstream_diag_status [json|prometheus]`
pub(crate) struct UpstreamDiagStatus;

impl Directive for UpstreamDiagStatus {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        let view = match cf.words().get(1) {
            None => None,
            Some(word) => match std::str::from_utf8(word).ok().and_then(View::named) {
                Some(view) => Some(view),
                None => return Err(ConfError::UnknownFormat(words(Some(word)))),
            },
        };
        let conf = cf.loc_conf().ok_or(ConfError::Reported)?;
        if conf.status.is_some() {
            return Err(ConfError::Duplicate);
        }
        conf.status = Some(view);
        cf.set_status_handler();
        Ok(())
    }
}
