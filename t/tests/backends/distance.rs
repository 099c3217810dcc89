//! A network between nginx and a server in which the end of a connection takes as long as the test
//! wants, as it takes its time from one data centre to the next. So long requests cross it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use t::ports::Reservation;
use t::{Conn, Gate, Upstream};

use crate::PATIENCE;

/// The way to a server.
pub(crate) struct Distance {
    pub(crate) network: Upstream,
    /// The ends that are on their way.
    ends: Receiver<()>,
    /// Opened when they arrive.
    arrive: Gate,
}

impl Distance {
    /// What comes goes to this port. The first so many connections are ended by the server, those
    /// behind them once they have had a response.
    pub(crate) fn to(port: &Reservation, count: usize) -> Self {
        let (end, ends) = channel();
        let arrive = Gate::new();
        let (port, arrives) = (port.port(), arrive.clone());
        let network = Upstream::tcp(move |index, conn| {
            carry(conn, port, (index < count).then_some((&end, &arrives)));
        });
        Self { network, ends, arrive }
    }

    /// The address as the argument of `server`.
    pub(crate) fn addr(&self) -> String {
        self.network.addr()
    }

    /// Waits until the ends of so many connections are on their way.
    pub(crate) fn wait_ends(&self, count: usize) {
        for n in 0..count {
            let end = self.ends.recv_timeout(PATIENCE);
            end.unwrap_or_else(|e| panic!("{n} of {count} connections were ended: {e}"));
        }
    }

    /// Has the ends arrive when so many requests in all have crossed them.
    pub(crate) fn arrive_after(&self, requests: usize) {
        self.network.wait_requests(requests);
        self.arrive.open();
    }
}

/// Carries a request and its response, and then the server's end of the connection.
fn carry(conn: &mut Conn, port: u16, end: Option<(&Sender<()>, &Gate)>) {
    let Some(request) = conn.read_request() else { return };
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a server");
    server.write_all(&request).expect("a server that reads");
    let (mut response, mut part) = (Vec::new(), [0; 4096]);
    while !response.ends_with(b"good") {
        let n = server.read(&mut part).expect("a server that answers");
        assert!(n > 0, "{:?}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&part[..n]);
    }
    conn.write(&response);
    let Some((ends, arrive)) = end else { return };
    if matches!(server.read(&mut part), Ok(0)) && ends.send(()).is_ok() {
        // The request that crosses it finds nobody.
        conn.read_request();
        conn.wait(arrive);
    }
}
