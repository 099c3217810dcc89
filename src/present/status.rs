//! What the status location answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use diagnosis::peer::{Peer, State};
use diagnosis::query::{self, Format};
use diagnosis::zone::ring;
use diagnosis::{Module, PeerState, Seconds, Snapshot, Upstream, Zone, exposition};

use crate::directives::MainConf;
use crate::ffi::request::Request;
use crate::ffi::response::Answer;
use crate::ffi::{process, time};

const OK: u16 = 200;
const BAD_REQUEST: u16 = 400;

/// The response of the status location. `None` if it could not be made.
pub(crate) fn status(request: Request<'_>) -> Option<Answer> {
    let view = request.loc_conf().and_then(|conf| conf.status_view());
    let query = match query::negotiate(view, request.args(), request.header(b"accept").as_deref()) {
        Ok(query) => query,
        Err(error) => {
            let content_type = Format::Json.content_type();
            return Some(Answer { status: BAD_REQUEST, content_type, body: error.to_json() });
        }
    };
    let mut snapshot = request.main_conf().map(snapshot)?;
    let body = match query.format {
        Format::Json => {
            snapshot.recent = query.select(&ring::records(&recent(request.main_conf()?)));
            snapshot.to_json().ok()?
        }
        Format::Prometheus => exposition::prometheus(&snapshot).ok()?.into_bytes(),
        Format::OpenMetrics => exposition::openmetrics(&snapshot).ok()?.into_bytes(),
    };
    Some(Answer { status: OK, content_type: query.format.content_type(), body })
}

/// Everything but the latest records.
fn snapshot(main: &MainConf) -> Snapshot {
    let module =
        Module { version: env!("CARGO_PKG_VERSION"), nginx: env!("NGINX_VERSION").to_owned() };
    let mut snapshot = Snapshot {
        time: String::from_utf8_lossy(&time::iso8601()).into_owned(),
        module,
        worker: process::worker(),
        ..Snapshot::default()
    };
    let (Some(zone), Some(memory)) = (main.zone, main.memory) else { return snapshot };
    let read = memory.read(time::current_msec(), u64::try_from(time::now()).unwrap_or(0));
    let layout = memory.head().layout();
    snapshot.zone = Zone {
        bytes: zone.size() as u64,
        used: layout.bytes().saturating_sub(layout.ring) as u64,
        peers: read.peers,
        upstreams: read.upstreams,
        records: layout.ring as u64,
    };
    snapshot.dropped = read.dropped;
    snapshot.totals = read.totals;
    snapshot.timeline = read.timeline;
    snapshot.upstreams = read.all;
    add_states(main, &mut snapshot.upstreams);
    snapshot
}

/// Adds what nginx knows of the peers.
fn add_states(main: &MainConf, upstreams: &mut [Upstream]) {
    let mut groups: HashMap<&str, Vec<Peer>> = main.groups.peers().collect();
    for upstream in upstreams {
        let peers = groups.remove(upstream.name.as_str()).unwrap_or_default();
        let mut known: HashMap<&str, (PeerState, Seconds)> = HashMap::with_capacity(peers.len());
        for peer in &peers {
            let report = (peer.report(), peer.counted());
            let is_up = report.0.state == State::Up;
            // Servers can have one address: nginx may choose it if it may choose any of them.
            match known.entry(&peer.name) {
                Entry::Vacant(place) => drop(place.insert(report)),
                Entry::Occupied(mut place) if is_up => drop(place.insert(report)),
                Entry::Occupied(_) => {}
            }
        }
        for shown in &mut upstream.peers {
            let mut explained = false;
            let report = shown.peer.as_deref().and_then(|name| known.get(name));
            if let Some((report, counted)) = report {
                let is_out = report.state == State::Unavailable;
                explained = is_out && shown.history.explains(*counted);
                shown.state = Some(report.state);
                shown.unavailable_for = report.unavailable_for;
                shown.backup = report.backup;
            }
            if !explained {
                shown.history.taken_out = None;
            }
        }
    }
}

/// A copy of the latest records.
fn recent(main: &MainConf) -> Vec<u8> {
    // Only copied under the lock, into memory that is there already: taking it apart can wait.
    let size = main.memory.map_or(0, |memory| memory.head().layout().ring);
    let mut copy = Vec::with_capacity(size);
    main.locked(|memory, ring| memory.head().ring.copy(ring, &mut copy));
    copy
}
