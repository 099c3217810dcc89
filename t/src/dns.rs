//! A DNS server on 127.0.0.1 with scripted answers.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, spawn};

/// What is said about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses (A only; AAAA gets none, without an error).
    A(Vec<Ipv4Addr>),
    /// The name exists and has no address.
    Empty,
    /// An error: 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    Code(u8),
    /// No answer at all.
    Silent,
}

impl Answer {
    /// 127.0.0.1.
    pub fn localhost() -> Self {
        Self::A(vec![Ipv4Addr::LOCALHOST])
    }
}

/// NXDOMAIN.
pub const NXDOMAIN: Answer = Answer::Code(3);
/// SERVFAIL.
pub const SERVFAIL: Answer = Answer::Code(2);
/// REFUSED.
pub const REFUSED: Answer = Answer::Code(5);

const TYPE_A: u16 = 1;
/// Caches should not decide the outcome of a test.
const TTL: u32 = 1;

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Dns {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    queries: Vec<(String, u16)>,
}

impl Dns {
    /// Starts with these names; every other one is NXDOMAIN.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start<'a>(answers: impl IntoIterator<Item = (&'a str, Answer)>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP port on 127.0.0.1");
        let addr = socket.local_addr().expect("the port");
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            spawn(move || serve(&socket, &shared))
        };
        let dns = Self { addr, shared, thread: Some(thread) };
        answers.into_iter().for_each(|(name, answer)| dns.set(name, answer));
        dns
    }

    /// The address as the argument of `resolver`.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Sets or changes what is said about a name.
    pub fn set(&self, name: &str, answer: Answer) {
        self.shared.state().answers.insert(name.to_ascii_lowercase(), answer);
    }

    /// Names and types (1 A, 28 AAAA) asked for so far.
    pub fn queries(&self) -> Vec<(String, u16)> {
        self.shared.state().queries.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread. If the queue has no room for it, there are
        // queries that wake it as well.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(b"", self.addr);
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut packet = [0; 1500];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((n, peer)) = socket.recv_from(&mut packet) else { continue };
        let Some(query) = Query::parse(&packet[..n]) else { continue };
        let answer = {
            let mut state = shared.state();
            state.queries.push((query.name.clone(), query.kind));
            state.answers.get(&query.name).cloned().unwrap_or(NXDOMAIN)
        };
        if let Some(reply) = query.reply(&answer) {
            let _ = socket.send_to(&reply, peer);
        }
    }
}

/// A query with one question.
struct Query<'a> {
    id: &'a [u8],
    /// The question as sent, to be repeated in the reply.
    question: &'a [u8],
    name: String,
    kind: u16,
}

impl<'a> Query<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let (head, body) = packet.split_at_checked(12)?;
        // Not a reply, and one question.
        if head[2] & 0x80 != 0 || head[4..6] != [0, 1] {
            return None;
        }
        let mut labels = Vec::new();
        let mut rest = body;
        loop {
            let (&length, after) = rest.split_first()?;
            // Also refuses pointers (0xc0), which a question has no use for.
            if length > 63 {
                return None;
            }
            let (label, after) = after.split_at_checked(usize::from(length))?;
            rest = after;
            if label.is_empty() {
                break;
            }
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        }
        let (kind, after) = rest.split_at_checked(4)?;
        let question = &body[..body.len() - after.len()];
        let kind = u16::from_be_bytes([kind[0], kind[1]]);
        Some(Self { id: &head[..2], question, name: labels.join("."), kind })
    }

    fn reply(&self, answer: &Answer) -> Option<Vec<u8>> {
        let (code, addrs) = match answer {
            Answer::Silent => return None,
            Answer::Code(code) => (*code & 0x0f, &[][..]),
            Answer::A(addrs) if self.kind == TYPE_A => (0, addrs.as_slice()),
            Answer::A(_) | Answer::Empty => (0, &[][..]),
        };
        let mut reply = self.id.to_vec();
        // A reply, recursion desired and available.
        reply.extend([0x81, 0x80 | code, 0, 1]);
        reply.extend(u16::try_from(addrs.len()).ok()?.to_be_bytes());
        reply.extend([0; 4]);
        reply.extend_from_slice(self.question);
        for addr in addrs {
            // The name: a pointer to the question.
            reply.extend([0xc0, 12, 0, 1, 0, 1]);
            reply.extend(TTL.to_be_bytes());
            reply.extend([0, 4]);
            reply.extend(addr.octets());
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Query};

    /// Guards against a short or hostile packet ending the server.
    #[test]
    fn cut_packets_are_no_query() {
        let mut packet = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(b"\x01A\x07example\0\0\x01\0\x01");
        for n in 0..packet.len() {
            assert!(Query::parse(&packet[..n]).is_none(), "{n}");
        }
        let query = Query::parse(&packet).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("a.example", 1));
        let reply = query.reply(&Answer::localhost()).unwrap();
        assert_eq!(reply.len(), packet.len() + 16);
        packet[12] = 0xc0;
        assert!(Query::parse(&packet).is_none());
    }
}
