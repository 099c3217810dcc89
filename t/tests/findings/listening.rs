//! Who listens, by the kernel of this host: `nothing_listening` and `bound_elsewhere`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use t::ports::Reservation;
use t::{Conf, Nginx, diag, netns_available};

use crate::{fails, group};

fn server(addr: &str) -> Conf {
    group(&format!("server {addr};"), "")
}

fn start(port: u16, place: &str) -> String {
    format!(
        "Start the process that should listen on port {port} of this host or container, or correct the port in {place} (ss -ltnp shows what listens)."
    )
}

/// Guards against a port that nobody has open being told as a matter of the network, or of the
/// server's load: the operator is to start the process, or to correct the port.
#[test]
fn nobody_listens_on_a_port() {
    for reserve in [Reservation::v4, Reservation::v6] {
        let port = reserve().expect("a port");
        let (addr, number) = (port.addr(), port.port());
        let direct = diag::conf(format!("location / {{ proxy_pass http://{addr}; }}"));
        for (conf, place, codes) in [
            (
                server(&addr.to_string()),
                "upstream \"u\"",
                vec!["nothing_listening", "single_server"],
            ),
            (direct, "nginx's configuration", vec!["nothing_listening"]),
        ] {
            let nginx = Nginx::start(conf);
            let seen = fails(&nginx, 0);
            seen.expect("connection_refused", &json!({"outcome": "failed"})).finds(
                "nothing_listening",
                "certain",
                &format!("Nothing listens on port {number} of this host."),
                &json!({"port": number}),
            );
            seen.advises("nothing_listening", &start(number, place));
            assert_eq!(seen.codes(), codes);
            diag::finish(&nginx);
        }
    }
}

/// Guards against the file of a unix socket being taken for somebody who listens, and one that is
/// missing for one that was left behind.
#[test]
fn nobody_listens_on_a_socket() {
    let dir = t::temp_dir();
    let dead = t::dead_unix(&dir.path().join("dead.sock"));
    let nginx = Nginx::start(server(&dead));
    let seen = fails(&nginx, 0);
    seen.expect("connection_refused", &json!({})).finds(
        "nothing_listening",
        "certain",
        &format!("Nobody listens on {dead}: its file was left behind."),
        &json!({"peer": dead}),
    );
    seen.advises(
        "nothing_listening",
        "Start the upstream: the socket's file is there, and nobody listens on it (ss -lx lists the sockets that listen).",
    );
    assert_eq!(seen.codes(), ["nothing_listening", "single_server"]);
    diag::finish(&nginx);

    let missing = format!("unix:{}", dir.path().join("missing.sock").display());
    let nginx = Nginx::start(server(&missing));
    let seen = fails(&nginx, 0);
    seen.expect("socket_not_found", &json!({}));
    assert_eq!(seen.codes(), ["single_server"]);
    diag::finish(&nginx);
}

/// Guards against another file than a socket being told as a socket that was left behind: connect()
/// says the same of both.
#[test]
fn another_file_in_the_place_of_a_socket() {
    let dir = t::temp_dir();
    for (name, kind) in [("file", "regular file"), ("directory", "directory")] {
        let path = dir.path().join(name);
        match kind {
            "directory" => fs::create_dir(&path).expect(kind),
            _ => fs::write(&path, "").expect(kind),
        }
        // Who may not write to it is told so instead.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("its mode");
        let addr = format!("unix:{}", path.display());
        let nginx = Nginx::start(server(&addr));
        let seen = fails(&nginx, 0);
        seen.expect("connection_refused", &json!({})).finds(
            "nothing_listening",
            "certain",
            &format!("Nobody listens on {addr}: it is a {kind}, not a socket."),
            &json!({"peer": addr, "file_type": kind}),
        );
        seen.advises(
            "nothing_listening",
            &format!("A {kind} is where the socket should be: correct the path in upstream \"u\", or move it away and start the upstream, which makes the socket."),
        );
        assert_eq!(seen.codes(), ["nothing_listening", "single_server"]);
        diag::finish(&nginx);
    }
}

/// A port of this address, and listeners on the same port of others.
fn on_one_port(asked: &str, others: &[&str]) -> (Reservation, Vec<Socket>) {
    let port = Reservation::on(asked.parse().expect("an address")).expect("a port");
    let others = others.iter().map(|other| {
        let ip = other.parse().expect("an address");
        listen(SocketAddr::new(ip, port.port()), true).expect("a reserved port")
    });
    let others = others.collect();
    (port, others)
}

/// Listens where nobody else does, on a port that is `reserved` or not.
fn listen(addr: SocketAddr, reserved: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(reserved)?;
    socket.bind(&addr.into())?;
    socket.listen(8)?;
    Ok(socket)
}

/// Guards against a process that runs, and listens on another address than nginx asks, being told
/// as one that does not run: the operator would look in vain for why it ended.
#[test]
fn another_address() {
    for (asked, others, open_on, instead) in [
        ("127.0.0.2", &["127.0.0.1"][..], "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", &["::1"], "[::1]", "[::1]"),
        ("::1", &["127.0.0.1"], "127.0.0.1", "127.0.0.1"),
        ("::1", &["0.0.0.0"], "0.0.0.0 (IPv4)", "127.0.0.1"),
        ("127.0.0.1", &["::"], "[::] (IPv6)", "[::1]"),
        ("127.0.0.3", &["127.0.0.1", "::1"], "127.0.0.1, [::1]", "127.0.0.1"),
    ] {
        let (port, _others) = on_one_port(asked, others);
        let number = port.port();
        let listens_on: Vec<String> = others.iter().map(|other| written(other)).collect();
        let nginx = Nginx::start(server(&port.addr().to_string()));
        let seen = fails(&nginx, 0);
        seen.expect("connection_refused", &json!({})).finds(
            "bound_elsewhere",
            "certain",
            &format!("Port {number} of this host is open on {open_on}, not on {asked}."),
            &json!({"port": number, "listens_on": listens_on}),
        );
        seen.advises(
            "bound_elsewhere",
            &format!(
                "Write {instead}:{number} in upstream \"u\", or have the process listen on {asked} too."
            ),
        );
        assert_eq!(seen.codes(), ["bound_elsewhere", "single_server"]);
        diag::finish(&nginx);
    }
}

fn written(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Guards against a listener that has nothing to do with the failure being blamed: one on the next
/// port, and one on another address while the right one is there and only slow.
#[test]
fn another_address_that_does_not_matter() {
    let (port, _next) = loop {
        let port = Reservation::v4().expect("a port");
        let next = SocketAddr::new(port.addr().ip(), port.port().wrapping_add(1).max(1024));
        if let Ok(next) = listen(next, false) {
            break (port, next);
        }
    };
    let nginx = Nginx::start(server(&port.addr().to_string()));
    let seen = fails(&nginx, 0);
    assert_eq!(seen.codes(), ["nothing_listening", "single_server"]);
    diag::finish(&nginx);

    let full = t::full_backlog_tcp();
    let addr: SocketAddr = full.addr().parse().expect("an address");
    let other = SocketAddr::new("::1".parse().expect("::1"), addr.port());
    let _other = listen(other, true).expect("a reserved port");
    let conf = group(&format!("server {};", full.addr()), "proxy_connect_timeout 300ms;");
    let nginx = Nginx::start(conf);
    let seen = fails(&nginx, 0);
    seen.expect("connection_timed_out", &json!({}));
    assert_eq!(seen.codes(), ["listen_backlog_full", "single_server"]);
    diag::finish(&nginx);
}

/// Guards against a process that listens on a unix socket whose file was deleted, or replaced by
/// another's, being told as one that does not run. Once it has ended nobody listens, and there is
/// no such thing to be told.
#[test]
fn a_socket_whose_file_is_gone() {
    let dir = t::temp_dir();
    let file = dir.path().join("up.sock");
    let peer = format!("unix:{}", file.display());
    for (replaced, cause, once_ended) in [
        (false, "socket_not_found", &["single_server"][..]),
        (true, "connection_refused", &["nothing_listening", "single_server"]),
    ] {
        let _ = fs::remove_file(&file);
        let listens = UnixListener::bind(&file).expect("a socket");
        fs::remove_file(&file).expect("its file");
        if replaced {
            t::dead_unix(&file);
        }
        let nginx = Nginx::start(server(&peer));
        let seen = fails(&nginx, 0);
        seen.expect(cause, &json!({})).finds(
            "bound_elsewhere",
            "certain",
            &format!(
                "A process listens on a socket that was {peer}, and whose file was deleted or replaced: no connection reaches it."
            ),
            &json!({"peer": peer}),
        );
        seen.advises(
            "bound_elsewhere",
            &format!(
                "Restart the process that listens on {peer}: the file of its socket was deleted or replaced."
            ),
        );
        assert_eq!(seen.codes(), ["bound_elsewhere", "single_server"]);
        diag::finish(&nginx);

        drop(listens);
        // An nginx that has not asked yet: answers of the kernel are kept for a while.
        let nginx = Nginx::start(server(&peer));
        let seen = fails(&nginx, 0);
        seen.expect(cause, &json!({}));
        assert_eq!(seen.codes(), once_ended);
        diag::finish(&nginx);
    }
}

/// Guards against a question to the kernel for each failure where a thousand peers fail: of this
/// many addresses that are not every host's own, it is asked about a few twice a second, and
/// nothing is said of the others. What needs no question is said of each.
#[test]
fn a_thousand_peers() {
    if !netns_available() {
        eprintln!("not tested: needs root");
        return;
    }
    const PEERS: usize = 1_000;
    let nginx = Nginx::start(
        diag::conf("keepalive_requests 10000; location ~ ^/(.+)$ { proxy_pass http://$1:8080; }")
            .netns("ip link set lo up; ip route add local 198.18.0.0/16 dev lo"),
    );
    let mut client = nginx.connect();
    let mut said = |network: &str, before: usize| {
        for n in 0..PEERS {
            let status = client.get(&format!("/{network}.{}.{}", n >> 8, n & 255)).status;
            assert_eq!(status, 502);
        }
        let records = nginx.wait_json_lines("diag.json", before + PEERS);
        let listening = |record: &&Value| record["findings"][0]["code"] == "nothing_listening";
        records[before..].iter().filter(listening).count()
    };
    assert_eq!(said("127.1", 0), PEERS);
    let begun = Instant::now();
    let few = said("198.18", PEERS);
    let halves = begun.elapsed().as_millis() / 500 + 2;
    assert!(few >= 64 && few as u128 <= 64 * halves, "{few} in {halves} half seconds");
    nginx.stop();
}
