//! A worker in a container or a unit that may not use netlink.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Fails this system call with this error, for the thread that says so; `socket` for netlink only,
/// as `RestrictAddressFamilies=` of systemd and profiles of container engines do.
fn forbid(call: i64, errno: i32) {
    let rules = match call {
        libc::SYS_socket => {
            let family = u64::try_from(libc::AF_NETLINK).unwrap();
            let netlink =
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family);
            vec![SeccompRule::new(vec![netlink.unwrap()]).unwrap()]
        }
        _ => vec![],
    };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
}

/// Guards against a refusal that is taken for "nobody listens", that panics, or that is waited
/// with. What needs no netlink still works.
#[test]
fn each_refusal_is_not_known() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let foreign = IpAddr::from([192, 0, 2, 1]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let path = path.as_os_str().as_encoded_bytes();
    let known = || {
        (
            host::listeners(port).is_some(),
            host::unix_listener(path).is_some(),
            host::is_own(foreign).is_some(),
        )
    };
    assert_eq!(known(), (true, true, true), "allowed");
    for (call, errno) in [
        (libc::SYS_socket, libc::EPERM),
        (libc::SYS_socket, libc::EACCES),
        (libc::SYS_socket, libc::EAFNOSUPPORT),
        (libc::SYS_socket, libc::EPROTONOSUPPORT),
        (libc::SYS_connect, libc::EPERM),
        (libc::SYS_sendto, libc::EACCES),
        (libc::SYS_sendto, libc::ECONNREFUSED),
        (libc::SYS_recvfrom, libc::EAGAIN),
        (libc::SYS_recvfrom, libc::EINTR),
        (libc::SYS_recvfrom, libc::ENOBUFS),
    ] {
        thread::scope(|scope| {
            scope.spawn(|| {
                forbid(call, errno);
                assert_eq!(known(), (false, false, false), "{call} {errno}");
                assert_eq!(host::is_own(Ipv4Addr::LOCALHOST.into()), Some(true));
                let own = i32::try_from(std::process::id()).unwrap();
                assert!(host::process_started(own).is_some());
            });
        });
    }
    assert_eq!(known(), (true, true, true), "for other threads");
}
