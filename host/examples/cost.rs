//! What the answers cost: `unshare -n cargo run --release -p host --example cost`.
//!
//! Needs root for a network namespace of its own, where it opens nearly 20,000 files.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::integer_division,
    reason = "a tool: a broken assumption should stop it at once"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use socket2::{Domain, Socket, Type};

fn main() {
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    // Two lines of titles, and "lo".
    assert_eq!(interfaces.lines().count(), 3, "run it in a network namespace of its own");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    setrlimit(Resource::RLIMIT_NOFILE, 20_000, 20_000).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0");
    let port = 30_000;

    measure("is_own", || host::is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    measure("process_started", || host::process_started(1));

    let mut tcp = Vec::new();
    for ports in [0, 1, 10, 100, 2_000, 10_000] {
        while tcp.len() < ports {
            tcp.push(listen(Ipv4Addr::LOCALHOST, port + u16::try_from(tcp.len()).unwrap()));
        }
        measure(&format!("listeners, {ports} ports"), || host::listeners(port));
    }
    tcp.truncate(10);
    for sockets in [10, 100, 1_000, 3_000, 5_000] {
        while tcp.len() - 9 < sockets {
            let n = u32::try_from(tcp.len()).unwrap();
            tcp.push(listen(Ipv4Addr::from_bits(0x7f01_0000 + n), port));
        }
        measure(&format!("listeners, {sockets} on the port"), || host::listeners(port));
    }
    tcp.truncate(10);
    let mut connections = Vec::new();
    for count in [1_800, 18_000] {
        while connections.len() < count {
            // Both ends are established; that of the server waits to be accepted.
            let at = port + u16::try_from(connections.len() % 9 + 1).unwrap();
            connections.push(TcpStream::connect((Ipv4Addr::LOCALHOST, at)).unwrap());
        }
        measure(&format!("listeners, 10 ports, {count} connections"), || host::listeners(port));
    }
    drop(connections);

    let mut unix = Vec::new();
    for sockets in [1, 10, 100, 300, 1_000, 3_000, 5_000] {
        while unix.len() < sockets {
            unix.push(UnixListener::bind(directory.path().join(unix.len().to_string())).unwrap());
        }
        let path = path.as_os_str().as_encoded_bytes();
        measure(&format!("unix_listener, {sockets} sockets"), || host::unix_listener(path));
    }
}

fn listen(address: Ipv4Addr, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((address, port)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket
}

fn measure<T>(what: &str, ask: impl Fn() -> Option<T>) {
    let known = ask().is_some();
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            let start = Instant::now();
            let _ = std::hint::black_box(ask());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{what:42} {:>6} µs, 99%: {:>6} µs{}",
        times[times.len() / 2].as_micros(),
        times[times.len() * 99 / 100].as_micros(),
        if known { "" } else { "  (not known)" },
    );
}
