//! What building the different nginxes has in common.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::available_parallelism;

use crate::nginx::Nginx;
use crate::{Error, os};

/// How much of the log to show when a step fails.
const TAIL: usize = 30;

/// The nginx in `dir`, if it was made from what `stamp` says and is still there.
pub(crate) fn cached(dir: &Path, name: &str, stamp: &str) -> Option<Nginx> {
    let found = fs::read_to_string(dir.join("stamp")).ok()?;
    let nginx = Nginx::read(dir, name).ok().filter(|_| found == stamp)?;
    let files = [
        nginx.binary.clone(),
        nginx.source_dir.join("src/core/nginx.h"),
        nginx.build_dir.join("Makefile"),
        nginx.build_dir.join("ngx_auto_config.h"),
    ];
    files.iter().all(|file| file.is_file()).then_some(nginx)
}

/// Empties `dir`, with what an earlier or interrupted run has left there and
/// the module built for it.
pub(crate) fn start(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir)(err)),
        _ => fs::create_dir_all(dir).map_err(Error::io(dir)),
    }
}

/// Records that `nginx` was made from what `stamp` says. The stamp comes last:
/// without it, the next run starts anew.
pub(crate) fn finish(nginx: Nginx, stamp: &str) -> Result<Nginx, Error> {
    nginx.write()?;
    let path = nginx.dir.join("stamp");
    let temp = nginx.dir.join("stamp.new");
    fs::write(&temp, stamp).map_err(Error::io(&temp))?;
    fs::rename(&temp, &path).map_err(Error::io(&path))?;
    Ok(nginx)
}

/// Copies a tree of files.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to).map_err(Error::io(to))?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let entry = entry.map_err(Error::io(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(Error::io(&from))?;
        }
    }
    Ok(())
}

/// Runs `command` with its output in `dir`'s build log.
pub(crate) fn logged(dir: &Path, what: &str, command: &mut Command) -> Result<(), Error> {
    let path = dir.join("build.log");
    let mut log =
        OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    writeln!(log, "# {command:?}").map_err(Error::io(&path))?;
    let stderr = log.try_clone().map_err(Error::io(&path))?;
    let status = command
        // `make` would take its parent's for its own jobs.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL")
        .env("PATH", os::path_for_children())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(stderr)
        .status()
        .map_err(Error::spawn(command.get_program()))?;
    let log = fs::read(&path).map_err(Error::io(&path))?;
    check(&format!("{what} (log: {})", path.display()), status, &String::from_utf8_lossy(&log))
}

/// An error with the end of `output` unless the `status` is a success.
pub(crate) fn check(what: &str, status: ExitStatus, output: &str) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    let (what, status) = (what.to_owned(), status.to_string());
    Err(Error::Failed { what, status, output: tail(output, TAIL) })
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
}

/// Runs `command` and returns what it prints.
pub(crate) fn output(what: &str, command: &mut Command) -> Result<(String, String), Error> {
    let out = command.output().map_err(Error::spawn(command.get_program()))?;
    let [stdout, stderr] =
        [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    check(what, out.status, &stderr)?;
    Ok((stdout, stderr))
}

/// Configures the tree in `source`. The build directory is named relative to
/// it: nginx's scripts do not put up with a space in its path.
pub(crate) fn configure(dir: &Path, script: &str, flags: &[String]) -> Result<(), Error> {
    let mut command = Command::new("sh");
    command.arg(script).arg("--builddir=../objs").args(flags).current_dir(dir.join("source"));
    logged(dir, "configuring nginx", &mut command)
}

/// Compiles `source` as configured by `makefile`.
pub(crate) fn make(dir: &Path, source: &Path, makefile: &Path) -> Result<(), Error> {
    let jobs = available_parallelism().map_or(1, std::num::NonZero::get);
    let mut command = Command::new("make");
    command.arg("-f").arg(makefile).arg("binary").arg(format!("-j{jobs}")).current_dir(source);
    logged(dir, "compiling nginx", &mut command)
}

/// What the program says it is, as in `nginx/1.28.3`.
pub(crate) fn version(binary: &Path) -> Result<String, Error> {
    let what = format!("{} -v", binary.display());
    let (_, stderr) = output(&what, Command::new(binary).arg("-v"))?;
    Ok(stderr.trim().rsplit("version: ").next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_failing_step_says_why() {
        let mut command = Command::new("sh");
        let err = output("a step", command.args(["-c", "echo reason >&2; exit 3"])).unwrap_err();
        assert_eq!(err.to_string(), "a step failed (exit status: 3):\nreason");
        let err = output("a step", &mut Command::new("/no/such/program")).unwrap_err();
        assert!(err.to_string().starts_with("cannot run /no/such/program: "), "{err}");
    }
}
