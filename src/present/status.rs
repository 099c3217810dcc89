//! The status document.

use diagnosis::{Module, Status, Totals, Zone, ring};

use crate::ffi::request::Request;

/// The body of the status location's response.
pub(crate) fn status(request: Request<'_>) -> Option<Vec<u8>> {
    let zone = request.main_conf().and_then(|conf| conf.zone);
    let module =
        Module { version: env!("CARGO_PKG_VERSION"), nginx: env!("NGINX_VERSION").to_owned() };
    let shared = zone.and_then(|zone| zone.shared());
    // Only copied under the lock, into memory that is there already: taking it apart can wait.
    let mut copy = Vec::with_capacity(shared.map_or(0, |shared| shared.capacity()));
    if let Some(zone) = zone {
        zone.locked(|shared, bytes| shared.ring.copy(bytes, &mut copy));
    }
    let memory = Zone {
        bytes: zone.map_or(0, |zone| zone.size()) as u64,
        ring_bytes: shared.map_or(0, |shared| shared.capacity()) as u64,
        dropped: shared.map_or(0, |shared| shared.dropped()),
    };
    let totals = shared.map_or_else(Totals::default, |shared| shared.totals());
    let recent = ring::records(&copy);
    Status::new(module, memory, totals, recent).to_json().ok()
}
