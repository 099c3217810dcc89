//! A program that is started for a test, and ended with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a program may take to start, or to have something done.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The process. Dropping it ends it; when the test fails, it shows what the process said.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program of a Debian package with these arguments. What it says goes to a file in
    /// `dir`.
    pub(crate) fn start(program: &str, package: &str, dir: &Path, args: &[String]) -> Running {
        let path = dir.join("output.log");
        let log = File::create(&path).expect("output.log");
        let child = command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program} of the package {package}: {e}"));
        Running { name: program.to_owned(), child, log: path }
    }

    /// What it said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for what `f` gives; fails when the program ends before.
    pub(crate) fn until<T>(&mut self, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
        let found = t::poll(DEADLINE, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status}", self.name);
            }
            f()
        });
        found.unwrap_or_else(|| panic!("{}: no {what} within {DEADLINE:?}", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not waited for yet, so the number is still its own. There is nothing to be saved.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}\n{}---", self.name, self.output());
        }
    }
}

/// A command with the directories of system programs in its path, which a user's often lacks.
pub(crate) fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    let found = dirs.map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    Command::new(found.unwrap_or_else(|| program.into()))
}
