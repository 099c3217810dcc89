//! Whether an address is one of this host's: `RTM_GETROUTE`, rtnetlink(7), `linux/rtnetlink.h`.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6};
use nix::errno::Errno;
use nix::libc::{RTA_DST, RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL};
use nix::sys::socket::SockProtocol;

use crate::netlink::{Conversation, End};

/// Whether what this process sends to an address stays on this host.
///
/// The kernel is asked for the route it would take: what goes to an own address has a route of type
/// *local*. Nothing is sent, no port is taken, and `IP_FREEBIND`, `net.ipv4.ip_nonlocal_bind` and
/// `net.ipv6.ip_nonlocal_bind` play no part. That is why it is not asked by binding a socket to the
/// address: with those settings, usual where an address moves between hosts (keepalived), bind()
/// succeeds with every address. Nor is it asked by connecting a datagram socket and comparing its
/// own address: that is another one for the second address of a network.
///
/// It cannot know what netfilter, eBPF or IPVS make of a packet: an own address and port may lead
/// to another host, or into a container, and a foreign one back here. "Own" is about this network
/// namespace: the host's address is a foreign one in its containers. A link-local IPv6 address
/// comes without its interface here, and is looked for on all of them.
///
/// Linux 4.14 and later answer without the lock that all network configuration takes
/// (`RTNL_FLAG_DOIT_UNLOCKED` of `RTM_GETROUTE` in `net/ipv4/route.c`, `net/ipv6/route.c`).
pub fn is_own(address: IpAddr) -> Option<bool> {
    if is_own_everywhere(address) {
        return Some(true);
    }
    let address = address.to_canonical();
    let mut kind = None;
    let mut kernel = Conversation::open(SockProtocol::NetlinkRoute)?;
    match kernel.ask(Question::new(address), 0, |route: Route| kind = Some(route.kind))? {
        End::Complete => kind.map(|kind| kind == RTN_LOCAL),
        // There would be a route to an own address.
        End::Refused(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => Some(false),
        End::Refused(_) => None,
    }
}

/// Whether an address is every host's own: the kernel is not asked.
pub fn is_own_everywhere(address: IpAddr) -> bool {
    let address = address.to_canonical();
    // A connection to the unspecified address goes to the loopback one: tcp_v6_connect in
    // net/ipv6/tcp_ipv6.c, ip_route_output_key_hash_rcu in net/ipv4/route.c.
    address.is_loopback() || address.is_unspecified()
}

/// `struct rtmsg`, of which a question for one address needs the first two bytes, the family and
/// the number of bits that count, and its answer is read for the eighth, the type of the route.
const RTMSG: usize = 12;
const TYPE: usize = 7;

pub(crate) struct Question(Vec<u8>);

impl Question {
    pub(crate) fn new(address: IpAddr) -> Self {
        let (family, bits, address) = match address {
            IpAddr::V4(address) => (AF_INET, 32, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, 128, address.octets().to_vec()),
        };
        let destination = DefaultNla::new(RTA_DST, address);
        let mut attribute = vec![0; destination.buffer_len()];
        destination.emit(&mut attribute);
        let mut message = vec![family, bits];
        message.resize(RTMSG, 0);
        message.append(&mut attribute);
        Self(message)
    }
}

impl NetlinkSerializable for Question {
    fn message_type(&self) -> u16 {
        RTM_GETROUTE
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    /// `RTN_*`.
    kind: u8,
}

impl NetlinkDeserializable for Route {
    type Error = DecodeError;

    // Not `netlink-packet-route`: 53,000 lines for one byte, and it fails on any attribute that is
    // not as it expects.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match payload.get(..RTMSG).and_then(|rtmsg| rtmsg.get(TYPE)) {
            Some(&kind) if header.message_type == RTM_NEWROUTE => Ok(Self { kind }),
            _ => Err("not a route".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against another message, or a part of one, being read as a route.
    #[test]
    fn only_a_route_is_one() {
        let mut header = NetlinkHeader::default();
        let kind = |header: &NetlinkHeader, bytes: &[u8]| {
            Route::deserialize(header, bytes).ok().map(|route| route.kind)
        };
        assert_eq!(kind(&header, &[RTN_LOCAL; RTMSG]), None);
        header.message_type = RTM_NEWROUTE;
        assert_eq!(kind(&header, &[RTN_LOCAL; RTMSG]), Some(RTN_LOCAL));
        assert_eq!(kind(&header, &[RTN_LOCAL; RTMSG - 1]), None);
    }
}
