//! Who listens on a TCP port, asked about real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use host::{Listener, listeners};
use socket2::{Domain, Protocol, Socket, Type};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A port that is bound on every address and not listened on: as long as this lives, no other test
/// and no program gets it, on any address, while sockets with `SO_REUSEADDR` can listen there.
struct Port {
    _socket: Socket,
    number: u16,
}

impl Port {
    fn new() -> Self {
        let socket = bound(ANY6, false, 0, None).expect("a port");
        let number = socket.local_addr().unwrap().as_socket().unwrap().port();
        Self { _socket: socket, number }
    }

    fn listen(&self, address: IpAddr, v6_only: bool, backlog: i32) -> Socket {
        let socket = bound(address, v6_only, self.number, None).expect("listen");
        socket.listen(backlog).unwrap();
        socket
    }

    fn listeners(&self) -> Vec<Listener> {
        let mut found = listeners(self.number).expect("netlink");
        found.sort_by_key(|l| l.address);
        found
    }

    fn client(&self) -> TcpStream {
        TcpStream::connect((V4, self.number)).unwrap()
    }
}

fn bound(
    address: IpAddr,
    v6_only: bool,
    port: u16,
    protocol: Option<Protocol>,
) -> std::io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, protocol)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What is expected of a socket with a backlog of 7 that nobody connected to.
fn idle(address: IpAddr, v6_only: Option<bool>) -> Listener {
    Listener { address, v6_only, interface: None, queue: 0, limit: 7 }
}

/// Guards against each way of listening being missed, doubled, or told from another wrongly: the
/// finding "listens elsewhere" is made of this.
#[test]
fn each_way_to_listen() {
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let second = IpAddr::from([127, 0, 0, 2]);
    type Row<'a> = (&'a [(IpAddr, bool)], &'a [Listener]);
    let table: [Row<'_>; 9] = [
        (&[], &[]),
        (&[(V4, false)], &[idle(V4, None)]),
        // To the kernel any address but :: is for IPv6 only.
        (&[(V6, false)], &[idle(V6, Some(true))]),
        (&[(ANY4, false)], &[idle(ANY4, None)]),
        (&[(ANY6, false)], &[idle(ANY6, Some(false))]),
        (&[(ANY6, true)], &[idle(ANY6, Some(true))]),
        (&[(ANY4, false), (ANY6, true)], &[idle(ANY4, None), idle(ANY6, Some(true))]),
        (
            &[(second, false), (V4, false), (V6, false)],
            &[idle(V4, None), idle(second, None), idle(V6, Some(true))],
        ),
        // An IPv6 socket that accepts nothing but IPv4 is said to be one of IPv4.
        (&[(mapped, false)], &[idle(V4, None)]),
    ];
    for (sockets, expected) in table {
        let port = Port::new();
        let open: Vec<_> = sockets.iter().map(|&(a, v6_only)| port.listen(a, v6_only, 7)).collect();
        assert_eq!(port.listeners(), expected, "{sockets:?}");
        drop(open);
        assert_eq!(port.listeners(), [], "{sockets:?}");
    }
}

/// Guards against another port's listeners being taken for this one's.
#[test]
fn only_that_port() {
    let ports = [(); 8].map(|()| Port::new());
    let open: Vec<_> = ports.iter().step_by(2).map(|port| port.listen(V4, false, 7)).collect();
    for (n, port) in ports.iter().enumerate() {
        let expected = if n % 2 == 0 { vec![idle(V4, None)] } else { vec![] };
        assert_eq!(port.listeners(), expected, "{n}");
    }
    assert_eq!(open.len(), 4);
    assert_eq!(listeners(0), Some(vec![]), "0 is any port to the kernel");
}

/// Guards against workers that share a port (`SO_REUSEPORT`) being taken for one.
#[test]
fn several_on_one_address() {
    let port = Port::new();
    let _workers = [(); 3].map(|()| port.listen(V4, false, 7));
    assert_eq!(port.listeners(), [(); 3].map(|()| idle(V4, None)));
}

/// Guards against a server that listens on an interface (a VRF, a link-local address) being said to
/// listen for everybody.
#[test]
fn on_an_interface_only() {
    let port = Port::new();
    let socket = bound(ANY4, false, port.number, None).unwrap();
    match socket.bind_device(Some(b"lo")) {
        // Linux before 5.7, without privileges.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return,
        bound => bound.unwrap(),
    }
    socket.listen(7).unwrap();
    let interface = Some(nix::net::if_::if_nametoindex("lo").unwrap());
    assert_eq!(port.listeners(), [Listener { interface, ..idle(ANY4, None) }]);
}

/// Guards against a listener of Multipath TCP, which every one of a Go program is since Go 1.24,
/// not being seen.
#[test]
fn multipath_tcp() {
    let port = Port::new();
    match bound(V4, false, port.number, Some(Protocol::MPTCP)) {
        Err(e) => println!("no Multipath TCP here: {e}"),
        Ok(socket) => {
            socket.listen(7).unwrap();
            assert_eq!(port.listeners(), [idle(V4, None)]);
        }
    }
}

/// Awaits a queue of this length. The last packet of a handshake may be on its way when connect()
/// is done, and nothing tells when it has arrived.
fn expect_queue(port: &Port, queue: u32, limit: u32) {
    let expected = [Listener { queue, limit, ..idle(V4, None) }];
    let until = Instant::now() + Duration::from_secs(10);
    while port.listeners() != expected && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(port.listeners(), expected);
}

/// Guards against a queue or a backlog that is not what the kernel has, and against the two being
/// exchanged: "the backlog is full" is `queue > limit`.
#[test]
fn the_queue_is_counted() {
    let port = Port::new();
    let server = port.listen(V4, false, 1);
    expect_queue(&port, 0, 1);
    let _first = port.client();
    expect_queue(&port, 1, 1);
    // The kernel takes one more than the backlog says.
    let _second = port.client();
    expect_queue(&port, 2, 1);
    // And no third: its handshake is not answered. Whoever is rejected is in no queue.
    let third = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    third.set_nonblocking(true).unwrap();
    let refused = third.connect(&SocketAddr::new(V4, port.number).into()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EINPROGRESS));
    expect_queue(&port, 2, 1);
    // What is accepted is no longer in the queue, and as a connection on the port not a listener.
    let _accepted = server.accept().unwrap();
    expect_queue(&port, 1, 1);
    server.listen(5).unwrap();
    expect_queue(&port, 1, 5);
}

/// Guards against connections being taken for listeners when the server is gone.
#[test]
fn connections_are_no_listeners() {
    let port = Port::new();
    let server = port.listen(V4, false, 7);
    let client = port.client();
    let accepted = server.accept().unwrap();
    drop(server);
    assert_eq!(port.listeners(), []);
    drop((client, accepted));
    assert_eq!(port.listeners(), [], "nor those that wait for their end");
}
