//! Signals, workers and the end of nginx.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::process::Signal;

use super::process::{self, Process};
use super::{Conf, DEADLINE, Nginx, write_conf};
use crate::wait::{eventually, poll};

impl Nginx {
    /// Signals the master.
    pub fn signal(&self, signal: Signal) {
        let mut state = self.state();
        // Not waited for yet, so the number is still its own.
        if !state.ended && state.child.try_wait().ok().flatten().is_none() {
            process::send(state.child.id(), signal);
        }
    }

    /// The workers that serve now, without those that are shutting down.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.workers(Process::is_ready_worker).iter().map(|w| w.pid).collect()
    }

    /// Every worker, also those that are shutting down.
    pub fn all_worker_pids(&self) -> Vec<u32> {
        self.workers(Process::is_worker).iter().map(|w| w.pid).collect()
    }

    /// Every child of the master: under another program ([`Conf::under`]) they have no titles.
    pub fn child_pids(&self) -> Vec<u32> {
        self.workers(|_| true).iter().map(|w| w.pid).collect()
    }

    /// Kills one worker, and returns when as many as before serve again; what
    /// nginx logs about it counts as clean.
    ///
    /// # Panics
    /// When no such worker serves, or no new one starts.
    pub fn kill_worker(&self, pid: u32, signal: Signal) {
        let before = self.workers(Process::is_ready_worker);
        let victim = before.iter().find(|w| w.pid == pid).expect("a worker of this nginx");
        self.allow_log(&format!("worker process {pid} exited on signal"));
        victim.signal(signal);
        eventually("a new worker", DEADLINE, || {
            let now = self.workers(Process::is_ready_worker);
            (!now.contains(victim) && now.len() >= before.len()).then_some(())
        });
    }

    /// Reads the configuration again (SIGHUP). Returns when every new worker
    /// serves and no old one accepts any more, with the old ones' pids: they
    /// live until their requests are done ([`Nginx::wait_workers_gone`]).
    ///
    /// # Panics
    /// When nginx refuses the configuration or is late.
    pub fn reload(&self) -> Vec<u32> {
        let old = self.workers(Process::is_ready_worker);
        let wanted = self.state().conf.workers;
        let mark = self.error_log().len();
        self.signal(Signal::HUP);
        eventually("reload", DEADLINE, || {
            let log = self.error_log();
            let new = log.get(mark..).unwrap_or_default();
            assert!(!new.contains("[emerg]"), "nginx refused to reload:\n{new}");
            let serving = self.workers(Process::is_ready_worker);
            // A worker that is told to go takes another title and closes its
            // listening sockets in the same turn of its event loop.
            let old_serves = serving.iter().any(|w| old.contains(w));
            (!old_serves && serving.len() >= wanted).then_some(())
        });
        old.iter().map(|w| w.pid).collect()
    }

    /// [`Nginx::reload`] with another configuration on the same ports.
    pub fn reload_with(&self, conf: Conf) -> Vec<u32> {
        self.write_conf(conf);
        self.reload()
    }

    /// Replaces nginx.conf and does not tell nginx. `netns`, `env` and
    /// `module` are those of the start.
    pub fn write_conf(&self, conf: Conf) {
        let mut state = self.state();
        write_conf(&conf, &self.build, self.prefix(), &mut state.ports);
        state.conf = conf;
    }

    /// Waits until these workers have ended.
    ///
    /// # Panics
    /// When they are late.
    pub fn wait_workers_gone(&self, pids: &[u32]) {
        let master = self.pid();
        eventually("workers gone", DEADLINE, || {
            let left = process::children(master);
            (!left.iter().any(|w| pids.contains(&w.pid))).then_some(())
        });
    }

    /// Moves `<prefix>/<name>` to `<name>.1` and has nginx open it again.
    ///
    /// # Panics
    /// When nginx is late.
    pub fn rotate(&self, name: &str) {
        std::fs::rename(self.path(name), self.path(&format!("{name}.1"))).expect(name);
        self.reopen(&[&format!("{name}.1")]);
    }

    /// Has nginx open its logs again (SIGUSR1). Returns when no process of it
    /// has one of the files in `moved` (names in the prefix now) open, nor a
    /// deleted log. There is nothing to see, thus nothing to wait for, when
    /// no file was moved or deleted.
    ///
    /// # Panics
    /// When nginx is late, or its descriptors cannot be seen.
    pub fn reopen(&self, moved: &[&str]) {
        let moved: BTreeSet<PathBuf> = moved.iter().map(|name| self.path(name)).collect();
        self.signal(Signal::USR1);
        let master = process::process(self.pid()).expect("nginx runs");
        assert!(!master.open_files().is_empty(), "cannot see what nginx has open");
        eventually("logs opened again", DEADLINE, || {
            let workers = self.workers(Process::is_worker);
            let stale = workers.iter().chain([&master]).flat_map(Process::open_files).any(|f| {
                // Request and response bodies in tmp/ are deleted while open.
                let deleted = f.to_string_lossy().ends_with(" (deleted)")
                    && f.starts_with(self.prefix())
                    && !f.starts_with(self.path("tmp"));
                deleted || moved.contains(&f)
            });
            (!stale).then_some(())
        });
    }

    /// Ends nginx gracefully (SIGQUIT), by force when that takes too long, and
    /// checks its logs.
    ///
    /// # Panics
    /// When the logs are not clean.
    pub fn stop(&self) {
        self.end(Signal::QUIT);
        self.assert_clean();
        self.state().checked = true;
    }

    /// The children of the master that `which` accepts.
    pub(super) fn workers(&self, which: impl Fn(&Process) -> bool) -> Vec<Process> {
        let mut state = self.state();
        let children = process::children(state.child.id());
        for child in &children {
            if !state.seen.contains(child) {
                state.seen.push(child.clone());
            }
        }
        drop(state);
        children.into_iter().filter(which).collect()
    }

    pub(super) fn has_ended(&self) -> bool {
        let mut state = self.state();
        state.ended = state.ended || !matches!(state.child.try_wait(), Ok(None));
        state.ended
    }

    /// Ends the master with `signal`, or by force, and what it leaves behind.
    pub(super) fn end(&self, signal: Signal) {
        if !self.has_ended() {
            // To know the workers if the master cannot end them itself.
            self.workers(|_| true);
            self.signal(signal);
            let ended = poll(DEADLINE, || self.has_ended().then_some(()));
            if ended.is_none() {
                self.workers(|_| true);
                self.signal(Signal::KILL);
                let _ = self.state().child.wait();
                self.state().ended = true;
            }
        }
        // Nobody's children any more, hence known by their start time only.
        let seen = std::mem::take(&mut self.state().seen);
        for process in seen {
            process.signal(Signal::KILL);
        }
    }
}
