//! What can be wrong with the configuration.

use thiserror::Error;

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
        "the upstreams have {have} peers and \"upstream_diag_zone\" has room for {room}: those beyond are counted as \"other\"; give them room with \"{remedy}\""
    )]
    MorePeers { room: usize, have: usize, remedy: String },
    #[error("at most {0} \"upstream_diag_log\" directives can have the parameter \"rate\"")]
    TooManyRates(usize),
    #[error(
        "\"upstream_diag_log off\" cannot stand beside other \"upstream_diag_log\" directives of the same block"
    )]
    LogOffAmongOthers,
    #[error("a parameter stands behind \"off\" in \"upstream_diag_log\" directive")]
    ParameterBehindOff,
    #[error(
        "the format \"{0}\" in \"upstream_diag_status\" directive is not known, it must be \"json\" or \"prometheus\""
    )]
    UnknownFormat(String),
}
