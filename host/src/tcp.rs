//! Who listens on a TCP port: `NETLINK_SOCK_DIAG`, sock_diag(7), `linux/inet_diag.h`.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;

use netlink_packet_core::{
    DecodeError, Emitable as _, NetlinkDeserializable, NetlinkHeader, NlasIterator, Parseable as _,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, INET_DIAG_SKV6ONLY, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    TCP_LISTEN,
};
use nix::sys::socket::SockProtocol;

use crate::netlink::Conversation;

/// A TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to; unspecified (`0.0.0.0`, `::`) is every address of the family. An IPv6
    /// socket that is bound to an IPv4 address (`::ffff:192.0.2.1`) is given with the latter:
    /// connections to it are all that it accepts.
    pub address: IpAddr,
    /// Whether an IPv6 socket refuses IPv4. On `::` it accepts both without that; on any other
    /// address it always refuses it. Old kernels do not tell.
    pub v6_only: Option<bool>,
    /// The index of the only network interface it hears, if it was bound to one (`SO_BINDTODEVICE`;
    /// a link-local address; a VRF).
    pub interface: Option<u32>,
    /// The connections that wait to be accepted.
    pub queue: u32,
    /// The backlog, `net.core.somaxconn` at most. The queue is full when it is longer than this:
    /// `sk_acceptq_is_full` in `include/net/sock.h`.
    pub limit: u32,
}

/// The TCP sockets of this network namespace that listen on a port, in no order.
///
/// The kernel picks the port and the state itself: it looks at no connection, and what listens
/// elsewhere is not sent. It does go over its whole table of listening sockets, once for IPv4 and
/// once for IPv6 (`tcp_diag_dump` in `net/ipv4/tcp_diag.c`), which takes about 40 µs on a host with
/// few and 75 ns more for each; one on the port itself costs 0.5 µs (`examples/cost.rs`). With more
/// than about 2,000 on the port the answer is not known.
pub fn listeners(port: u16) -> Option<Vec<Listener>> {
    let mut found = Vec::new();
    let mut kernel = Conversation::open(SockProtocol::NetlinkSockDiag)?;
    for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        kernel.sockets(question(family, id, port), &MISSING, |answer: Answer| {
            // Port 0 is any to the kernel.
            found.extend(answer.0.filter(|(at, _)| *at == port).map(|(_, listener)| listener));
        })?;
    }
    Some(found)
}

/// There is no `tcp_diag` in this kernel.
static MISSING: AtomicBool = AtomicBool::new(false);

pub(crate) fn question(family: u8, id: SocketId, port: u16) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id: SocketId { source_port: port, ..id },
    })
}

/// A socket and its port, if it listens.
#[derive(Debug)]
pub(crate) struct Answer(Option<(u16, Listener)>);

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    // Not `InetResponse` of the crate, which copies every attribute, known or not, to the heap and
    // fails on any that is not as it expects.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != SOCK_DIAG_BY_FAMILY {
            return Err("not a socket".into());
        }
        let socket = InetResponseHeader::parse(payload)?;
        let mut v6_only = None;
        for attribute in NlasIterator::new(payload.get(socket.buffer_len()..).unwrap_or_default()) {
            let attribute = attribute?;
            // A byte; sent for every IPv6 socket that listens, whatever was asked for:
            // inet_diag_msg_attrs_fill in net/ipv4/inet_diag.c.
            if let (INET_DIAG_SKV6ONLY, [value]) = (attribute.kind(), attribute.value()) {
                v6_only = Some(*value != 0);
            }
        }
        let id = socket.socket_id;
        let address = id.source_address.to_canonical();
        Ok(Self((socket.state == TCP_LISTEN).then_some((
            id.source_port,
            Listener {
                address,
                v6_only: v6_only.filter(|_| address.is_ipv6()),
                interface: Some(id.interface_id).filter(|&index| index != 0),
                // Of a socket that listens, this is what the two are: tcp_diag_get_info in
                // net/ipv4/tcp_diag.c.
                queue: socket.recv_queue,
                limit: socket.send_queue,
            },
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against the figures of a socket that does not listen, where they are bytes, being
    /// taken for a queue of connections, should a kernel not do as it was told.
    #[test]
    fn the_state_is_not_taken_for_granted() {
        let mut header = NetlinkHeader::default();
        header.message_type = SOCK_DIAG_BY_FAMILY;
        // struct inet_diag_msg.
        let mut socket = [0; 72];
        for (family, state, expected) in
            [(AF_INET, 10, true), (AF_INET6, 10, true), (AF_INET, 1, false), (AF_INET6, 3, false)]
        {
            (socket[0], socket[1]) = (family, state);
            let answer = Answer::deserialize(&header, &socket).unwrap();
            assert_eq!(answer.0.is_some(), expected, "{family} {state}");
        }
        assert!(Answer::deserialize(&NetlinkHeader::default(), &socket).is_err(), "not a socket");
    }
}
