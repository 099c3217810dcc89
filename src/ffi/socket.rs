//! What the kernel knows of a connection, asked without disturbing nginx.
//!
//! SO_ERROR is never read: reading clears it, and nginx would miss the error.

use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr};

use diagnosis::{Seconds, Tcp};
use libc::{IPPROTO_TCP, MSG_DONTWAIT, MSG_PEEK, TCP_INFO, socklen_t, tcp_info};

/// `TCP_INFO` of a connected TCP socket; `None` for any other.
pub(crate) fn tcp_info(fd: i32) -> Option<Tcp> {
    let mut info = MaybeUninit::<tcp_info>::zeroed();
    let mut len = socklen_t::try_from(size_of::<tcp_info>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes into the structure, whose fields are all
    // integers: what an older kernel does not fill stays zero.
    let info = unsafe {
        if libc::getsockopt(fd, IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), &mut len) != 0 {
            return None;
        }
        info.assume_init()
    };
    let state = state(info.tcpi_state)?;
    // Before the connection stands nothing was ever sent or received: the kernel would report
    // the time since boot.
    let connected = state != "SYN_SENT" && info.tcpi_rtt != 0;
    Some(Tcp {
        state,
        rtt: Seconds::Micros(info.tcpi_rtt.into()),
        retransmits: info.tcpi_total_retrans.into(),
        idle: connected.then(|| Seconds::Millis(info.tcpi_last_data_recv.into())),
        since_sent: connected.then(|| Seconds::Millis(info.tcpi_last_data_sent.into())),
    })
}

/// The states of `include/net/tcp_states.h`.
fn state(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => return None,
    })
}

/// Up to `limit` bytes that wait to be read, left where they are.
pub(crate) fn peek(fd: i32, limit: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; limit];
    // SAFETY: the kernel writes at most `limit` bytes, and does not wait.
    let read =
        unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), MSG_PEEK | MSG_DONTWAIT) };
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    bytes
}

/// Bytes on a TCP socket that the other end's kernel has not acknowledged, those not sent yet
/// included (SIOCOUTQ, tcp(7)). One that it acknowledged, its process may not have read.
pub(crate) fn unacknowledged(fd: i32) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes an int.
    let done = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).ok().filter(|_| done == 0)
}

/// The process that listens on the unix socket at the other end (`SO_PEERCRED`, unix(7)): its id
/// when it began to. `None` for any other socket.
pub(crate) fn listening_process(fd: i32) -> Option<i32> {
    let mut peer = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes into the structure, which is all integers.
    let peer = unsafe {
        let option = libc::SO_PEERCRED;
        let done =
            libc::getsockopt(fd, libc::SOL_SOCKET, option, peer.as_mut_ptr().cast(), &mut len);
        if done != 0 {
            return None;
        }
        peer.assume_init()
    };
    (peer.pid > 0).then_some(peer.pid)
}

/// The address and the port in a `sockaddr_in` or `sockaddr_in6`.
pub(super) fn ip_address(sockaddr: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = sockaddr.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let ip = match libc::c_int::from(libc::sa_family_t::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::from(*rest.first_chunk::<4>()?),
        // Behind the flow label.
        libc::AF_INET6 => IpAddr::from(*rest.get(4..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Whether this host has an address to reach another from: a datagram socket is connected to it,
/// which sends nothing and takes no port that could be lacking. `address` is a `sockaddr`.
pub(super) fn has_source_address(address: &[u8]) -> Option<bool> {
    let family = *address.first_chunk::<2>()?;
    let length = socklen_t::try_from(address.len()).ok()?;
    // SAFETY: the address is valid for its length, and the descriptor is closed here.
    unsafe {
        let family = libc::c_int::from(libc::sa_family_t::from_ne_bytes(family));
        let fd = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return None;
        }
        let failed = libc::connect(fd, address.as_ptr().cast(), length) != 0;
        let error = nginx_sys::ngx_errno();
        libc::close(fd);
        Some(!(failed && error == libc::EADDRNOTAVAIL))
    }
}
