//! The limits, and answers that are not as they should be.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "test code: an overflow is a failed test, and stops it"
)]

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
use netlink_packet_sock_diag::inet::SocketId;
use netlink_packet_sock_diag::{AF_INET, SOCK_DIAG_BY_FAMILY};

use super::*;
use crate::{route, tcp, unix};

/// Any answer: what is counted is how many there are.
struct Any;

impl NetlinkDeserializable for Any {
    type Error = std::convert::Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}

/// All the sockets of IPv4 that listen.
fn all_tcp() -> SockDiagMessage {
    tcp::question(AF_INET, SocketId::new_v4(), 0)
}

/// `None` where netlink cannot be had, which is for the tests in `tests/` to complain about.
fn conversation(limits: Limits) -> Option<Conversation> {
    Some(Conversation { limits, ..Conversation::open(SockProtocol::NetlinkSockDiag)? })
}

/// Guards against a worker that is held up by a host with very many sockets, and against a part of
/// an answer being taken for all of it.
#[test]
fn each_limit_ends_the_answer() {
    let _listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let ask = |limits: Limits| {
        let mut count = 0;
        let end = conversation(limits)?.ask(all_tcp(), NLM_F_DUMP, |_: Any| count += 1);
        assert!(count <= limits.messages, "{count}");
        end
    };
    if conversation(LIMITS).is_none() {
        return;
    }
    assert_eq!(ask(LIMITS), Some(End::Complete));
    assert_eq!(ask(Limits { messages: 2, ..LIMITS }), None, "messages");
    assert_eq!(ask(Limits { bytes: 200, ..LIMITS }), None, "bytes");
}

/// Guards against all listeners of the host being sent for each question, to be sorted out here.
#[test]
fn the_kernel_picks_the_port() {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listeners[0].local_addr().unwrap().port();
    let Some(mut kernel) = conversation(LIMITS) else { return };
    let mut count = 0;
    let question = tcp::question(AF_INET, SocketId::new_v4(), port);
    assert_eq!(kernel.ask(question, NLM_F_DUMP, |_: Any| count += 1), Some(End::Complete));
    // Another test may listen on the same port of another address, and not on hundreds.
    assert!((1..3).contains(&count), "{count}");
}

/// Guards against limits that begin anew with each question of a conversation.
#[test]
fn limits_are_of_all_questions_together() {
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let Some(mut kernel) = conversation(LIMITS) else { return };
    let mut ends = std::iter::from_fn(|| Some(kernel.ask(all_tcp(), NLM_F_DUMP, |_: Any| ())));
    assert_eq!(ends.next(), Some(Some(End::Complete)));
    assert!(ends.take(LIMITS.messages).any(|end| end.is_none()), "never ended");
}

/// Guards against modprobe being run for every failed connection where the kernel has no such
/// module, and against that being remembered for any other reason.
#[test]
fn a_missing_module_is_asked_for_once() {
    // IPX: not in Linux since 4.18.
    let unknown = || tcp::question(4, SocketId::new_v4(), 1);
    let missing = AtomicBool::new(false);
    let Some(mut kernel) = conversation(LIMITS) else { return };
    assert_eq!(kernel.sockets(all_tcp(), &missing, |_: Any| ()), Some(()));
    assert!(!missing.load(Ordering::Relaxed));
    // No family at all: EINVAL.
    let wrong = tcp::question(u8::MAX, SocketId::new_v4(), 1);
    assert_eq!(kernel.sockets(wrong, &missing, |_: Any| ()), None);
    assert!(!missing.load(Ordering::Relaxed));
    assert_eq!(kernel.sockets(unknown(), &missing, |_: Any| ()), None);
    assert!(missing.load(Ordering::Relaxed));
    let sequence = kernel.sequence;
    assert_eq!(kernel.sockets(all_tcp(), &missing, |_: Any| ()), None);
    assert_eq!(kernel.sequence, sequence, "asked again");
}

/// Guards against a program that inherits the socket when nginx starts one, and against a worker
/// that waits for an answer.
#[test]
fn the_socket_is_closed_on_exec_and_never_waited_for() {
    let Some(mut kernel) = conversation(LIMITS) else { return };
    let fd = kernel.socket.as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    assert_ne!(flags & nix::libc::O_CLOEXEC, 0, "{flags:o}");
    assert_ne!(flags & nix::libc::O_NONBLOCK, 0, "{flags:o}");
    // Nothing was asked.
    assert_eq!(kernel.receive(|_: Any| ()), None);
}

const SEQUENCE: u32 = 7;

/// A message as the kernel writes it.
fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Guards against each way in which an answer may be less than the truth.
#[test]
fn what_is_an_answer() {
    const MULTI: u16 = NLM_F_MULTIPART;
    let part = message(SOCK_DIAG_BY_FAMILY, MULTI, &[0; 72]);
    let done = message(NLMSG_DONE, MULTI, &[0; 4]);
    let refused =
        |code: i32| message(NLMSG_ERROR, 0, &[&code.to_ne_bytes()[..], &[0; 16]].concat());
    let refusal = |errno| Some(Some(End::Refused(errno)));
    let mut other = part.clone();
    other[8] ^= 1;
    let mut short = part.clone();
    short[0] = 15;
    type Row = (&'static str, Vec<u8>, usize, Option<Option<End>>);
    let table: [Row; 18] = [
        ("more to come", part.clone(), 1, Some(None)),
        ("the end", done.clone(), 0, Some(Some(End::Complete))),
        ("both", [&part[..], &part, &done].concat(), 2, Some(Some(End::Complete))),
        ("one alone", message(SOCK_DIAG_BY_FAMILY, 0, &[0; 72]), 1, Some(Some(End::Complete))),
        ("the end, without a code", message(NLMSG_DONE, MULTI, &[]), 0, Some(Some(End::Complete))),
        ("failed in the middle", message(NLMSG_DONE, MULTI, &(-4_i32).to_ne_bytes()), 0, None),
        ("interrupted", message(SOCK_DIAG_BY_FAMILY, MULTI | NLM_F_DUMP_INTR, &[0; 72]), 0, None),
        ("interrupted end", message(NLMSG_DONE, MULTI | NLM_F_DUMP_INTR, &[0; 4]), 0, None),
        ("refused", refused(-1), 0, refusal(Errno::EPERM)),
        ("refused late", [part.clone(), refused(-2)].concat(), 1, refusal(Errno::ENOENT)),
        ("an error that is none", refused(0), 0, None),
        ("the lowest error", refused(i32::MIN), 0, None),
        ("to another question", other, 0, None),
        ("overrun", message(NLMSG_OVERRUN, MULTI, &[]), 0, None),
        ("nothing", vec![], 0, None),
        ("noop", message(NLMSG_NOOP, MULTI, &[]), 0, None),
        ("shorter than its header", short, 0, None),
        ("cut", part[..part.len() - 1].to_vec(), 0, None),
    ];
    for (what, bytes, expected, end) in table {
        let mut count = 0;
        let seen = read(&bytes, SEQUENCE, &mut { LIMITS }, &mut |_: Any| count += 1);
        assert_eq!(seen, end, "{what}");
        assert_eq!(count, expected, "{what}");
    }
}

/// The datagrams of the kernel's answer to a question, with this sequence number.
fn answer(protocol: SockProtocol, question: impl NetlinkSerializable, flags: u16) -> Vec<Vec<u8>> {
    let Some(mut kernel) = Conversation::open(protocol) else { return Vec::new() };
    kernel.sequence = SEQUENCE - 1;
    kernel.send(question, flags).unwrap();
    let mut buffer = [0; BUFFER];
    std::iter::from_fn(|| {
        let length = recv(kernel.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        Some(buffer[..length].to_vec())
    })
    .collect()
}

/// Reads garbage as each kind of answer; says how many of these were understood.
fn digest(bytes: &[u8]) -> usize {
    let mut count = 0;
    let mut limits = Limits { messages: 64, ..LIMITS };
    let _ = read(bytes, SEQUENCE, &mut limits, &mut |_: tcp::Answer| count += 1);
    let _ = read(bytes, SEQUENCE, &mut limits, &mut |_: unix::Answer| count += 1);
    let _ = read(bytes, SEQUENCE, &mut limits, &mut |_: route::Route| count += 1);
    assert!(count <= 64);
    count
}

/// Guards against a panic in the library or here on an answer that no kernel gives today.
#[test]
fn no_answer_breaks_it() {
    let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let _unix = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
    let foreign = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let mut real = answer(SockProtocol::NetlinkSockDiag, all_tcp(), NLM_F_DUMP);
    real.extend(answer(SockProtocol::NetlinkSockDiag, unix::question(), NLM_F_DUMP));
    real.extend(answer(SockProtocol::NetlinkRoute, route::Question::new(foreign), 0));
    real.push(message(NLMSG_ERROR, 0, &[0xff; 20]));
    real.push(message(NLMSG_DONE, NLM_F_MULTIPART, &[0xff; 12]));
    real.push(Vec::new());

    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    for mut bytes in real {
        // A few messages are as good as hundreds, and faster.
        bytes.truncate(600);
        for length in 0..=bytes.len() {
            digest(&bytes[..length]);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            digest(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for _ in 0..3000 {
            let mut broken = bytes.clone();
            for _ in 0..random(8) {
                let at = random(broken.len());
                if let Some(byte) = broken.get_mut(at) {
                    *byte = [0, 1, 3, 4, 15, 16, 0x7f, 0x80, 0xff][random(9)];
                }
            }
            broken.truncate(random(broken.len() * 4));
            digest(&broken);
        }
    }
    // Noise never has the right number.
    for length in 0..2000 {
        let noise: Vec<u8> = (0..length).map(|_| u8::try_from(random(256)).unwrap()).collect();
        assert_eq!(digest(&noise), 0);
    }
}

/// Guards against the test above testing nothing, because what it breaks was never understood.
#[test]
fn the_real_answers_are_understood() {
    let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let _unix = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (what, datagrams) in [
        ("tcp", answer(SockProtocol::NetlinkSockDiag, all_tcp(), NLM_F_DUMP)),
        ("unix", answer(SockProtocol::NetlinkSockDiag, unix::question(), NLM_F_DUMP)),
        ("route", answer(SockProtocol::NetlinkRoute, route::Question::new(address), 0)),
    ] {
        if let Some(first) = datagrams.first() {
            assert!(digest(first) > 0, "{what}");
        }
    }
}
