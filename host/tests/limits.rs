//! A host with more sockets than it is worth to look at.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

mod namespace;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use namespace::in_namespace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

fn listen(domain: Domain, address: &SockAddr) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(7).unwrap();
    socket
}

/// The answer, which must not take more of the processor's time than a debug build needs for
/// what is read at most; the time of day says nothing where others run too.
fn soon<T>(ask: impl FnOnce() -> T) -> T {
    let clock = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let start = clock();
    let answer = ask();
    let took = clock().saturating_sub(start);
    assert!(took < Duration::from_millis(100), "{took:?}");
    answer
}

/// Guards against a worker that is held up by the sockets of a host, against a part of them being
/// taken for all, and against limits that usual hosts reach.
#[test]
fn many_sockets() {
    const PORT: u16 = 30_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Each kind goes away before the next comes, and a program has a few files more.
    if hard < 3_200 {
        println!("skipped: only {hard} files");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    in_namespace(&["link set lo up"], || {
        let mut sockets = Vec::new();
        for (count, expected) in [(1_000, Some(1_000)), (3_000, None)] {
            for n in sockets.len()..count {
                let address = Ipv4Addr::from_bits(0x7f01_0000 | u32::try_from(n).unwrap());
                let address = SocketAddr::from((address, PORT)).into();
                sockets.push(listen(Domain::IPV4, &address));
            }
            let found = soon(|| host::listeners(PORT));
            assert_eq!(found.map(|found| found.len()), expected, "{count} on the port");
            assert_eq!(soon(|| host::listeners(PORT + 1)), Some(vec![]), "{count} on another");
        }
        assert_eq!(soon(|| host::is_own(IpAddr::from([192, 0, 2, 1]))), Some(false));
        sockets.clear();
        let name = |n: usize| format!("\0{n}");
        for (count, known) in [(1_000, true), (3_000, false)] {
            for n in sockets.len()..count {
                sockets.push(listen(Domain::UNIX, &SockAddr::unix(name(n)).unwrap()));
            }
            let found = soon(|| host::unix_listener(name(0).as_bytes()));
            assert_eq!(found.is_some(), known, "{count} unix sockets");
        }
    });
}
