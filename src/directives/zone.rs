//! `upstream_diag_zone`.

use super::{ConfError, add_zone, number, set_once};
use crate::ffi::command::Directive;
use crate::ffi::conf::{Conf, parse_size};
use crate::ffi::zone;

/// `upstream_diag_zone size [peers=N] [events=N]`
pub(crate) struct UpstreamDiagZone;

impl Directive for UpstreamDiagZone {
    fn set(cf: &mut Conf<'_>) -> Result<(), ConfError> {
        if cf.main_conf().is_some_and(|main| main.zone.is_some()) {
            return Err(ConfError::Duplicate);
        }
        let given = cf.words();
        let word = given.get(1).copied().unwrap_or_default();
        let size = parse_size(word)
            .ok_or_else(|| ConfError::InvalidZoneSize(diagnosis::text(word).into_owned()))?;
        let (mut peers, mut events) = (None, None);
        for parameter in given.get(2..).unwrap_or_default() {
            let taken = match parameter.strip_prefix(b"peers=") {
                Some(value) => set_once(&mut peers, number(value)),
                None => parameter
                    .strip_prefix(b"events=")
                    .is_some_and(|value| set_once(&mut events, number(value))),
            };
            if !taken {
                return Err(ConfError::InvalidParameter {
                    directive: "upstream_diag_zone",
                    value: diagnosis::text(parameter).into_owned(),
                });
            }
        }
        let layout = zone::layout(size, peers, events).map_err(|small| {
            let least = small.least.div_ceil(1_024);
            ConfError::ZoneTooSmall { given: diagnosis::text(word).into_owned(), least }
        })?;
        add_zone(cf, size, layout, events)
    }
}
