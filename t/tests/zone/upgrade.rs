//! Another binary in the place of the one that runs, as nginx's documentation has it ("Upgrading
//! Executable on the Fly").

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nginx_setup::Name;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use t::client::{Addr, Client};
use t::ports::Reservation;
use t::{RefusedPort, Signal, Upstream, diag, script};
use tempfile::TempDir;

use super::{SOON, counts};

/// An nginx in the background: one that a shell, or a test, waits for ignores USR2.
struct Daemon {
    prefix: TempDir,
    port: Reservation,
}

impl Daemon {
    fn start(good: &Upstream, dead: &RefusedPort) -> Self {
        let daemon = Self { prefix: t::temp_dir(), port: Reservation::v4().expect("a free port") };
        let name = Name::choose(None, |key| std::env::var_os(key)).expect("a name");
        let build = nginx_setup::Nginx::load(name.as_str()).expect("an nginx");
        let prefix = daemon.prefix.path().display();
        fs::create_dir(daemon.path("tmp")).expect("tmp");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {prefix}/tmp/{kind};"))
            .concat();
        let conf = format!(
            "load_module \"{}\"; daemon on; worker_processes 2; pid {prefix}/nginx.pid;
             error_log {prefix}/error.log info; events {{ }}
             http {{ access_log off; {temporary} upstream_diag on;
                 upstream_diag_log {prefix}/diag.json;
                 upstream good {{ server {}; }} upstream dead {{ server {} max_fails=0; }}
                 server {{ listen 127.0.0.1:{};
                     location /good {{ proxy_pass http://good; }}
                     location /dead {{ proxy_pass http://dead; }}
                     location /status {{ upstream_diag_status; add_header X-Parent $pid; }} }} }}",
            build.module_path().display(),
            good.addr(),
            dead.addr(),
            daemon.port.port(),
        );
        fs::write(daemon.path("nginx.conf"), conf).expect("nginx.conf");
        let started = Command::new(&build.binary)
            // nginx would take it for sockets left by an nginx before it.
            .env_remove("NGINX")
            .arg("-p")
            .arg(daemon.prefix.path())
            .arg("-c")
            .arg(daemon.path("nginx.conf"))
            .arg("-e")
            .arg(daemon.path("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(started.expect("nginx").success(), "{}", daemon.log());
        daemon.wait("a master", || daemon.master("nginx.pid"));
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.prefix.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    fn wait<T>(&self, what: &str, f: impl FnMut() -> Option<T>) -> T {
        t::poll(SOON * 2, f).unwrap_or_else(|| panic!("{what}: late\n{}", self.log()))
    }

    /// The master whose number is in this file, while it runs.
    fn master(&self, file: &str) -> Option<u32> {
        let pid = fs::read_to_string(self.path(file)).ok()?.trim().parse().ok()?;
        self.is_master(pid).then_some(pid)
    }

    /// Whether this is a master of this prefix, and no other process that has its number.
    fn is_master(&self, pid: u32) -> bool {
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.starts_with("nginx: master") && title.contains(&*self.prefix.path().to_string_lossy())
    }

    fn send(&self, pid: u32, signal: Signal) {
        assert!(self.is_master(pid), "{pid} is gone\n{}", self.log());
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("a signal");
    }

    /// How many workers of a master accept connections.
    fn workers(&self, master: u32) -> usize {
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.unwrap_or_default();
        let titles = children
            .split_whitespace()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
        titles
            .filter(|title| title.trim_end_matches(['\0', ' ']) == "nginx: worker process")
            .count()
    }

    /// Waits until this master has so many workers.
    fn wait_workers(&self, master: u32, n: usize) {
        self.wait("workers", || (self.workers(master) == n).then_some(()));
    }

    fn wait_gone(&self, master: u32) {
        self.wait("a master's end", || (!self.is_master(master)).then_some(()));
    }

    fn get(&self, path: &str) -> t::Response {
        let mut client = Client::connect(&Addr::Tcp(self.port.port())).expect("connected");
        client.request(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    }

    /// Asks both so many times.
    fn ask(&self, times: usize) {
        for _ in 0..times {
            assert_eq!((self.get("/good").status, self.get("/dead").status), (200, 502));
        }
    }

    /// Waits until so many are counted of both, and gives the document.
    fn counted(&self, n: u64) -> Value {
        let mut last = Value::Null;
        let found = t::poll(SOON, || {
            last = diag::status_in(&self.get("/status"));
            let of = |name| counts(&last, name)[0].1;
            (of("good") == [n, 0, 0] && of("dead") == [0, n, 0] && last["totals"]["failed"] == n)
                .then_some(())
        });
        assert!(found.is_some(), "wanted {n}: {last:#}");
        last
    }

    /// Starts the new binary beside the old one, and gives both masters.
    fn upgrade(&self) -> (u32, u32) {
        let old = self.master("nginx.pid").expect("a master");
        self.send(old, Signal::USR2);
        let new = self.wait("the new master", || {
            let new = self.master("nginx.pid").filter(|pid| *pid != old)?;
            (self.master("nginx.pid.oldbin") == Some(old)).then_some(new)
        });
        self.wait_workers(new, 2);
        (old, new)
    }

    /// Ends nginx, and checks what it said.
    fn stop(self) {
        let master = self.master("nginx.pid").expect("a master");
        self.send(master, Signal::QUIT);
        self.wait_gone(master);
        let log = self.log();
        for word in ["[alert]", "[emerg]", "panicked", "exited on signal"] {
            assert!(!log.contains(word), "{log}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for file in ["nginx.pid", "nginx.pid.oldbin"] {
            if let Some(master) = self.master(file) {
                self.send(master, Signal::TERM);
                let gone = || (!self.is_master(master)).then_some(());
                if t::poll(SOON, gone).is_none() {
                    self.send(master, Signal::KILL);
                }
            }
        }
    }
}

/// Guards against a new binary that takes the old one's memory for its own, or has none.
#[test]
fn to_a_new_binary() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let nginx = Daemon::start(&good, &dead);
    nginx.ask(3);
    nginx.counted(3);
    let (old, new) = nginx.upgrade();
    nginx.send(old, Signal::WINCH);
    nginx.wait_workers(old, 0);
    // The memory is another one, and begins with zeros.
    nginx.counted(0);
    nginx.ask(2);
    let status = nginx.counted(2);
    assert_eq!(status["recent"].as_array().map(Vec::len), Some(2));
    nginx.send(old, Signal::QUIT);
    nginx.wait_gone(old);
    nginx.ask(1);
    nginx.counted(3);
    // What is left is an nginx like any other.
    nginx.send(new, Signal::HUP);
    nginx.wait("a reload", || nginx.log().contains("reconfiguring").then_some(()));
    nginx.wait_workers(new, 2);
    nginx.counted(3);
    // And again.
    let (old, _) = nginx.upgrade();
    nginx.send(old, Signal::QUIT);
    nginx.wait_gone(old);
    nginx.ask(1);
    nginx.counted(1);
    nginx.stop();
}

/// Guards against an old binary that comes back without what it had counted.
#[test]
fn and_back() {
    let good = Upstream::tcp(script::ok("good"));
    let dead = t::refused_port();
    let nginx = Daemon::start(&good, &dead);
    nginx.ask(3);
    nginx.counted(3);
    let (old, new) = nginx.upgrade();
    nginx.send(old, Signal::WINCH);
    nginx.wait_workers(old, 0);
    nginx.ask(2);
    nginx.counted(2);
    // The new one does not do: the old one starts workers again, without reading anything.
    nginx.send(old, Signal::HUP);
    nginx.wait_workers(old, 2);
    nginx.send(new, Signal::QUIT);
    nginx.wait_gone(new);
    nginx.wait("the old number", || (nginx.master("nginx.pid") == Some(old)).then_some(()));
    let status = nginx.counted(3);
    assert_eq!(status["recent"].as_array().map(Vec::len), Some(3));
    nginx.ask(2);
    nginx.counted(5);
    nginx.send(old, Signal::HUP);
    nginx.wait_workers(old, 2);
    nginx.counted(5);
    nginx.stop();
}
