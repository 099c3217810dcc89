//! What the host tells of who listens: for addresses of this host only.

use std::net::{IpAddr, SocketAddr};

use super::context::{Host, Listener, Listening};
use super::{Code, Confidence, Evidence, Fact, Finding, Key};
use crate::cause::Cause;
use crate::words::numbers::span;

/// Addresses that are named at most.
const NAMED: usize = 4;

/// A process that started this little after the last good answer can have given it: the kernel
/// counts starts in hundredths of a second, by another clock. Milliseconds.
const CLOCKS: u64 = 100;

/// `nothing_listening`.
pub(super) fn nothing_listening(e: &Evidence<'_>) -> Option<Finding> {
    if e.cause != Cause::ConnectionRefused {
        return None;
    }
    let (code, certain) = (Code::NothingListening, Confidence::Certain);
    match e.context.host.as_ref()? {
        Host::Tcp { own: true, listeners } if listeners.is_empty() => {
            // The usual end of a backend on this host: its words are put together, not formatted.
            let (port, number) = port(e)?;
            let text = ["Nothing listens on port ", port, " of this host."].concat();
            let advice = [
                "Start the process that should listen on port ",
                port,
                " of this host or container, or correct the port in ",
                &e.place(),
                " (ss -ltnp shows what listens).",
            ];
            let finding = Finding::new(code, certain, text);
            Some(finding.count(Key::Port, number).advise(advice.concat()))
        }
        Host::Unix { listener: Listening::Nobody, .. } => {
            let text = format!("Nobody listens on {}: its file was left behind.", e.peer());
            Some(Finding::new(code, certain, text).peer(e).advise(
                "Start the upstream: the socket's file is there, and nobody listens (ss -lx shows who does).".to_owned()
            ))
        }
        _ => None,
    }
}

/// `bound_elsewhere`.
pub(super) fn bound_elsewhere(e: &Evidence<'_>) -> Option<Finding> {
    match e.context.host.as_ref()? {
        Host::Tcp { own: true, listeners } if e.cause == Cause::ConnectionRefused => {
            elsewhere(e, listeners)
        }
        Host::Unix { listener: Listening::Somebody { reachable: false, .. }, .. }
            if matches!(e.cause, Cause::SocketNotFound | Cause::ConnectionRefused) =>
        {
            let text = format!(
                "A process listens on a socket that was {}, and whose file was deleted or replaced: no connection reaches it.",
                e.peer()
            );
            Some(Finding::new(Code::BoundElsewhere, Confidence::Certain, text).peer(e).advise(format!(
                "Restart the process that listens on {}: the file of its socket was deleted or replaced.",
                e.short_peer()
            )))
        }
        _ => None,
    }
}

fn elsewhere(e: &Evidence<'_>, listeners: &[Listener]) -> Option<Finding> {
    if listeners.is_empty() {
        return None;
    }
    let wanted = address(e)?;
    let hears: Vec<Hears> = listeners.iter().map(|listener| hears(listener, wanted.ip())).collect();
    // One that takes such connections has begun to listen since, or is another failure's matter.
    if hears.contains(&Hears::Yes) {
        return None;
    }
    let confidence =
        if hears.contains(&Hears::Perhaps) { Confidence::Likely } else { Confidence::Certain };
    let port = wanted.port();
    let mut names: Vec<String> = Vec::new();
    for listener in listeners {
        let name = bracketed(listener.address);
        if names.len() < NAMED && !names.contains(&name) {
            names.push(name);
        }
    }
    let first = listeners.first()?;
    let instead = if first.address.is_unspecified() {
        if first.address.is_ipv4() { "127.0.0.1".to_owned() } else { "[::1]".to_owned() }
    } else {
        bracketed(first.address)
    };
    let only = if first.address.is_unspecified() {
        if first.address.is_ipv4() { " (IPv4)" } else { " (IPv6)" }
    } else {
        ""
    };
    let text = format!(
        "Port {port} of this host is open on {}{only}, not on {}.",
        names.join(", "),
        wanted.ip()
    );
    Some(
        Finding::new(Code::BoundElsewhere, confidence, text)
            .count(Key::Port, port)
            .fact(Key::ListensOn, Fact::Texts(names))
            .advise(format!(
                "Write {instead}:{port} in {}, or have the process listen on {} too.",
                e.place(),
                wanted.ip()
            )),
    )
}

/// `listen_backlog_full`.
pub(super) fn backlog_full(e: &Evidence<'_>) -> Option<Finding> {
    let accepted = e.cause == Cause::ResponseTimedOut;
    let (queues, limits): (Vec<u32>, Vec<u32>) = match e.context.host.as_ref()? {
        Host::Tcp { own: true, listeners } if accepted || e.cause == Cause::ConnectionTimedOut => {
            let wanted = address(e)?.ip();
            let ours = listeners.iter().filter(|listener| hears(listener, wanted) == Hears::Yes);
            ours.map(|listener| (listener.queue, listener.limit)).unzip()
        }
        Host::Unix { listener: Listening::Somebody { reachable: true, queue, limit }, .. }
            if accepted || e.cause == Cause::ListenQueueFull =>
        {
            (vec![*queue], vec![*limit])
        }
        _ => return None,
    };
    let pairs = || queues.iter().zip(&limits);
    let full = pairs().filter(|(queue, limit)| queue > limit).count();
    let (queue, limit) = pairs()
        .max_by_key(|(queue, limit)| i64::from(**queue).saturating_sub(i64::from(**limit)))?;
    if queue < limit || (accepted && full == 0) {
        return None;
    }
    let all = full == queues.len() && !accepted;
    let confidence = if all { Confidence::Certain } else { Confidence::Likely };
    let text = format!(
        "The accept queue of {} is full: {queue} connections wait, its limit is {limit}.",
        e.peer()
    );
    Some(
        Finding::new(Code::ListenBacklogFull, confidence, text)
            .count(Key::Queue, *queue)
            .count(Key::Limit, *limit)
            .advise(format!(
                "Add workers to the process, or find what they wait for; for short bursts raise its backlog (now {limit}), and net.core.somaxconn with it.",
            )),
    )
}

/// `restarted`, where the process tells.
pub(super) fn restarted(e: &Evidence<'_>) -> Option<Finding> {
    let Host::Unix { process: Some(process), .. } = e.context.host.as_ref()? else { return None };
    let last_ok = e.past()?.last_ok?;
    let started = process.started.millis();
    if started.saturating_add(CLOCKS) >= last_ok {
        return None;
    }
    let text = format!(
        "The process that listens on {} (pid {}) started {} ago, after the last good answer {} ago: it was restarted.",
        e.peer(),
        process.pid,
        span(started),
        span(last_ok)
    );
    Some(
        Finding::new(Code::Restarted, Confidence::Certain, text)
            .time(Key::LastOk, last_ok)
            .count(Key::Pid, process.pid)
            .time(Key::Started, started)
            .advise(format!(
                "See in the log of {} why it was restarted {} ago: a deployment, a crash, the limit of its memory.",
                e.short_peer(),
                span(started)
            )),
    )
}

/// The address of the peer, as nginx prints it.
fn address(e: &Evidence<'_>) -> Option<SocketAddr> {
    e.failed.peer.as_deref()?.parse().ok()
}

/// The port of the peer's address, as it is written and as a number.
fn port<'a>(e: &Evidence<'a>) -> Option<(&'a str, u16)> {
    let port = e.failed.peer.as_deref()?.rsplit(':').next()?;
    Some((port, port.parse().ok()?))
}

/// Whether connections to an address get to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    Yes,
    No,
    /// It depends on what is not known.
    Perhaps,
}

fn hears(listener: &Listener, wanted: IpAddr) -> Hears {
    let wanted = wanted.to_canonical();
    let by_address = match (listener.address, wanted) {
        (address, wanted) if address == wanted => Hears::Yes,
        (IpAddr::V4(address), IpAddr::V4(_)) if address.is_unspecified() => Hears::Yes,
        (IpAddr::V6(address), IpAddr::V6(_)) if address.is_unspecified() => Hears::Yes,
        (IpAddr::V6(address), IpAddr::V4(_)) if address.is_unspecified() => {
            match listener.v6_only {
                Some(true) => Hears::No,
                Some(false) => Hears::Yes,
                None => Hears::Perhaps,
            }
        }
        _ => Hears::No,
    };
    // Which interface the connection would have come in by is not known.
    if listener.one_interface && by_address == Hears::Yes { Hears::Perhaps } else { by_address }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
