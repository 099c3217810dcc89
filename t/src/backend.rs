//! Real servers as upstreams. Such a server is several processes, which make a group of their own
//! and are ended with it.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgid, kill_process, kill_process_group, waitid,
};
use tempfile::TempDir;

use crate::nginx::process::group_is_alive;
use crate::wait::poll;

/// How long a server may take to say what it is waited for, or to end.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where its processes write what they say.
const LOG: &str = "output.log";

/// A running server. Dropping it kills all its processes, and shows what they said when the test
/// has failed.
#[derive(Debug)]
pub struct Backend {
    name: String,
    leader: Child,
    dir: TempDir,
}

impl Backend {
    /// Starts a program in a directory of its own with these files. In them and in the arguments
    /// `{dir}` stands for that directory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &str, args: &[&str], files: &[(&str, &str)]) -> Self {
        let dir = crate::temp_dir();
        let name = dir.path().to_str().expect("temporary directories have plain names");
        for (file, text) in files {
            let text = text.replace("{dir}", name);
            fs::write(dir.path().join(file), text).expect("a file in a temporary directory");
        }
        // Some open it anew: what is written lines up only at its end.
        let log = OpenOptions::new().create(true).append(true).open(dir.path().join(LOG));
        let log = log.expect(LOG);
        // A group of its own is out of reach of what ends the tests' group, Ctrl-C for one:
        // the server is told when the test is gone. SIGTERM would have some finish their requests.
        let leader = Command::new("setpriv")
            .args(["--pdeathsig", "INT", "--", program])
            .args(args.iter().map(|arg| arg.replace("{dir}", name)))
            .current_dir(dir.path())
            // These programs take options from there.
            .env_clear()
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("setpriv: {e}"));
        Self { name: program.to_owned(), leader, dir }
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What its processes said so far.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.path(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has said this on so many lines, and returns those.
    ///
    /// # Panics
    /// When it ends before or is late.
    pub fn wait_for(&self, text: &str, lines: usize) -> Vec<String> {
        let found = poll(DEADLINE, || {
            let ended = self.has_ended();
            let output = self.output();
            // A line that is being written has no end yet.
            let whole = output.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let found = whole.filter(|line| line.contains(text)).map(str::to_owned);
            let found: Vec<String> = found.collect();
            let enough = found.len() >= lines;
            assert!(enough || !ended, "{} has ended, and not said {text:?}", self.name);
            enough.then_some(found)
        });
        found.unwrap_or_else(|| panic!("{} has not said {text:?} on {lines} lines", self.name))
    }

    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.leader.id()
    }

    /// Signals one of its processes.
    ///
    /// # Panics
    /// When that is none of them.
    pub fn signal(&self, pid: u32, signal: Signal) {
        let pid = number(pid);
        assert_eq!(getpgid(Some(pid)), Ok(self.group()), "a process of {}", self.name);
        kill_process(pid, signal).expect("one's own process can be signalled");
    }

    fn group(&self) -> Pid {
        number(self.leader.id())
    }

    /// Whether its first process has. That one is not waited for before the end: so its number,
    /// which is the group's, is not given to others.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.group()), options).is_ok_and(|status| status.is_some())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group(), Signal::KILL);
        // Each of them may have the listening socket.
        let gone = poll(DEADLINE, || (!group_is_alive(self.leader.id())).then_some(()));
        let _ = self.leader.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}\n{}---", self.name, self.output());
        } else {
            assert!(gone.is_some(), "{} cannot be ended", self.name);
        }
    }
}

fn number(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

/// `PATH` with the directories of system programs, which a user's often lacks.
pub fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
