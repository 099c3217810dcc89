//! A question to the kernel over netlink, and what it answers.
//!
//! The packets are those of `netlink-packet-core`; only the loop around them is here, because the
//! ones of the usual crates wait for as long as it takes.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_ALIGNTO,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};

/// What a [`Conversation`] reads at most, over all its questions: about a millisecond's work.
///
/// There is no limit by the clock. Nothing is ever waited for, as the kernel answers while it is
/// called, so a clock would show how long other processes had the processor, and end the answer
/// where it is wanted most, on an overloaded host.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: usize,
    messages: usize,
}

const LIMITS: Limits = Limits { bytes: 256 * 1024, messages: 2048 };

/// What is read at once. The kernel makes the pieces of a dump as large as it has seen us read,
/// and never larger than that or a page, whichever is more (`netlink_dump` in
/// `net/netlink/af_netlink.c`). It is on the stack: a worker's has megabytes.
const BUFFER: usize = 16 * 1024;

/// How the kernel ended its answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All was said.
    Complete,
    /// Nothing was, for this reason.
    Refused(Errno),
}

/// A socket to the kernel, and what is left of the limits.
pub(crate) struct Conversation {
    socket: OwnedFd,
    sequence: u32,
    limits: Limits,
}

impl Conversation {
    /// `None` where no such socket can be had.
    pub(crate) fn open(protocol: SockProtocol) -> Option<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).ok()?;
        // Connected to the kernel, which is port 0, it gets nothing that another process sends:
        // netlink_getsockbyportid in net/netlink/af_netlink.c.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).ok()?;
        Some(Self { socket, sequence: 0, limits: LIMITS })
    }

    /// Asks, and hands what comes to `each`. `None` if the answer cannot be had or not be trusted;
    /// what `each` was given until then is worth nothing.
    pub(crate) fn ask<Q: NetlinkSerializable, A: NetlinkDeserializable>(
        &mut self,
        question: Q,
        flags: u16,
        each: impl FnMut(A),
    ) -> Option<End> {
        self.send(question, flags)?;
        self.receive(each)
    }

    fn send(&mut self, question: impl NetlinkSerializable, flags: u16) -> Option<()> {
        self.sequence = self.sequence.checked_add(1)?;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).ok().map(drop)
    }

    fn receive<A: NetlinkDeserializable>(&mut self, mut each: impl FnMut(A)) -> Option<End> {
        let mut buffer = [0; BUFFER];
        loop {
            // MSG_TRUNC: the length is that of the message, also when it did not fit.
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC).ok()?;
            let datagram = buffer.get(..length)?;
            if let Some(end) = read(datagram, self.sequence, &mut self.limits, &mut each)? {
                return Some(end);
            }
        }
    }

    /// Asks for all sockets that the question describes. `missing` remembers that the kernel
    /// cannot be asked: each further try would have it look for its module again.
    pub(crate) fn sockets<A: NetlinkDeserializable>(
        &mut self,
        question: SockDiagMessage,
        missing: &AtomicBool,
        each: impl FnMut(A),
    ) -> Option<()> {
        if missing.load(Ordering::Relaxed) {
            return None;
        }
        match self.ask(question, NLM_F_DUMP, each)? {
            End::Complete => Some(()),
            End::Refused(reason) => {
                // The answer of __sock_diag_cmd and inet_diag_lock_handler when there is nobody
                // who knows such sockets; a dump has no other cause for it.
                missing.fetch_or(reason == Errno::ENOENT, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Reads the messages of one datagram, which go on in another one if there is no [`End`] yet.
/// `None` for anything but a whole and consistent answer to the question with this number.
fn read<A: NetlinkDeserializable>(
    datagram: &[u8],
    sequence: u32,
    limits: &mut Limits,
    each: &mut impl FnMut(A),
) -> Option<Option<End>> {
    limits.bytes = limits.bytes.checked_sub(datagram.len())?;
    let mut rest = datagram;
    // At least one, so that each datagram brings the end nearer.
    loop {
        limits.messages = limits.messages.checked_sub(1)?;
        let message = NetlinkMessage::<A>::deserialize(rest).ok()?;
        let header = message.header;
        // Sockets came and went while the kernel walked over them: it may have missed some.
        if header.sequence_number != sequence || header.flags & NLM_F_DUMP_INTR != 0 {
            return None;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => each(answer),
            // The code is what the dump returned last: less than zero if it failed half-way.
            NetlinkPayload::Done(done) => return (done.code >= 0).then_some(Some(End::Complete)),
            NetlinkPayload::Error(error) => {
                let code = error.code?.get().checked_neg()?;
                return Some(Some(End::Refused(Errno::from_raw(code))));
            }
            _ => return None,
        }
        if header.flags & NLM_F_MULTIPART == 0 {
            return Some(Some(End::Complete));
        }
        let length = header.length.checked_next_multiple_of(ALIGNMENT)?;
        // The last one need not be padded.
        rest = rest.get(usize::try_from(length).ok()?..).unwrap_or_default();
        if rest.is_empty() {
            return Some(None);
        }
    }
}

/// Where the next message of a datagram starts: `NLMSG_ALIGN` of `linux/netlink.h`.
const ALIGNMENT: u32 = NLMSG_ALIGNTO as u32;

#[cfg(test)]
mod tests;
