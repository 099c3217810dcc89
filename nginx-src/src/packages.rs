//! Makes sure that the system packages are there.

use std::env;
use std::io;
use std::process::Command;

use crate::needs::{Need, Plan, Probe, needs, plan};
use crate::os::{self, Packages};
use crate::workspace::{Name, Purpose};
use crate::{Error, steps};

/// Checks what `name` and its `purpose` need, and installs what is missing if it can.
///
/// Returns the versions of what is installed, where dpkg knows.
pub(crate) fn ensure(name: Name, purpose: Purpose) -> Result<Packages, Error> {
    let apt = os::has_apt();
    let (missing, packages) = look(name, purpose, apt);
    match plan(&missing, apt, os::is_root()) {
        Plan::Ready => return Ok(packages),
        Plan::Mention(text) => {
            eprintln!("nginx-setup: {text}");
            return Ok(packages);
        }
        Plan::Refuse(text) => return Err(Error::Packages(text)),
        Plan::Install => install(&missing)?,
    }
    let (missing, packages) = look(name, purpose, apt);
    if missing.is_empty() {
        return Ok(packages);
    }
    // As when PATH does not lead to a program that is installed.
    Err(Error::Packages(format!(
        "still not found after installing: {} (PATH={})",
        missing.join(" "),
        env::var_os("PATH").unwrap_or_default().display(),
    )))
}

fn look(name: Name, purpose: Purpose, apt: bool) -> (Vec<&'static str>, Packages) {
    let needs: Vec<_> = needs(name, purpose).collect();
    let packages = if apt {
        let mut names: Vec<_> = needs.iter().map(|need| need.package).collect();
        names.push("libclang-[0-9]*-dev");
        os::installed(&names)
    } else {
        Packages::new()
    };
    let present = |need: &Need| match need.probe {
        Probe::Program(program) => os::program(program).is_some(),
        Probe::Libclang if env::var_os("LIBCLANG_PATH").is_some() => true,
        Probe::Libclang if apt => os::has_libclang_package(&packages),
        Probe::Libclang => os::has_libclang_file(),
        Probe::Header(header) if !apt => os::has_header(header),
        Probe::Header(_) | Probe::Package => packages.contains_key(need.package),
    };
    let missing = needs.iter().filter(|need| !present(need)).map(|need| need.package);
    (missing.collect(), packages)
}

fn install(missing: &[&str]) -> Result<(), Error> {
    eprintln!("installing system packages: {}", missing.join(" "));
    // One broken source of packages must not stop this: what counts is
    // whether the packages can be installed.
    if let Err(err) = apt_get(&["update", "-qq"]) {
        eprintln!("nginx-setup: {err}; trying to install all the same");
    }
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(missing);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<(), Error> {
    let status = Command::new("apt-get")
        .args(args)
        .env("PATH", os::path_for_children())
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Packages start their servers once installed, `nginx` one on port 80;
        // here only their files are wanted. policy-rc.d would prevent that, but is
        // the administrator's. So the package's scripts are told that this is
        // not the time: systemctl does nothing to a running systemd when
        // offline, and without systemd services do not start in runlevel 1.
        // The services stay enabled, that is, they start at the next boot.
        .envs([("SYSTEMD_OFFLINE", "1"), ("RUNLEVEL", "1"), ("PREVLEVEL", "N")])
        .stdout(io::stderr())
        .status()
        .map_err(Error::spawn("apt-get"))?;
    steps::check(&format!("apt-get {}", args.join(" ")), status, "its output is above")
}
