//! Who listens on a unix socket: `NETLINK_SOCK_DIAG`, sock_diag(7), `linux/unix_diag.h`.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::atomic::AtomicBool;

use netlink_packet_core::{
    DecodeError, Emitable as _, NetlinkDeserializable, NetlinkHeader, NlasIterator, Parseable as _,
    parse_u32,
};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponseHeader};
use netlink_packet_sock_diag::{
    AF_UNIX, SOCK_DIAG_BY_FAMILY, SOCK_STREAM, SockDiagMessage, TCP_LISTEN, UNIX_DIAG_NAME,
    UNIX_DIAG_RQLEN, UNIX_DIAG_VFS,
};
use nix::sys::socket::SockProtocol;
use nix::sys::stat::{major, minor};

use crate::netlink::Conversation;

/// A unix stream socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixListener {
    /// Whether a connection to the path gets to it. If not, it was bound to this name, but its file
    /// was since deleted, or replaced by another. Not known where the path may not be looked at, or
    /// its file system does not tell which file is which (an overlay of several file systems).
    pub reachable: Option<bool>,
    /// The connections that wait to be accepted.
    pub queue: u32,
    /// The backlog, `net.core.somaxconn` at most. The queue is full, and `connect` fails with
    /// `EAGAIN` where it may not wait, when it is longer than this: `unix_recvq_full` in
    /// `net/unix/af_unix.c`.
    pub limit: u32,
}

/// The socket of this network namespace that listens on `path`; an abstract name starts with a zero
/// byte, and all its bytes count. If several were bound to it, because the file was replaced, it is
/// the one that a connection reaches.
///
/// `Some(None)`: no socket *of this namespace* listens. A path leads to other containers too, and
/// the kernel does not list the sockets of theirs.
///
/// Names alone would not do: `/run/app.sock` and `/var/run/app.sock` are one file, and a name stays
/// with a socket when the file is gone. So files are compared where there are any. The kernel can
/// pick neither, and sends all the unix sockets that listen: 30 µs, and 0.35 µs more for each
/// (`examples/cost.rs`). With more than about 2,000 the answer is not known.
pub fn unix_listener(path: &[u8]) -> Option<Option<UnixListener>> {
    let wanted = Wanted::new(path);
    let mut kernel = Conversation::open(SockProtocol::NetlinkSockDiag)?;
    let mut found: Option<UnixListener> = None;
    kernel.sockets(question(), &MISSING, |answer: Answer| {
        let listener = answer.0.and_then(|socket| {
            let reachable = wanted.is(&socket)?;
            Some(UnixListener { reachable, queue: socket.queue, limit: socket.limit })
        });
        found = found.into_iter().chain(listener).max_by_key(|l| match l.reachable {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        });
    })?;
    Some(found)
}

/// What is in the place of a unix socket, if that is another file: `connect` says of one that nobody
/// listens. `None` also where the path leads nowhere, may not be looked at, or is an abstract name.
pub fn no_socket(path: &[u8]) -> Option<&'static str> {
    // As below: this waits for no file system that connect() did not.
    let kind = std::fs::metadata(OsStr::from_bytes(path)).ok()?.file_type();
    if kind.is_file() {
        Some("regular file")
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_fifo() {
        Some("pipe")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("device")
    } else {
        None
    }
}

/// There is no `unix_diag` in this kernel.
static MISSING: AtomicBool = AtomicBool::new(false);

pub(crate) fn question() -> SockDiagMessage {
    SockDiagMessage::UnixRequest(UnixRequest {
        state_flags: StateFlags::LISTEN,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::VFS | ShowFlags::RQLEN,
        cookie: [0; 8],
    })
}

/// What a socket must be, to be the one asked for.
enum Wanted<'a> {
    /// Bound to this name.
    Abstract(&'a [u8]),
    /// Bound to this name, or to the file there.
    Path(&'a [u8], Place),
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To this.
    File(File),
    /// To nothing.
    Nowhere,
    /// That cannot be said.
    Unknown,
}

/// A file, as the kernel numbers it: `udiag_vfs_dev` is its own `dev_t`, which has 20 bits for the
/// minor number (`linux/kdev_t.h`), and `udiag_vfs_ino` the inode's number cut to 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    device: u32,
    inode: u32,
}

impl Wanted<'_> {
    fn new(path: &[u8]) -> Wanted<'_> {
        if path.starts_with(&[0]) {
            return Wanted::Abstract(path);
        }
        // connect() has just done the same, so this waits for no file system that it did not.
        let place = match std::fs::metadata(OsStr::from_bytes(path)) {
            Ok(file) => {
                let device = major(file.dev()).wrapping_shl(20) | minor(file.dev());
                Place::File(File { device: low(device), inode: low(file.ino()) })
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Place::Nowhere
            }
            Err(_) => Place::Unknown,
        };
        Wanted::Path(path, place)
    }

    /// Whether it is this socket, and if so, whether connections get to it.
    fn is(&self, socket: &Socket) -> Option<Option<bool>> {
        let (name, place) = match *self {
            Wanted::Abstract(name) => return (socket.name == name).then_some(Some(true)),
            // The kernel gives a path with the zero byte that ends it.
            Wanted::Path(path, place) => (socket.name.strip_suffix(&[0]) == Some(path), place),
        };
        let same_file = match (place, socket.file) {
            (Place::Nowhere, _) => Some(false),
            (Place::File(ours), Some(its)) if ours.device == its.device => {
                Some(ours.inode == its.inode)
            }
            // btrfs shows processes another device than it has, and the same inodes.
            (Place::File(ours), Some(its)) if name && ours.inode == its.inode => Some(true),
            _ => None,
        };
        (name || same_file == Some(true)).then_some(same_file)
    }
}

/// A socket that listens.
#[derive(Debug)]
struct Socket {
    name: Vec<u8>,
    file: Option<File>,
    queue: u32,
    limit: u32,
}

/// A socket, if it is one that connections are made to.
#[derive(Debug)]
pub(crate) struct Answer(Option<Socket>);

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    // Not `UnixResponse` of the crate, which does not let one see the file.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != SOCK_DIAG_BY_FAMILY || payload.first() != Some(&AF_UNIX) {
            return Err("not a unix socket".into());
        }
        let socket = UnixResponseHeader::parse(payload)?;
        let (mut name, mut file, mut lengths) = (Vec::new(), None, None);
        for attribute in NlasIterator::new(payload.get(socket.buffer_len()..).unwrap_or_default()) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                UNIX_DIAG_NAME => name = value.to_vec(),
                UNIX_DIAG_VFS => file = Some(pair(value)?),
                UNIX_DIAG_RQLEN => lengths = Some(pair(value)?),
                _ => {}
            }
        }
        if (socket.state, socket.kind) != (TCP_LISTEN, SOCK_STREAM) {
            return Ok(Self(None));
        }
        let (queue, limit) = lengths.ok_or("no queue length")?;
        let file = file.map(|(inode, device)| File { device, inode });
        Ok(Self(Some(Socket { name, file, queue, limit })))
    }
}

/// `struct unix_diag_vfs` and `struct unix_diag_rqlen` are two numbers each.
fn pair(value: &[u8]) -> Result<(u32, u32), DecodeError> {
    let (first, second) = value.split_at_checked(4).ok_or("too short")?;
    Ok((parse_u32(first)?, parse_u32(second)?))
}

#[expect(clippy::cast_possible_truncation, reason = "what it is for")]
fn low(number: u64) -> u32 {
    number as u32
}
