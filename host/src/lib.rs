//! What the kernel of this host says about who listens where.
//!
//! Made to be called by a worker of a server just after it failed to connect, so every answer is
//! cheap, bounded and optional. `None` is "not known": netlink is forbidden here (a seccomp filter,
//! `RestrictAddressFamilies=`, SELinux), the kernel has no such module, or its answer was broken,
//! interrupted or too long. Nothing here waits for a packet, starts a thread, needs a privilege,
//! panics, or keeps a descriptor open. A filter that kills instead of refusing cannot be seen
//! beforehand.
//!
//! Two things a caller must know:
//!
//! - The kernel answers for the network namespace of the caller. What listens in another container
//!   is not listed, even where a connection could reach it (a unix socket in a shared volume, a
//!   port that the firewall redirects).
//! - A kernel that has `inet_diag`, `tcp_diag` or `unix_diag` as modules loads them when first
//!   asked, which runs modprobe and may take some milliseconds, once: `__sock_diag_cmd` in
//!   `net/core/sock_diag.c`, `inet_diag_lock_handler` in `net/ipv4/inet_diag.c`. A call while the
//!   server starts pays for that. Where there is no such module, this process asks only once.
#![forbid(unsafe_code)]

mod answers;
mod netlink;
mod process;
mod route;
mod tcp;
mod unix;

pub use answers::Answers;
pub use process::process_started;
pub use route::{is_own, is_own_everywhere};
pub use tcp::{Listener, listeners};
pub use unix::{UnixListener, no_socket, unix_listener};
