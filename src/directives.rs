//! What each directive accepts, and how it merges.

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_FLAG, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_HTTP_LIF_CONF,
    NGX_HTTP_LOC_CONF, NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF,
};
use thiserror::Error;

use crate::ffi::command::Directive;
use crate::ffi::conf::{Conf, VariableIndex, parse_size};
use crate::ffi::log::Heads;
use crate::ffi::output::{Condition, OpenFile, Syslog};
use crate::ffi::watch::Groups;
use crate::ffi::zone::{self, Zone};
use crate::present;

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

/// What can be wrong with the configuration, in an operator's words. nginx adds the file and line.
#[derive(Debug, Error)]
pub(crate) enum ConfError {
    #[error("is duplicate")]
    Duplicate,
    /// nginx has logged it already.
    #[error("reported")]
    Reported,
    #[error("invalid value \"{value}\" in \"{directive}\" directive, it must be \"on\" or \"off\"")]
    NotAFlag { directive: &'static str, value: String },
    #[error("invalid parameter \"{value}\" in \"{directive}\" directive")]
    InvalidParameter { directive: &'static str, value: String },
    #[error("invalid zone size \"{0}\" in \"upstream_diag_zone\" directive")]
    InvalidZoneSize(String),
    #[error(
        "zone size \"{given}\" in \"upstream_diag_zone\" directive is too small, it must be at least {least}k"
    )]
    ZoneTooSmall { given: String, least: usize },
    #[error(
        "\"upstream_diag_log off\" cannot stand beside other \"upstream_diag_log\" directives of the same block"
    )]
    LogOffAmongOthers,
    #[error("a parameter stands behind \"off\" in \"upstream_diag_log\" directive")]
    ParameterBehindOff,
    #[error(
        "the format \"{0}\" in \"upstream_diag_status\" directive is not known, it must be \"json\""
    )]
    UnknownFormat(String),
}

/// Configuration of the http block.
#[derive(Default)]
pub(crate) struct MainConf {
    /// Heads in front of the error logs.
    pub(crate) heads: Heads,
    /// The shared zone.
    pub(crate) zone: Option<Zone>,
    /// The groups of servers.
    pub(crate) groups: Groups,
    /// `$request_id`.
    pub(crate) request_id: Option<VariableIndex>,
    /// Some block has `upstream_diag on`.
    wanted: bool,
}

/// Configuration of a location, or of a block above it.
#[derive(Default)]
pub(crate) struct LocConf {
    enabled: Option<bool>,
    keep_query: Option<bool>,
    logs: Option<Vec<LogTarget>>,
    /// `upstream_diag_status` stands in this very block.
    status: bool,
}

/// One `upstream_diag_log`.
#[derive(Clone)]
pub(crate) struct LogTarget {
    /// Where the lines go.
    pub(crate) sink: Sink,
    /// `if=`.
    pub(crate) condition: Option<Condition>,
}

/// Where log lines go.
#[derive(Clone, Copy)]
pub(crate) enum Sink {
    /// A file.
    File(OpenFile),
    /// A syslog server.
    Syslog(Syslog),
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

    /// Takes over from the block above what this one leaves open.
    pub(crate) fn merge(&mut self, above: &LocConf) {
        self.enabled = self.enabled.or(above.enabled);
        self.keep_query = self.keep_query.or(above.keep_query);
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
    let zone = cf.add_zone(DEFAULT_ZONE);
    if let Some(main) = cf.main_conf() {
        main.zone = zone;
    }
    zone.is_some()
}

/// When a block was merged with the one above. A subrequest logs through the main request's
/// location, so if any block wants diagnosis, every error log is listened to.
pub(crate) fn merged(cf: &mut Conf<'_>) -> bool {
    match cf.main_conf() {
        Some(main) if main.wanted => cf.tap_error_log(),
        _ => true,
    }
}

/// When all blocks are merged: takes a place in nginx's phases.
pub(crate) fn after(cf: &mut Conf<'_>) -> bool {
    if !cf.main_conf().is_some_and(|main| main.wanted) {
        return true;
    }
    let request_id = cf.variable_index(b"request_id");
    let groups = cf.watch_upstreams();
    if let Some(main) = cf.main_conf() {
        main.request_id = request_id;
        main.groups = groups;
    }
    request_id.is_some() && cf.add_phase_handlers()
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
    word.map(|word| diagnosis::text(word)).unwrap_or_default()
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

/// `upstream_diag_zone size`
pub(crate) struct UpstreamDiagZone;

impl Directive for UpstreamDiagZone {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        if cf.main_conf().is_some_and(|main| main.zone.is_some()) {
            return Err(ConfError::Duplicate);
        }
        let given = cf.words();
        let word = given.get(1).copied().unwrap_or_default();
        let size =
            parse_size(word).ok_or_else(|| ConfError::InvalidZoneSize(diagnosis::text(word)))?;
        if size < zone::smallest() {
            let least = zone::smallest() / 1_024;
            return Err(ConfError::ZoneTooSmall { given: diagnosis::text(word), least });
        }
        if let Some(parameter) = given.get(2) {
            return Err(ConfError::InvalidParameter {
                directive: "upstream_diag_zone",
                value: diagnosis::text(parameter),
            });
        }
        let zone = cf.add_zone(size).ok_or(ConfError::Reported)?;
        cf.main_conf().ok_or(ConfError::Reported)?.zone = Some(zone);
        Ok(())
    }
}

/// `upstream_diag_log path|syslog:…|off [if=condition]`
pub(crate) struct UpstreamDiagLog;

impl Directive for UpstreamDiagLog {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        let given = cf.words();
        let target = given.get(1).copied().unwrap_or_default();
        let parameters = given.get(2..).unwrap_or_default();
        let before = cf.loc_conf().and_then(|conf| conf.logs.as_ref().map(Vec::len));
        if target == b"off" {
            if before.is_some() {
                return Err(ConfError::LogOffAmongOthers);
            }
            if !parameters.is_empty() {
                return Err(ConfError::ParameterBehindOff);
            }
            cf.loc_conf().ok_or(ConfError::Reported)?.logs = Some(Vec::new());
            return Ok(());
        }
        if before == Some(0) {
            return Err(ConfError::LogOffAmongOthers);
        }
        let mut condition = None;
        for parameter in parameters {
            condition = match parameter.strip_prefix(b"if=") {
                Some(value) if !value.is_empty() && condition.is_none() => {
                    Some(cf.compile(value).ok_or(ConfError::Reported)?)
                }
                _ => {
                    return Err(ConfError::InvalidParameter {
                        directive: "upstream_diag_log",
                        value: diagnosis::text(parameter),
                    });
                }
            };
        }
        let sink = if target.starts_with(b"syslog:") {
            Sink::Syslog(cf.open_syslog().ok_or(ConfError::Reported)?)
        } else if target.is_empty() || target.contains(&b'$') || target.starts_with(b"memory:") {
            return Err(ConfError::InvalidParameter {
                directive: "upstream_diag_log",
                value: diagnosis::text(target),
            });
        } else {
            Sink::File(cf.open_file(target).ok_or(ConfError::Reported)?)
        };
        let conf = cf.loc_conf().ok_or(ConfError::Reported)?;
        conf.logs.get_or_insert_default().push(LogTarget { sink, condition });
        Ok(())
    }
}

/// `upstream_diag_status [json]`
pub(crate) struct UpstreamDiagStatus;

impl Directive for UpstreamDiagStatus {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        match cf.words().get(1) {
            None | Some(&b"json") => {}
            other => return Err(ConfError::UnknownFormat(words(other))),
        }
        let conf = cf.loc_conf().ok_or(ConfError::Reported)?;
        if std::mem::replace(&mut conf.status, true) {
            return Err(ConfError::Duplicate);
        }
        cf.set_status_handler();
        Ok(())
    }
}
