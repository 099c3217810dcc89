//! Documents that are large, and clients that are slow or leave.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use t::{Conf, Nginx, RefusedPort, Response, diag};

use super::conf;

/// Ten upstreams of a hundred peers, and a zone with room for records.
fn many(dead: &RefusedPort) -> Conf {
    let mut groups = String::new();
    for group in 0..10 {
        groups.push_str(&format!("upstream group{group} {{"));
        for n in 0..100 {
            groups.push_str(&format!(" server 192.0.2.{group}:{};", 1_000 + n));
        }
        groups.push_str(" }\n");
    }
    conf(format!("location / {{ proxy_pass http://{}; }}", dead.addr()))
        .http(groups)
        .http("upstream_diag_zone 4m; keepalive_requests 100000;")
}

/// A connection of which nginx can have little under way.
fn narrow(nginx: &Nginx) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], nginx.port()));
    socket.connect(&SockAddr::from(to)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").expect("asked");
    stream
}

/// A response that was read to the end of its connection.
fn response(bytes: &[u8]) -> Response {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a header");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let body = bytes[end + 4..].to_vec();
    assert_eq!(length, Some(body.len().to_string().as_str()), "{head}");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Response { status: 200, headers: Vec::new(), body, truncated: false }
}

/// Resident memory of a process, kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Guards against a document that is cut where a buffer, a socket or a list ends, against a client
/// that leaves bringing it to others, and against memory that is not given back.
#[test]
fn a_thousand_peers_and_a_ring_of_records() {
    let dead = t::refused_port();
    let nginx = Nginx::start(many(&dead));
    let mut client = nginx.connect();
    // More than the ring holds: it is full from here on.
    let mut asked = 0;
    let fill = |n: usize, client: &mut t::Client, asked: &mut usize| {
        for _ in 0..n {
            assert_eq!(client.get(&format!("/{asked:06}")).status, 502);
            *asked += 1;
        }
    };
    fill(100, &mut client, &mut asked);
    let first = diag::status_at(&nginx, "/status");
    let each = first["recent"][0].to_string().len();
    let room = usize::try_from(first["zone"]["records"].as_u64().expect("bytes")).expect("few");
    fill(room / each + 50, &mut client, &mut asked);

    let mut whole = Vec::new();
    let mut slow = narrow(&nginx);
    let mut piece = [0; 777];
    // Others are served meanwhile.
    let mut stuck = narrow(&nginx);
    stuck.read_exact(&mut piece).expect("a piece");
    loop {
        let n = slow.read(&mut piece).expect("a piece");
        if n == 0 {
            break;
        }
        whole.extend_from_slice(&piece[..n]);
        if whole.len() % 100 == 0 {
            assert_eq!(client.get("/status?limit=0").status, 200);
        }
    }
    let document = diag::status_in(&response(&whole));
    let recent = document["recent"].as_array().expect("records");
    assert!(recent.len() > 900 && recent.len() < asked, "{} of {asked}", recent.len());
    for (record, n) in recent.iter().zip((0..asked).rev()) {
        assert_eq!(record["uri"], format!("/{n:06}"));
    }
    for group in 0..10 {
        let peers = document["upstreams"][format!("group{group}")]["peers"].as_array();
        assert_eq!(peers.map(Vec::len), Some(100));
    }
    assert_eq!(document["zone"]["peers"]["used"], 1_001);
    assert_eq!(document["totals"]["failed"], asked);
    drop(stuck);

    // Leaving in the middle, early and late.
    for bytes in [0, 1, 5_000, 300_000] {
        let mut part = vec![0; bytes];
        narrow(&nginx).read_exact(&mut part).expect("a part");
    }
    let pid = nginx.worker_pids()[0];
    let ask = |n: usize, client: &mut t::Client| {
        for _ in 0..n {
            let size = client.get("/status").body.len();
            assert!(size > 1_000_000, "{size}");
        }
        resident(pid)
    };
    let before = ask(10, &mut client);
    let after = ask(30, &mut client);
    assert!(after < before + 8_192, "{before} kB, then {after} kB");
    nginx.stop();
}

/// Guards against something of one answer being left for the next on the same connection.
#[test]
fn many_on_one_connection() {
    let dead = t::refused_port();
    let nginx = Nginx::start(
        conf(format!("location / {{ proxy_pass http://{}; }}", dead.addr()))
            .http("keepalive_requests 100000;"),
    );
    for n in 0..10 {
        assert_eq!(nginx.get(&format!("/{n}")).status, 502);
    }
    let mut client = nginx.connect();
    let recent = diag::status_in(&client.get("/status"))["recent"].clone();
    for n in 0..200 {
        let (query, wanted) = match n % 4 {
            0 => ("", 10),
            1 => ("?limit=3", 3),
            2 => ("?x", 0),
            _ => ("?format=prometheus", 0),
        };
        let response = client.get(&format!("/status{query}"));
        assert!(!response.truncated);
        match n % 4 {
            2 => assert_eq!(response.status, 400),
            3 => assert!(response.text().ends_with('\n')),
            _ => {
                let document = diag::status_in(&response);
                let shown = document["recent"].as_array().expect("records");
                assert_eq!(shown[..], recent.as_array().expect("records")[..wanted]);
            }
        }
    }
    // All at once.
    let ask = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(&ask.repeat(20)).expect("sent");
    for _ in 0..20 {
        let response = client.read_response(false).expect("a response");
        assert_eq!(diag::status_in(&response)["recent"], recent);
    }
    nginx.stop();
}
