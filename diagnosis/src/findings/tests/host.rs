use std::net::IpAddr;

use super::*;

fn listener(address: &str) -> Listener {
    let address: IpAddr = address.parse().unwrap();
    Listener { address, v6_only: Some(true), one_interface: false, queue: 0, limit: 128 }
}

fn on(peer: &str, cause: Cause, listeners: &[Listener]) -> Case {
    case(cause).with(|case| {
        case.failed.peer = Some(peer.into());
        let address = peer.parse().unwrap();
        case.context.host = Some(Host::Tcp { address, own: true, listeners: listeners.to_vec() });
    })
}

fn refused(peer: &str, listeners: &[&str]) -> Case {
    let listeners: Vec<Listener> = listeners.iter().map(|address| listener(address)).collect();
    on(peer, Cause::ConnectionRefused, &listeners)
}

fn unix(cause: Cause, listener: Listening, process: Option<Process>) -> Case {
    case(cause).with(|case| {
        case.failed.peer = Some("unix:/run/app.sock".into());
        case.context.host = Some(Host::Unix { listener, process });
    })
}

fn not_own(case: &mut Case) {
    if let Some(Host::Tcp { own, .. }) = &mut case.context.host {
        *own = false;
    }
}

#[test]
fn nothing_listening() {
    refused("127.0.0.1:8080", &[]).expect(
        Code::NothingListening,
        Confidence::Certain,
        "Nothing listens on port 8080 of this host.",
        r#"{"port":8080}"#,
        "Start the process that should listen on port 8080 of this host or container, or correct the port in upstream \"app\" (ss -ltnp shows what listens).",
    );
    unix(Cause::ConnectionRefused, Listening::Nobody, None).expect(
        Code::NothingListening,
        Confidence::Certain,
        "Nobody listens on unix:/run/app.sock: its file was left behind.",
        r#"{"peer":"unix:/run/app.sock"}"#,
        "Start the upstream: the socket's file is there, and nobody listens on it (ss -lx lists the sockets that listen).",
    );
    // connect() says the same of a file that is no socket.
    unix(Cause::ConnectionRefused, Listening::NoSocket("regular file"), None).expect(
        Code::NothingListening,
        Confidence::Certain,
        "Nobody listens on unix:/run/app.sock: it is a regular file, not a socket.",
        r#"{"peer":"unix:/run/app.sock","file_type":"regular file"}"#,
        "A regular file is where the socket should be: correct the path in upstream \"app\", or move it away and start the upstream, which makes the socket.",
    );
    // It makes going away certain.
    let gone = refused("127.0.0.1:8080", &[]).with_past(|past| {
        (past.last_ok, past.failures, past.failing_for) = (Some(2_000), 1, Some(10));
    });
    assert_eq!(gone.sure(Code::WentAway), Confidence::Certain);
}

#[test]
fn near_misses_of_nothing_listening() {
    let code = Code::NothingListening;
    assert!(refused("127.0.0.1:8080", &[]).with(not_own).is_silent(code));
    assert!(refused("127.0.0.1:8080", &["127.0.0.1"]).is_silent(code));
    assert!(refused("127.0.0.1:8080", &["192.0.2.1"]).is_silent(code));
    assert!(on("127.0.0.1:8080", Cause::ConnectionTimedOut, &[]).is_silent(code));
    assert!(unix(Cause::ConnectionRefused, Listening::Unknown, None).is_silent(code));
    assert!(unix(Cause::SocketNotFound, Listening::Nobody, None).is_silent(code));
}

#[test]
fn bound_elsewhere() {
    refused("192.0.2.10:8080", &["127.0.0.1"]).expect(
        Code::BoundElsewhere,
        Confidence::Certain,
        "Port 8080 of this host is open on 127.0.0.1, not on 192.0.2.10.",
        r#"{"port":8080,"listens_on":["127.0.0.1"]}"#,
        "Write 127.0.0.1:8080 in upstream \"app\", or have the process listen on 192.0.2.10 too.",
    );
    refused("127.0.0.1:8080", &["::1", "192.0.2.10"]).expect(
        Code::BoundElsewhere,
        Confidence::Certain,
        "Port 8080 of this host is open on [::1], 192.0.2.10, not on 127.0.0.1.",
        r#"{"port":8080,"listens_on":["[::1]","192.0.2.10"]}"#,
        "Write [::1]:8080 in upstream \"app\", or have the process listen on 127.0.0.1 too.",
    );
    let said = |peer, listeners: &[&str]| {
        let case = refused(peer, listeners);
        let finding = case.find(Code::BoundElsewhere).unwrap();
        (finding.text.to_string(), finding.advice.unwrap().to_string())
    };
    let (text, advice) = said("[::1]:8080", &["0.0.0.0"]);
    assert_eq!(text, "Port 8080 of this host is open on 0.0.0.0 (IPv4), not on ::1.");
    assert!(advice.starts_with("Write 127.0.0.1:8080 in upstream"), "{advice}");
    let (text, advice) = said("127.0.0.1:8080", &["::"]);
    assert_eq!(text, "Port 8080 of this host is open on [::] (IPv6), not on 127.0.0.1.");
    assert!(advice.starts_with("Write [::1]:8080 in upstream"), "{advice}");
    // Named are four at most, each once.
    let (text, _) =
        said("10.0.0.9:80", &["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "::1", "::2"]);
    assert_eq!(
        text,
        "Port 80 of this host is open on 10.0.0.1, 10.0.0.2, 10.0.0.3, [::1], not on 10.0.0.9."
    );
}

/// What depends on more than is known.
#[test]
fn bound_elsewhere_perhaps() {
    let both = |v6_only| Listener { v6_only, ..listener("::") };
    let code = Code::BoundElsewhere;
    let refused = |listener| on("127.0.0.1:8080", Cause::ConnectionRefused, &[listener]);
    assert_eq!(refused(both(None)).sure(code), Confidence::Likely);
    assert!(refused(both(Some(false))).is_silent(code));
    let one = Listener { one_interface: true, ..listener("0.0.0.0") };
    assert_eq!(refused(one).sure(code), Confidence::Likely);
}

#[test]
fn near_misses_of_bound_elsewhere() {
    let code = Code::BoundElsewhere;
    assert!(refused("192.0.2.10:8080", &["127.0.0.1"]).with(not_own).is_silent(code));
    assert!(refused("192.0.2.10:8080", &[]).is_silent(code));
    // It listens where it should, by now.
    assert!(refused("192.0.2.10:8080", &["127.0.0.1", "192.0.2.10"]).is_silent(code));
    assert!(refused("192.0.2.10:8080", &["0.0.0.0"]).is_silent(code));
    assert!(refused("[2001:db8::1]:8080", &["::"]).is_silent(code));
    assert!(refused("[::ffff:192.0.2.10]:8080", &["192.0.2.10"]).is_silent(code));
    let late = on("192.0.2.10:8080", Cause::ConnectionTimedOut, &[listener("127.0.0.1")]);
    assert!(late.is_silent(code));
}

/// A process that listens where nobody can find it.
#[test]
fn a_socket_whose_file_is_gone() {
    let lost = Listening::Somebody { reachable: false, queue: 0, limit: 128 };
    unix(Cause::SocketNotFound, lost, None).expect(
        Code::BoundElsewhere,
        Confidence::Certain,
        "A process listens on a socket that was unix:/run/app.sock, and whose file was deleted or replaced: no connection reaches it.",
        r#"{"peer":"unix:/run/app.sock"}"#,
        "Restart the process that listens on unix:/run/app.sock: the file of its socket was deleted or replaced.",
    );
    let found = Listening::Somebody { reachable: true, queue: 0, limit: 128 };
    assert!(unix(Cause::SocketNotFound, found, None).is_silent(Code::BoundElsewhere));
    assert!(unix(Cause::PermissionDenied, lost, None).is_silent(Code::BoundElsewhere));
}

fn waiting(address: &str, queue: u32) -> Listener {
    Listener { queue, ..listener(address) }
}

#[test]
fn listen_backlog_full() {
    let late = |listeners: &[Listener]| on("127.0.0.1:8080", Cause::ConnectionTimedOut, listeners);
    late(&[waiting("0.0.0.0", 129)]).expect(
        Code::ListenBacklogFull,
        Confidence::Certain,
        "The accept queue of 127.0.0.1:8080 is full: 129 connections wait, its limit is 128.",
        r#"{"queue":129,"backlog":128}"#,
        "Add workers to the process, or find what they wait for; for short bursts raise its backlog (now 128), and net.core.somaxconn with it.",
    );
    let code = Code::ListenBacklogFull;
    // Just as long as it may be; one of two sockets that share the port; a connection that got in.
    assert_eq!(late(&[waiting("127.0.0.1", 128)]).sure(code), Confidence::Likely);
    let shared = late(&[waiting("127.0.0.1", 129), waiting("127.0.0.1", 3)]);
    assert_eq!(shared.sure(code), Confidence::Likely);
    let accepted = on("127.0.0.1:8080", Cause::ResponseTimedOut, &[waiting("0.0.0.0", 129)]);
    assert_eq!(accepted.sure(code), Confidence::Likely);
    let full = Listening::Somebody { reachable: true, queue: 129, limit: 128 };
    let full = unix(Cause::ListenQueueFull, full, None);
    assert_eq!(full.sure(code), Confidence::Certain);
    assert_eq!(
        full.find(code).unwrap().text.to_string(),
        "The accept queue of unix:/run/app.sock is full: 129 connections wait, its limit is 128."
    );
}

#[test]
fn near_misses_of_listen_backlog_full() {
    let code = Code::ListenBacklogFull;
    let late = |listeners: &[Listener]| on("127.0.0.1:8080", Cause::ConnectionTimedOut, listeners);
    assert!(late(&[waiting("0.0.0.0", 127)]).is_silent(code));
    assert!(late(&[]).is_silent(code));
    // The queue of another address, of another host, of another failure.
    assert!(late(&[waiting("192.0.2.1", 129)]).is_silent(code));
    assert!(late(&[waiting("0.0.0.0", 129)]).with(not_own).is_silent(code));
    let other = on("127.0.0.1:8080", Cause::ConnectionReset, &[waiting("0.0.0.0", 129)]);
    assert!(other.is_silent(code));
    let accepted = on("127.0.0.1:8080", Cause::ResponseTimedOut, &[waiting("0.0.0.0", 128)]);
    assert!(accepted.is_silent(code));
    let lost = Listening::Somebody { reachable: false, queue: 129, limit: 128 };
    assert!(unix(Cause::ListenQueueFull, lost, None).is_silent(code));
}

#[test]
fn restarted_by_its_process() {
    let process = |started| Some(Process { pid: 4_711, started: Seconds::Millis(started) });
    let case = |started| {
        unix(Cause::ResponseTimedOut, Listening::Unknown, process(started))
            .with_past(|past| past.last_ok = Some(20_400))
    };
    case(8_200).expect(
        Code::Restarted,
        Confidence::Certain,
        "The process that listens on unix:/run/app.sock (pid 4711) started 8.2 s ago, after the last good answer 20.4 s ago: it was restarted.",
        r#"{"last_ok":20.400,"pid":4711,"started":8.200}"#,
        "See in the log of unix:/run/app.sock why it was restarted 8.2 s ago: a deployment, a crash, the limit of its memory.",
    );
    // It gave that answer; two clocks that differ a little; no answer to compare with.
    assert!(case(60_000).is_silent(Code::Restarted));
    assert!(case(20_300).is_silent(Code::Restarted));
    assert!(!case(20_299).is_silent(Code::Restarted));
    assert!(case(8_200).with_past(|past| past.last_ok = None).is_silent(Code::Restarted));
    let unknown = unix(Cause::ResponseTimedOut, Listening::Unknown, None);
    assert!(unknown.with_past(|past| past.last_ok = Some(9)).is_silent(Code::Restarted));
}
