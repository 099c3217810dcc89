//! The load: clients that count what they send and what they get.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use t::{Client, Nginx, Response};

use crate::books::{self, Books};
use crate::kinds::{self, Kind};
use crate::list::PART;
use crate::world::World;

/// Clients at work at one time.
pub(crate) const CLIENTS: usize = 8;

/// Requests for each look at the status.
const LOOK: usize = 100;

/// How long to wait for an arrival before looking whether the connection is still there.
const ARRIVES: Duration = Duration::from_millis(20);

/// What the clients counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// What the requests that were answered add.
    pub(crate) adds: Books,
    /// Answered requests by kind, those included whose client left as it was to.
    pub(crate) answered: BTreeMap<&'static str, u64>,
    /// What those may have added whose connections broke.
    pub(crate) broken: Books,
    /// Those requests, by kind.
    pub(crate) broken_requests: BTreeMap<&'static str, u64>,
}

/// What became of a request.
enum End {
    /// All of it happened as it should; so many addresses were tried.
    Answered(usize),
    /// The connection ended before.
    Broken,
}

/// Runs all requests. `begun` is called after each, with the number of those that were begun.
pub(crate) fn run(world: &World, nginx: &Nginx, mut begun: impl FnMut(usize)) -> Counted {
    let order = shuffled(&world.kinds);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, steps) = channel();
        let workers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (done, order, next) = (done.clone(), &order, &next);
                scope.spawn(move || {
                    let mut worker = Worker::new(world, nginx);
                    while let Some(kind) = order.get(next.fetch_add(1, Ordering::SeqCst)) {
                        worker.step(&world.kinds[*kind]);
                        done.send(()).expect("somebody waits for it");
                    }
                    worker.counted
                })
            })
            .collect();
        drop(done);
        // Ends when the last client has.
        for () in steps {
            begun(next.load(Ordering::SeqCst));
        }
        let mut counted = Counted::default();
        for worker in workers {
            counted.take(worker.join().expect("a client failed"));
        }
        counted
    })
}

/// The kinds by their places, each as often as it is to come, in an order without pattern that is
/// always the same.
fn shuffled(kinds: &[Kind]) -> Vec<usize> {
    let mut order: Vec<usize> = kinds
        .iter()
        .enumerate()
        .flat_map(|(place, kind)| std::iter::repeat_n(place, kind.share))
        .collect();
    let mut random = 1_u64;
    for left in (1..order.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let other = (random >> 33) % (left as u64 + 1);
        order.swap(left, usize::try_from(other).expect("a place"));
    }
    order
}

impl Counted {
    fn take(&mut self, other: Counted) {
        self.adds.add_all(&other.adds, 1);
        self.broken.add_all(&other.broken, 1);
        for (all, more) in [
            (&mut self.answered, other.answered),
            (&mut self.broken_requests, other.broken_requests),
        ] {
            more.into_iter().for_each(|(kind, n)| *all.entry(kind).or_default() += n);
        }
    }
}

/// One client.
struct Worker<'w> {
    world: &'w World,
    nginx: &'w Nginx,
    client: Option<Client>,
    counted: Counted,
    steps: usize,
    /// What the status said before.
    status: Books,
    metrics: Books,
}

/// Numbers the requests.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

impl<'w> Worker<'w> {
    fn new(world: &'w World, nginx: &'w Nginx) -> Worker<'w> {
        Worker {
            world,
            nginx,
            client: None,
            counted: Counted::default(),
            steps: 0,
            status: Books::default(),
            metrics: Books::default(),
        }
    }

    /// One request, which is made again as often as its connection breaks.
    fn step(&mut self, kind: &Kind) {
        loop {
            match self.request(kind) {
                End::Answered(tried) => {
                    self.counted.adds.add_all(&kind.adds, 1);
                    if kind.name == "race" {
                        lost_races(&mut self.counted.adds, kind, tried - 1);
                    }
                    *self.counted.answered.entry(kind.name).or_default() += 1;
                    break;
                }
                End::Broken => {
                    self.counted.broken.add_all(&kind.adds, 1);
                    *self.counted.broken_requests.entry(kind.name).or_default() += 1;
                    if kind.name == "race" {
                        lost_races(&mut self.counted.broken, kind, kinds::MOST_RACES);
                    }
                }
            }
        }
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK) {
            self.look();
        }
    }

    fn request(&mut self, kind: &Kind) -> End {
        let path = format!("/{}/{}", kind.name, SERIAL.fetch_add(1, Ordering::SeqCst));
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut client = self.client.take().unwrap_or_else(|| self.nginx.connect());
        match kind.client {
            kinds::Client::Waits | kinds::Client::IsCutOff => {
                let response = match client.try_request(request.as_bytes()) {
                    Ok(response) if response.status != 0 => response,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("{path}: {e}"),
                    _ => return End::Broken,
                };
                let cut_off = kind.client == kinds::Client::IsCutOff;
                if response.truncated && !cut_off {
                    return End::Broken;
                }
                assert_eq!((response.status, response.truncated), (kind.status, cut_off), "{path}");
                let goes_on = !cut_off && response.header("Connection") != Some("close");
                self.client = Some(client).filter(|_| goes_on);
                End::Answered(tried(&response))
            }
            kinds::Client::Leaves => {
                if client.send(request.as_bytes()).is_err() {
                    return End::Broken;
                }
                client.set_timeout(Duration::from_millis(1));
                while !self.world.arrivals.wait(&path, ARRIVES) {
                    if client.wait_closed() {
                        return End::Broken;
                    }
                }
                End::Answered(0)
            }
            kinds::Client::LeavesInBody => {
                let come = client
                    .send(request.as_bytes())
                    .and_then(|()| client.try_wait_for(PART.as_bytes()));
                match come {
                    Ok(true) => End::Answered(0),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("{path}: {e}"),
                    _ => End::Broken,
                }
            }
        }
    }

    /// Asks for the status, in the formats in turn: no number in it ever falls.
    fn look(&mut self) {
        let text = self.nginx.get("/status?limit=0");
        if !text.truncated {
            let document: Value = serde_json::from_slice(&text.body).expect("JSON");
            let now = books::status(&document);
            assert_eq!(now.shrunk(&self.status), [""; 0]);
            self.status = now;
        }
        let text = self.nginx.get_with("/metrics", "Accept: application/openmetrics-text\r\n");
        if !text.truncated {
            let now = books::metrics(&text.text());
            assert_eq!(now.shrunk(&self.metrics), [""; 0]);
            self.metrics = now;
        }
    }
}

/// How many addresses nginx tried.
fn tried(response: &Response) -> usize {
    response.header("X-Addr").map_or(0, |addrs| addrs.split(", ").count())
}

/// What a request adds that met so many kept connections which were closed just then.
pub(crate) fn lost_races(books: &mut Books, kind: &Kind, lost: usize) {
    if lost == 0 {
        return;
    }
    for (name, n) in kind.adds.of("peer race") {
        let Some(peer) = name.strip_suffix(" ok") else { continue };
        let n = n * u64::try_from(lost).expect("a small number");
        books.add(format!("{peer} failed"), n);
        books.add(format!("{peer} requests"), n);
        books.add(format!("{peer} cause {}", kinds::RACE), n);
    }
    for name in ["outcome masked", "upstream race masked"] {
        books.add(name, 1);
    }
    for start in ["cause", "timeline"] {
        books.add(format!("{start} {}", kinds::RACE), 1);
    }
}
