//! Who listens on a unix socket, asked about real ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a broken assumption is a failed test and should stop it at once"
)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use host::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

/// What is known of a path, where netlink can be had.
fn ask(path: &Path) -> Option<UnixListener> {
    host::unix_listener(path.as_os_str().as_bytes()).expect("netlink")
}

fn stream() -> Socket {
    Socket::new(Domain::UNIX, Type::STREAM, None).unwrap()
}

fn listen(path: &Path, backlog: i32) -> Socket {
    let socket = stream();
    socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
    socket.listen(backlog).unwrap();
    socket
}

fn connect(path: &Path) -> Socket {
    let client = stream();
    client.connect(&SockAddr::unix(path).unwrap()).unwrap();
    client
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn reached(queue: u32, limit: u32) -> Option<UnixListener> {
    Some(UnixListener { reachable: Some(true), queue, limit })
}

/// Guards against a queue or a backlog that is not what the kernel has, and against the two being
/// exchanged: "the backlog is full" is `queue > limit`.
#[test]
fn the_queue_is_counted() {
    let directory = directory();
    let path = directory.path().join("s");
    let server = listen(&path, 1);
    assert_eq!(ask(&path), reached(0, 1));
    let _first = connect(&path);
    assert_eq!(ask(&path), reached(1, 1));
    let _second = connect(&path);
    assert_eq!(ask(&path), reached(2, 1));
    let third = stream();
    third.set_nonblocking(true).unwrap();
    let refused = third.connect(&SockAddr::unix(&path).unwrap()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EAGAIN));
    assert_eq!(ask(&path), reached(2, 1));
    let _accepted = server.accept().unwrap();
    assert_eq!(ask(&path), reached(1, 1));
}

/// Guards against a socket that does not listen being said to, and one that does being missed.
#[test]
fn nobody_listens() {
    let directory = directory();
    let path = directory.path().join("s");
    assert_eq!(ask(&path), None, "no such file");
    assert_eq!(ask(directory.path()), None, "no socket");
    assert_eq!(ask(Path::new("")), None, "no path");
    assert_eq!(host::unix_listener(b"a\0b"), Some(None), "no path either");
    assert_eq!(host::unix_listener(&[b'x'; 5000]), Some(None), "longer than any path");
    let server = stream();
    server.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    assert_eq!(ask(&path), None, "bound only");
    server.listen(3).unwrap();
    assert_eq!(ask(&path), reached(0, 3));
    assert_eq!(ask(&directory.path().join("s2")), None, "a longer name");
    let long = directory.path().join("s2");
    let _other = listen(&long, 4);
    assert_eq!(ask(&path), reached(0, 3), "a shorter name");
    drop(server);
    assert_eq!(ask(&path), None, "the file is left, its socket is not");
    // nginx makes stream connections, which this refuses (EPROTOTYPE).
    let path = directory.path().join("packets");
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    packets.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    packets.listen(3).unwrap();
    assert_eq!(ask(&path), None, "of another type");
}

/// Guards against a file that nobody can listen on passing for a socket that was left behind, and a
/// socket for another file.
#[test]
fn other_files() {
    let directory = directory();
    let kind = |path: &Path| host::no_socket(path.as_os_str().as_bytes());
    let path = directory.path().join("s");
    assert_eq!(kind(&path), None, "nothing");
    fs::write(&path, "").unwrap();
    assert_eq!(kind(&path), Some("regular file"));
    symlink(&path, directory.path().join("link")).unwrap();
    assert_eq!(kind(&directory.path().join("link")), Some("regular file"), "a link");
    assert_eq!(kind(directory.path()), Some("directory"));
    assert_eq!(kind(Path::new("/dev/null")), Some("device"));
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(kind(&pipe), Some("pipe"));
    let socket = directory.path().join("socket");
    drop(listen(&socket, 1));
    assert_eq!(kind(&socket), None, "a socket that was left behind");
    for path in [&b""[..], b"a\0b", b"\0abstract"] {
        assert_eq!(host::no_socket(path), None);
    }
}

/// Guards against a server not being found because it calls its file by another name: `/run` is
/// `/var/run`, and many bind to a name of their working directory.
#[test]
fn the_file_counts() {
    let directory = directory();
    let (run, var_run) = (directory.path().join("run"), directory.path().join("var-run"));
    fs::create_dir(&run).unwrap();
    symlink(&run, &var_run).unwrap();
    let _server = listen(&var_run.join("s"), 3);
    assert_eq!(ask(&run.join("s")), reached(0, 3), "the same file");
    fs::rename(run.join("s"), run.join("t")).unwrap();
    assert_eq!(ask(&run.join("t")), reached(0, 3), "renamed");
    symlink(run.join("t"), run.join("link")).unwrap();
    assert_eq!(ask(&run.join("link")), reached(0, 3), "a link");
}

/// Guards against a server whose file is gone passing for one that can be reached, and against its
/// figures being given for those of the one in its place.
#[test]
fn a_file_that_is_gone() {
    let directory = directory();
    let path = directory.path().join("s");
    let unreachable = |limit| Some(UnixListener { reachable: Some(false), queue: 0, limit });
    let old = listen(&path, 3);
    fs::remove_file(&path).unwrap();
    assert_eq!(ask(&path), unreachable(3), "deleted");
    let new = listen(&path, 4);
    assert_eq!(ask(&path), reached(0, 4), "replaced, whichever comes first");
    let newest = {
        fs::remove_file(&path).unwrap();
        listen(&path, 5)
    };
    assert_eq!(ask(&path), reached(0, 5));
    drop(newest);
    assert_eq!(ask(&path).unwrap().reachable, Some(false), "the file of the newest is left");
    drop(new);
    assert_eq!(ask(&path), unreachable(3));
    drop(old);
    assert_eq!(ask(&path), None);
}

/// Guards against abstract names being taken for paths, or compared up to a zero byte only.
#[test]
fn abstract_names() {
    let unique = directory();
    let name = |end: &str| format!("\0{}{end}", unique.path().display());
    let _server = listen(Path::new(&name("a")), 3);
    let _longer = listen(Path::new(&name("a\0b")), 4);
    let _path = listen(&unique.path().join("a"), 5);
    let ask = |name: &str| ask(Path::new(name));
    assert_eq!(ask(&name("a")), reached(0, 3));
    assert_eq!(ask(&name("a\0b")), reached(0, 4));
    assert_eq!(ask(&name("a\0")), None);
    assert_eq!(ask(&name("b")), None);
    assert_eq!(ask(&name("/a")), None, "the name of a path");
    assert_eq!(ask(&name("a")[1..]), None, "the path of a name");
    let _client = connect(Path::new(&name("a")));
    assert_eq!(ask(&name("a")), reached(1, 3));
}

/// Guards against the last byte of the longest path, for which there is no zero byte in
/// `sockaddr_un`, being lost.
#[test]
fn the_longest_path() {
    let directory = directory();
    let base = directory.path().as_os_str().len();
    for length in [106, 107, 108] {
        let path = directory.path().join("x".repeat(length - base - 1));
        // The standard library refuses what the kernel takes.
        let Ok(address) = SockAddr::unix(&path) else {
            assert_eq!(length, 108);
            continue;
        };
        let server = stream();
        server.bind(&address).unwrap();
        server.listen(3).unwrap();
        assert_eq!(ask(&path), reached(0, 3), "{length}");
    }
}
