//! What a test asks for, and the nginx.conf made from it.

use std::fmt::Write as _;
use std::path::Path;

use nginx_setup::Name;

use crate::client::Addr;

/// The main-level `error_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorLog {
    /// `<prefix>/error.log` at this level.
    Level(String),
    /// No directive; nginx then uses `<prefix>/error.log` at `error`.
    None,
    /// These directives.
    Custom(String),
}

/// The configuration of one nginx.
///
/// In every text `{prefix}` stands for the prefix directory, `{port}` for the
/// port of the first server and `{port0}`, `{port1}`, … for that of each one.
#[derive(Debug, Clone)]
#[must_use]
pub struct Conf {
    /// Main-level directives.
    pub main: String,
    /// Directives in `events`.
    pub events: String,
    /// Directives in `http`, before the servers.
    pub http: String,
    /// Main-level directives behind the `http` block.
    pub after: String,
    /// Bodies of `server` blocks. One without a `listen` gets its port on
    /// 127.0.0.1, or `{prefix}/http<N>.sock` when there is a `netns`.
    pub servers: Vec<String>,
    /// `worker_processes`.
    pub workers: usize,
    /// `error_log`.
    pub error_log: ErrorLog,
    /// Format of `{prefix}/access.log`; none: `access_log off`.
    pub access_log: Option<String>,
    /// Argument of `user`; none: no directive.
    pub user: Option<String>,
    /// Run nginx in a network namespace of its own, after this shell snippet
    /// (for example `ip link set lo up`). Needs root.
    pub netns: Option<String>,
    /// Load the module.
    pub module: bool,
    /// Environment variables for the master.
    pub env: Vec<(String, String)>,
    /// Which nginx; none: the one that the environment names.
    pub nginx: Option<Name>,
    /// A program and its arguments that nginx runs under (`valgrind …`).
    pub under: Vec<String>,
}

impl Conf {
    /// A configuration with one server.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            main: String::new(),
            events: String::new(),
            http: String::new(),
            after: String::new(),
            servers: vec![server.into()],
            workers: 1,
            error_log: ErrorLog::Level("info".to_owned()),
            access_log: None,
            user: default_user(),
            netns: None,
            module: true,
            env: Vec::new(),
            nginx: None,
            under: Vec::new(),
        }
    }

    /// Adds main-level directives; `master_process` is on without one.
    pub fn main(mut self, text: impl AsRef<str>) -> Self {
        push(&mut self.main, text.as_ref());
        self
    }

    /// Adds directives in `events`; `worker_connections` is 512 without one.
    pub fn events(mut self, text: impl AsRef<str>) -> Self {
        push(&mut self.events, text.as_ref());
        self
    }

    /// Adds directives in `http`.
    pub fn http(mut self, text: impl AsRef<str>) -> Self {
        push(&mut self.http, text.as_ref());
        self
    }

    /// Adds main-level directives behind the `http` block.
    pub fn after(mut self, text: impl AsRef<str>) -> Self {
        push(&mut self.after, text.as_ref());
        self
    }

    /// Adds a server.
    pub fn server(mut self, text: impl Into<String>) -> Self {
        self.servers.push(text.into());
        self
    }

    /// Sets the number of workers.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// Sets the level of `<prefix>/error.log` (`info` unless set).
    pub fn log_level(self, level: &str) -> Self {
        self.error_log(ErrorLog::Level(level.to_owned()))
    }

    /// Sets the main-level error log.
    pub fn error_log(mut self, log: ErrorLog) -> Self {
        self.error_log = log;
        self
    }

    /// Writes `<prefix>/access.log` in this format.
    pub fn access_log(mut self, format: impl Into<String>) -> Self {
        self.access_log = Some(format.into());
        self
    }

    /// Sets the user of the workers (`nobody` unless set, when root); an empty
    /// name leaves the directive out.
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned()).filter(|u| !u.is_empty());
        self
    }

    /// Runs nginx in its own network namespace.
    pub fn netns(mut self, snippet: impl Into<String>) -> Self {
        self.netns = Some(snippet.into());
        self
    }

    /// Does not load the module.
    pub fn without_module(mut self) -> Self {
        self.module = false;
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Chooses the nginx, instead of the environment.
    pub fn nginx(mut self, name: Name) -> Self {
        self.nginx = Some(name);
        self
    }

    /// Runs nginx under another program. That has to become the master itself in the end (exec),
    /// and to pass signals on. `{prefix}` in the words is the prefix directory.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The text of nginx.conf.
    pub(super) fn render(&self, prefix: &Path, ports: &[u16], module: Option<&Path>) -> String {
        let mut t = String::new();
        if let Some(module) = module {
            let _ = writeln!(t, "load_module \"{}\";", module.display());
        }
        let master = match self.main.contains("master_process") {
            true => "",
            false => "master_process on;\n",
        };
        let _ = writeln!(t, "daemon off;\n{master}worker_processes {};", self.workers);
        t.push_str("pid {prefix}/nginx.pid;\n");
        match &self.error_log {
            ErrorLog::Level(level) => {
                let _ = writeln!(t, "error_log {{prefix}}/error.log {level};");
            }
            ErrorLog::Custom(text) => push(&mut t, text),
            ErrorLog::None => {}
        }
        if let Some(user) = &self.user {
            let _ = writeln!(t, "user {user};");
        }
        push(&mut t, &self.main);
        let connections = match self.events.contains("worker_connections") {
            true => "",
            false => "worker_connections 512;\n",
        };
        let _ = writeln!(t, "events {{\n{connections}{}}}\nhttp {{", self.events);
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(t, "{kind}_temp_path {{prefix}}/tmp/{kind};");
        }
        match &self.access_log {
            Some(format) => {
                let _ = writeln!(
                    t,
                    "log_format t escape=json '{format}';\naccess_log {{prefix}}/access.log t;"
                );
            }
            None => t.push_str("access_log off;\n"),
        }
        t.push_str(&self.http);
        for (i, body) in self.servers.iter().enumerate() {
            t.push_str("server {\n");
            if !has_listen(body) {
                let _ = match self.netns {
                    Some(_) => writeln!(t, "listen unix:{{prefix}}/http{i}.sock;"),
                    None => writeln!(t, "listen 127.0.0.1:{{port{i}}};"),
                };
            }
            push(&mut t, body);
            t.push_str("}\n");
        }
        t.push_str("}\n");
        t.push_str(&self.after);
        substitute(&t, prefix, ports)
    }

    /// Where server `i` is reached: its port, or its first unix socket when
    /// it listens only there.
    pub(super) fn addr(&self, i: usize, prefix: &Path, ports: &[u16]) -> Addr {
        let body = substitute(&self.servers[i], prefix, ports);
        if !has_listen(&body) {
            return match self.netns {
                Some(_) => Addr::Unix(prefix.join(format!("http{i}.sock"))),
                None => Addr::Tcp(ports[i]),
            };
        }
        let unix = body
            .split_once("listen unix:")
            .and_then(|(_, rest)| rest.split([';', ' ', '\n']).next())
            .map(|path| Addr::Unix(path.into()));
        match unix {
            Some(unix) if !body.contains(&format!(":{}", ports[i])) => unix,
            _ => Addr::Tcp(ports[i]),
        }
    }
}

fn substitute(text: &str, prefix: &Path, ports: &[u16]) -> String {
    let prefix = prefix.to_str().expect("temporary directories have plain names");
    let mut text = text.replace("{prefix}", prefix);
    if let Some(first) = ports.first() {
        text = text.replace("{port}", &first.to_string());
    }
    for (i, port) in ports.iter().enumerate() {
        text = text.replace(&format!("{{port{i}}}"), &port.to_string());
    }
    text
}

fn has_listen(body: &str) -> bool {
    body.split(['\n', ';', '{', '}']).any(|line| line.trim_start().starts_with("listen "))
}

/// Appends directives and ends the line, so that a comment at the end of one
/// text cannot swallow the next.
fn push(to: &mut String, text: &str) {
    to.push_str(text);
    if !text.is_empty() {
        to.push('\n');
    }
}

/// Root's workers run as somebody who may do little, so that tests see the
/// permissions a real nginx has. The group has two names in the wild.
fn default_user() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let nogroup = groups.lines().any(|l| l.starts_with("nogroup:"));
    Some(if nogroup { "nobody nogroup" } else { "nobody nobody" }.to_owned())
}
