//! A queue that nobody empties: `listen_backlog_full`.

use std::net::TcpStream;

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use t::ports::Reservation;
use t::{FullBacklog, Nginx, diag};

use crate::{fails, group};

/// How many connections the queues are for.
const BACKLOG: usize = 3;

fn conf(addr: &str) -> t::Conf {
    group(&format!("server {addr};"), "proxy_connect_timeout 300ms; proxy_read_timeout 300ms;")
}

fn text(addr: &str, queue: usize, limit: usize) -> String {
    format!("The accept queue of {addr} is full: {queue} connections wait, its limit is {limit}.")
}

fn advice(limit: usize) -> String {
    format!(
        "Add workers to the process, or find what they wait for; for short bursts raise its backlog (now {limit}), and net.core.somaxconn with it."
    )
}

/// Guards against a server that does not accept being taken for a host that is down, or for a
/// firewall: the kernel knows how many wait.
#[test]
fn nobody_is_let_in() {
    let dir = t::temp_dir();
    let backlog = i32::try_from(BACKLOG).expect("a small number");
    for (full, cause) in [
        (FullBacklog::tcp(backlog), "connection_timed_out"),
        (FullBacklog::unix(&dir.path().join("full.sock"), backlog), "listen_queue_full"),
    ] {
        let nginx = Nginx::start(conf(full.addr()));
        let seen = fails(&nginx, 0);
        let queue = full.waiting();
        seen.expect(cause, &json!({"outcome": "failed"}));
        seen.finds(
            "listen_backlog_full",
            "certain",
            &text(full.addr(), queue, BACKLOG),
            &json!({"queue": queue, "backlog": BACKLOG}),
        );
        seen.advises("listen_backlog_full", &advice(BACKLOG));
        assert_eq!(seen.codes(), ["listen_backlog_full", "single_server"]);
        diag::finish(&nginx);
    }
}

/// Guards against a request that waits in the queue with its connection being told as one that the
/// server is slow with: the connection is made by the kernel, and its server knows nothing of it.
/// With room behind it in the queue, that cannot be said.
#[test]
fn let_in_by_the_kernel_only() {
    let dir = t::temp_dir();
    let port = Reservation::v4().expect("a port");
    let file = dir.path().join("up.sock");
    let tcp = port.listen(1).expect("a listener");
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let name = SockAddr::unix(&file).expect("a name");
    unix.bind(&name).expect("bound");
    unix.listen(1).expect("a listener");
    open_to_all(&file);

    let addrs = [port.addr().to_string(), format!("unix:{}", file.display())];
    for (n, addr) in addrs.iter().enumerate() {
        // It is the first in the queue, and then the one too many.
        for (waiting, full) in [(0, false), (1, true)] {
            let _waiting: Vec<Socket> = (0..waiting)
                .map(|_| match n {
                    0 => TcpStream::connect(port.addr()).expect("room in the queue").into(),
                    _ => {
                        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("one");
                        socket.connect(&name).expect("room in the queue");
                        socket
                    }
                })
                .collect();
            let nginx = Nginx::start(conf(addr));
            let seen = fails(&nginx, 0);
            seen.expect("response_timed_out", &json!({"outcome": "failed"}));
            if full {
                seen.finds(
                    "listen_backlog_full",
                    "likely",
                    &text(addr, 2, 1),
                    &json!({"queue": 2, "backlog": 1}),
                );
                seen.advises("listen_backlog_full", &advice(1));
            }
            let codes = ["listen_backlog_full", "single_server"];
            assert_eq!(seen.codes(), codes[usize::from(!full)..], "{addr}");
            diag::finish(&nginx);
            // What nginx and this test have left in the queue.
            let listener = if n == 0 { &tcp } else { &unix };
            for _ in 0..=waiting {
                drop(listener.accept().expect("a connection"));
            }
        }
    }
}

fn open_to_all(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o777)).expect("a socket");
}
