//! `nginx-setup [--tests | --bench] [release|debian|custom]`: see the library.

use std::process::ExitCode;

use nginx_setup::{Error, Name, Purpose};

const USAGE: &str = "\
usage: nginx-setup [--tests | --bench] [release|debian|custom]

Makes an nginx ready under target/nginx/<name>/ and writes its paths to
target/nginx/<name>/env; with --tests, also the programs that only tests run, with --bench those
that only measuring does. Without a name: $NGINX; else custom if NGINX_SOURCE_DIR or
NGINX_BUILD_DIR is set; else release.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("nginx-setup: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let mut arg = args.next();
    let purpose = match arg.as_deref() {
        Some("--tests") => Purpose::Tests,
        Some("--bench") => Purpose::Bench,
        _ => Purpose::Build,
    };
    if purpose != Purpose::Build {
        arg = args.next();
    }
    if matches!(arg.as_deref(), Some("-h" | "--help")) {
        println!("{USAGE}");
        return Ok(());
    }
    if args.next().is_some() {
        return Err(Error::Usage(USAGE));
    }
    let name = Name::choose(arg.as_deref(), |key| std::env::var_os(key))?;
    let (nginx, version) = nginx_setup::setup(name, purpose)?;
    eprintln!("nginx {}: {version} at {}", nginx.name, nginx.binary.display());
    Ok(())
}
