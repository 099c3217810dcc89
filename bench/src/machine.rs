//! On what it was measured.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// The machine and the programs on it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// Each with its version, in its own words.
    pub(crate) programs: Vec<String>,
    /// Commit of the module's repository, with a mark when files differ from it.
    pub(crate) commit: Option<String>,
}

impl Machine {
    /// This one, now, with these nginxes.
    pub(crate) fn look(nginxes: &[t::Name]) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut programs: Vec<String> = nginxes.iter().filter_map(|&name| nginx(name)).collect();
        let others = [
            ("rustc", &["--version"][..]),
            ("valgrind", &["--version"]),
            ("strace", &["--version"]),
            ("wrk", &["--version"]),
        ];
        programs.extend(others.iter().filter_map(|(program, args)| first_line(program, args)));
        programs.extend(
            ["libnginx-mod-http-lua", "libnginx-mod-http-js"].iter().filter_map(|p| {
                first_line("dpkg-query", &["-W", "-f", "${Package} ${Version}", p])
            }),
        );
        Self {
            date: first_line("date", &["-u", "+%F"]).unwrap_or_default(),
            cpu: field(&cpuinfo, "model name", ':').unwrap_or_default(),
            cores: available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: format!("Linux {}", kernel.trim()),
            system: field(&release, "PRETTY_NAME", '=').unwrap_or_default(),
            programs,
            commit: first_line("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        }
    }
}

fn nginx(name: t::Name) -> Option<String> {
    let nginx = nginx_setup::Nginx::load(name.as_str()).ok()?;
    let said = first_line(nginx.binary.to_str()?, &["-v"])?;
    let version = said.rsplit("nginx/").next()?;
    Some(format!("nginx {version} ({})", name.as_str()))
}

/// What a program says first, on whichever of its outputs.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // wrk tells its version and ends as if that were wrong.
    let known = out.status.success() || text.starts_with("wrk ");
    let line = text.lines().next().filter(|line| known && !line.is_empty())?;
    Some(line.split(" Copyright").next().unwrap_or(line).trim().to_owned())
}

fn field(text: &str, name: &str, separator: char) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = fields.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU\n";
        assert_eq!(field(cpuinfo, "model name", ':').unwrap(), "Some CPU");
        let release = "NAME=\"x\"\nPRETTY_NAME=\"Some System 1 (y)\"\n";
        assert_eq!(field(release, "PRETTY_NAME", '=').unwrap(), "Some System 1 (y)");
        assert_eq!(field(release, "VERSION", '='), None);
    }
}
