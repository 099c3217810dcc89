//! What is kept: the record of a request while it lives, and where the zone has a peer.

mod places;
mod request;
pub(crate) mod spare;

pub(crate) use places::{Places, SPREAD, look_up, of_group, remember_address, remembered};
pub(crate) use request::{Diagnosis, Final, Group, Note};
