//! What is kept: the record of a request while it lives, and the shared zone.

mod request;
mod shared;

pub(crate) use request::{Diagnosis, Final, Group, Note};
pub(crate) use shared::Shared;
