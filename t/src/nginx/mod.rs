//! One nginx in a directory of its own.

mod conf;
mod control;
mod locate;
mod logs;
pub(crate) mod process;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::{Addr, Client, Response};
use crate::ports::Reservation;
use crate::wait::poll;
pub use conf::{Conf, ErrorLog};
use process::Process;

/// How long nginx may take to start, to reload or to end.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A running nginx. Dropping it ends it and fails the test when its error log
/// shows a crash.
#[derive(Debug)]
pub struct Nginx {
    prefix: TempDir,
    build: locate::Build,
    state: Mutex<State>,
}

/// What changes while nginx runs.
#[derive(Debug)]
struct State {
    child: Child,
    conf: Conf,
    /// One for every server, held as long as nginx lives.
    ports: Vec<Reservation>,
    /// Every child seen, to end those a dead master leaves behind.
    seen: Vec<Process>,
    /// Log lines containing one of these are no fault.
    allowed: Vec<String>,
    /// The master has ended and was waited for.
    ended: bool,
    /// The log was found clean, or need not be.
    checked: bool,
}

impl Nginx {
    /// Starts nginx; returns when every worker is ready.
    ///
    /// # Panics
    /// With nginx's error log, when it does not start.
    pub fn start(conf: Conf) -> Self {
        Self::try_start(conf).unwrap_or_else(|log| panic!("nginx did not start:\n{log}"))
    }

    /// Starts nginx, or gives back what it logged.
    pub fn try_start(conf: Conf) -> Result<Self, String> {
        match Self::start_once(conf.clone()) {
            // Reserved ports are not taken by chance, but anybody can name
            // one. Once is enough: nginx itself tries for some seconds.
            Err(log) if log.contains("Address already in use") => Self::start_once(conf),
            result => result,
        }
    }

    /// `nginx -t`: whether the configuration is good, and what nginx said.
    pub fn check(conf: &Conf) -> (bool, String) {
        let (prefix, build, _ports) = prepare(conf);
        let output = command(&build, prefix.path(), conf, "-t")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .expect("nginx -t");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Compiles a module in C for the nginx that is tested, with a macro defined, into a directory.
    pub fn compile_module(code: &Path, macro_name: &str, dir: &Path) -> PathBuf {
        locate::compile(code, macro_name, dir)
    }

    fn start_once(conf: Conf) -> Result<Self, String> {
        let (prefix, build, ports) = prepare(&conf);
        let stderr = File::create(prefix.path().join("stderr.log")).expect("stderr.log");
        let child = command(&build, prefix.path(), &conf, "")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", build.binary.display()));
        let (workers, wrapped) = (conf.workers, !conf.under.is_empty());
        let state = State {
            child,
            conf,
            ports,
            seen: Vec::new(),
            allowed: Vec::new(),
            ended: false,
            checked: false,
        };
        let nginx = Self { prefix, build, state: Mutex::new(state) };
        // The pid file comes after listen(), the title of a worker when it is
        // about to accept. Unlike a connection made to see whether one can
        // be made, looking at them leaves no trace in logs and counters.
        let started = poll(DEADLINE, || {
            if nginx.has_ended() {
                return Some(false);
            }
            let pid = fs::read_to_string(nginx.prefix().join("nginx.pid")).unwrap_or_default();
            // Under another program there may be no titles: that a worker has forked has to do.
            let ready = nginx.workers(|w| wrapped || w.is_ready_worker()).len();
            (!pid.is_empty() && ready >= workers).then_some(true)
        });
        if started == Some(true) {
            return Ok(nginx);
        }
        nginx.state().checked = true;
        let why = if started.is_none() { "late" } else { "exited" };
        Err(format!("{why}\n{}", nginx.all_logs()))
    }

    /// The directory of this nginx.
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// A file in the prefix.
    pub fn path(&self, name: &str) -> PathBuf {
        self.prefix().join(name)
    }

    /// The port of the first server.
    pub fn port(&self) -> u16 {
        self.port_of(0)
    }

    /// The port of server `i`.
    pub fn port_of(&self, i: usize) -> u16 {
        self.state().ports[i].port()
    }

    /// The process id of the master.
    pub fn pid(&self) -> u32 {
        self.state().child.id()
    }

    /// Where server `i` listens.
    pub fn addr(&self, i: usize) -> Addr {
        let state = self.state();
        state.conf.addr(i, self.prefix(), &numbers(&state.ports))
    }

    /// Connects to the first server.
    ///
    /// # Panics
    /// When that fails.
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// Connects to server `i`.
    ///
    /// # Panics
    /// When that fails.
    pub fn connect_to(&self, i: usize) -> Client {
        let addr = self.addr(i);
        Client::connect(&addr)
            .unwrap_or_else(|e| panic!("connecting to {addr:?}: {e}\n{}", self.all_logs()))
    }

    /// `GET path` on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, "")
    }

    /// `GET path` with more header lines, each ending in CRLF.
    pub fn get_with(&self, path: &str, headers: &str) -> Response {
        self.request(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")
                .as_bytes(),
        )
    }

    /// Sends these bytes on a connection of its own.
    pub fn request(&self, bytes: &[u8]) -> Response {
        self.connect().request(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: a graceful end would wait for requests that hang on purpose.
        self.end(Signal::TERM);
        if std::thread::panicking() {
            // The directory goes away now, and with it what explains why.
            eprintln!("{}", self.last_words());
        } else if !self.state().checked {
            self.assert_clean();
        }
    }
}

/// Whether [`Conf::netns`] works here; it needs root and util-linux.
pub fn netns_available() -> bool {
    let unshare = Command::new("unshare").args(["-n", "true"]).stderr(Stdio::null()).status();
    unshare.is_ok_and(|s| s.success())
}

fn prepare(conf: &Conf) -> (TempDir, locate::Build, Vec<Reservation>) {
    let prefix = crate::temp_dir();
    // nginx makes only the last directory of a temporary path.
    let tmp = prefix.path().join("tmp");
    fs::create_dir(&tmp).expect("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o755)).expect("tmp");
    let build = locate::build(conf.nginx, conf.module);
    let mut ports = Vec::new();
    write_conf(conf, &build, prefix.path(), &mut ports);
    (prefix, build, ports)
}

/// Writes nginx.conf, with a port more for every server that has none.
fn write_conf(conf: &Conf, build: &locate::Build, prefix: &Path, ports: &mut Vec<Reservation>) {
    while ports.len() < conf.servers.len() {
        ports.push(Reservation::v4().expect("a free port"));
    }
    let text = conf.render(prefix, &numbers(ports), build.module.as_deref());
    fs::write(prefix.join("nginx.conf"), text).expect("nginx.conf");
}

fn numbers(ports: &[Reservation]) -> Vec<u16> {
    ports.iter().map(Reservation::port).collect()
}

fn command(build: &locate::Build, prefix: &Path, conf: &Conf, option: &str) -> Command {
    // exec all the way, so that the child is the master in the end.
    let mut words: Vec<OsString> = Vec::new();
    if let Some(snippet) = &conf.netns {
        words.extend(["unshare", "-n", "sh", "-e", "-c"].map(OsString::from));
        words.push(format!("{snippet}\nexec \"$0\" \"$@\"").into());
    }
    let at = prefix.to_str().expect("temporary directories have plain names");
    words.extend(conf.under.iter().map(|word| word.replace("{prefix}", at).into()));
    words.push(build.binary.clone().into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.arg("-p").arg(prefix).arg("-c").arg(prefix.join("nginx.conf"));
    // Before the configuration is read nginx logs to a place chosen when it
    // was compiled, often one that only root can write.
    command.arg("-e").arg(prefix.join("error.log"));
    command.args(Some(option).filter(|o| !o.is_empty()));
    // Chooses the build here; nginx would take it for sockets left by an nginx before it.
    command.env_remove("NGINX");
    command.envs(conf.env.iter().map(|(n, v)| (n, v))).stdin(Stdio::null());
    command
}
