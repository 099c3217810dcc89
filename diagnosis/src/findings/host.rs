//! What the host tells of who listens: for addresses of this host only.

use std::net::{IpAddr, SocketAddr};

use bumpalo::collections::Vec as ArenaVec;

use super::context::{Host, Listener, Listening};
use super::{Code, Confidence, Evidence, Fact, Finding, Found, Key};
use crate::cause::Cause;
use crate::words::numbers::Number::Span;
use crate::words::phrase::{Address, Ours, Part, Phrase, say};

/// Addresses that are named at most.
const NAMED: usize = 4;

/// A process that started this little after the last good answer can have given it: the kernel
/// counts starts in hundredths of a second, by another clock. Milliseconds.
const CLOCKS: u64 = 100;

/// `nothing_listening`.
pub(super) fn nothing_listening<'a>(e: &Evidence<'a>) -> Found<'a> {
    if e.cause != Cause::ConnectionRefused {
        return None;
    }
    let (code, certain) = (Code::NothingListening, Confidence::Certain);
    match e.context.host.as_ref()? {
        Host::Tcp { address, own: true, listeners } if listeners.is_empty() => {
            let port = u64::from(address.port());
            let text = say![e.arena, "Nothing listens on port ", port, " of this host."];
            let advice = say![
                e.arena,
                "Start the process that should listen on port ",
                port,
                " of this host or container, or correct the port in ",
                e.place(),
                " (ss -ltnp shows what listens).",
            ];
            let finding = Finding::new(e, (code, certain), text);
            Some(finding.count(Key::Port, port).advise(advice))
        }
        Host::Unix { listener: Listening::Nobody, .. } => {
            let text = say![e.arena, "Nobody listens on ", e.peer(), ": its file was left behind."];
            Some(Finding::new(e, (code, certain), text).peer(e).advise(say![
                e.arena,
                "Start the upstream: the socket's file is there, and nobody listens on it (ss -lx lists the sockets that listen)."
            ]))
        }
        Host::Unix { listener: Listening::NoSocket(kind), .. } => {
            let text = say![
                e.arena,
                "Nobody listens on ",
                e.peer(),
                ": it is a ",
                Ours(kind),
                ", not a socket."
            ];
            let finding = Finding::new(e, (code, certain), text).peer(e);
            let finding = finding.fact(Key::FileType, Fact::Text(Part::Ours(kind)));
            Some(finding.advise(say![
                e.arena,
                "A ",
                Ours(kind),
                " is where the socket should be: correct the path in ",
                e.place(),
                ", or move it away and start the upstream, which makes the socket.",
            ]))
        }
        _ => None,
    }
}

/// `bound_elsewhere`.
pub(super) fn bound_elsewhere<'a>(e: &Evidence<'a>) -> Found<'a> {
    match e.context.host.as_ref()? {
        Host::Tcp { address, own: true, listeners } if e.cause == Cause::ConnectionRefused => {
            elsewhere(e, *address, listeners)
        }
        Host::Unix { listener: Listening::Somebody { reachable: false, .. }, .. }
            if matches!(e.cause, Cause::SocketNotFound | Cause::ConnectionRefused) =>
        {
            let text = say![
                e.arena,
                "A process listens on a socket that was ",
                e.peer(),
                ", and whose file was deleted or replaced: no connection reaches it.",
            ];
            Some(Finding::new(e, (Code::BoundElsewhere, Confidence::Certain), text).peer(e).advise(
                say![
                    e.arena,
                    "Restart the process that listens on ",
                    e.short_peer(),
                    ": the file of its socket was deleted or replaced.",
                ],
            ))
        }
        _ => None,
    }
}

fn elsewhere<'a>(e: &Evidence<'a>, wanted: SocketAddr, listeners: &[Listener]) -> Found<'a> {
    if listeners.is_empty() {
        return None;
    }
    let hears: Vec<Hears> = listeners.iter().map(|listener| hears(listener, wanted.ip())).collect();
    // One that takes such connections has begun to listen since, or is another failure's matter.
    if hears.contains(&Hears::Yes) {
        return None;
    }
    let confidence =
        if hears.contains(&Hears::Perhaps) { Confidence::Likely } else { Confidence::Certain };
    let port = u64::from(wanted.port());
    let mut named = ArenaVec::new_in(e.arena);
    for listener in listeners {
        let name = Part::Bracketed(listener.address);
        if named.len() < NAMED && !named.contains(&name) {
            named.push(name);
        }
    }
    let named: &'a [Part<'a>] = named.into_bump_slice();
    let names = Phrase::list(e.arena, named.iter().copied());
    let first = listeners.first()?.address;
    let (instead, only) = match first {
        _ if !first.is_unspecified() => (Part::Bracketed(first), ""),
        IpAddr::V4(_) => (Part::Ours("127.0.0.1"), " (IPv4)"),
        IpAddr::V6(_) => (Part::Ours("[::1]"), " (IPv6)"),
    };
    let wanted = Address(wanted.ip());
    let text = say![
        e.arena,
        "Port ",
        port,
        " of this host is open on ",
        names,
        Ours(only),
        ", not on ",
        wanted,
        ".",
    ];
    Some(
        Finding::new(e, (Code::BoundElsewhere, confidence), text)
            .count(Key::Port, port)
            .fact(Key::ListensOn, Fact::Texts(named))
            .advise(say![
                e.arena,
                "Write ",
                instead,
                ":",
                port,
                " in ",
                e.place(),
                ", or have the process listen on ",
                wanted,
                " too.",
            ]),
    )
}

/// `listen_backlog_full`.
pub(super) fn backlog_full<'a>(e: &Evidence<'a>) -> Found<'a> {
    let accepted = e.cause == Cause::ResponseTimedOut;
    let (queues, limits): (Vec<u32>, Vec<u32>) =
        match e.context.host.as_ref()? {
            Host::Tcp { address, own: true, listeners }
                if accepted || e.cause == Cause::ConnectionTimedOut =>
            {
                let hears = |listener: &&Listener| hears(listener, address.ip()) == Hears::Yes;
                let ours = listeners.iter().filter(hears);
                ours.map(|listener| (listener.queue, listener.limit)).unzip()
            }
            Host::Unix {
                listener: Listening::Somebody { reachable: true, queue, limit }, ..
            } if accepted || e.cause == Cause::ListenQueueFull => (vec![*queue], vec![*limit]),
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
    let (waiting, room) = (u64::from(*queue), u64::from(*limit));
    let text = say![
        e.arena,
        "The accept queue of ",
        e.peer(),
        " is full: ",
        waiting,
        Ours(if waiting == 1 { " connection waits" } else { " connections wait" }),
        ", its limit is ",
        room,
        ".",
    ];
    Some(
        Finding::new(e, (Code::ListenBacklogFull, confidence), text)
            .count(Key::Queue, waiting)
            .count(Key::Backlog, room)
            .advise(say![
                e.arena,
                "Add workers to the process, or find what they wait for; for short bursts raise its backlog (now ",
                room,
                "), and net.core.somaxconn with it.",
            ]),
    )
}

/// `restarted`, where the process tells.
pub(super) fn restarted<'a>(e: &Evidence<'a>) -> Found<'a> {
    let Host::Unix { process: Some(process), .. } = e.context.host.as_ref()? else { return None };
    let last_ok = e.past?.last_ok?;
    let started = process.started.millis();
    if started.saturating_add(CLOCKS) >= last_ok {
        return None;
    }
    let text = say![
        e.arena,
        "The process that listens on ",
        e.peer(),
        " (pid ",
        process.pid,
        ") started ",
        Span(started),
        " ago, after the last good answer ",
        Span(last_ok),
        " ago: it was restarted.",
    ];
    Some(
        Finding::new(e, (Code::Restarted, Confidence::Certain), text)
            .time(Key::LastOk, last_ok)
            .count(Key::Pid, process.pid)
            .time(Key::Started, started)
            .advise(say![
                e.arena,
                "See in the log of ",
                e.short_peer(),
                " why it was restarted ",
                Span(started),
                " ago: a deployment, a crash, the limit of its memory.",
            ]),
    )
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
