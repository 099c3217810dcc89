//! nginx built from the sources of a release.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, ffi::OsString};

use crate::nginx::Nginx;
use crate::workspace::{Workspace, text};
use crate::{Error, steps};

/// The package on crates.io that carries the sources, with nginx's version as
/// the build metadata of its own.
const PACKAGE: &str = "nginx-src";

/// About what distributions have. `--with-compat` makes modules portable,
/// `--with-debug` lets tests read the debug log.
const FLAGS: &[&str] = &[
    "--with-compat",
    "--with-debug",
    "--with-http_ssl_module",
    "--with-http_v2_module",
    "--with-http_realip_module",
    "--with-http_stub_status_module",
    "--with-http_auth_request_module",
    "--with-http_slice_module",
    "--with-stream",
    "--with-stream_ssl_module",
    "--with-threads",
    // Nothing is installed, and tests start nginx with a prefix of their own.
    // The path of the workspace may have a space, which would break the makefile.
    "--prefix=.",
];

pub(crate) fn setup(workspace: &Workspace, dir: &Path) -> Result<Nginx, Error> {
    let (version, checksum) = workspace.locked(PACKAGE)?;
    let flags: Vec<_> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    let stamp = format!("{PACKAGE} {version} {checksum}\n{}\n{}\n", flags.join("\n"), text(dir)?);
    if let Some(nginx) = steps::cached(dir, "release", &stamp) {
        return Ok(nginx);
    }
    eprintln!("nginx release: building {version}, log in {}", dir.join("build.log").display());
    let package = find_package(workspace)?;
    steps::start(dir)?;
    let nginx = Nginx {
        name: "release".to_owned(),
        dir: dir.to_owned(),
        source_dir: dir.join("source"),
        build_dir: dir.join("objs"),
        binary: dir.join("objs/nginx"),
    };
    steps::copy(&package.join("nginx"), &nginx.source_dir)?;
    steps::configure(dir, "auto/configure", &flags)?;
    steps::make(dir, &nginx.source_dir, Path::new("../objs/Makefile"))?;
    steps::finish(nginx, &stamp)
}

/// The directory that cargo has unpacked the package into. Asking for the
/// metadata also downloads the package if that has not happened yet.
fn find_package(workspace: &Workspace) -> Result<PathBuf, Error> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let (json, _) = steps::output("cargo metadata", cargo.arg(workspace.manifest()))?;
    package_dir(&json).ok_or_else(|| {
        Error::Unexpected(format!("cargo metadata does not say where the package {PACKAGE} is"))
    })
}

fn package_dir(json: &str) -> Option<PathBuf> {
    let metadata: serde_json::Value = serde_json::from_str(json).ok()?;
    let mut packages = metadata.get("packages")?.as_array()?.iter();
    let package = packages
        .find(|package| package.get("name").and_then(serde_json::Value::as_str) == Some(PACKAGE))?;
    let manifest = Path::new(package.get("manifest_path")?.as_str()?);
    Some(manifest.parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_package_in_metadata() {
        let json = r#"{"packages": [
            {"name": "nginx-sys", "manifest_path": "/r/nginx-sys-0.5.0/Cargo.toml"},
            {"name": "nginx-src", "manifest_path": "/r/nginx-src-1/Cargo.toml"}]}"#;
        assert_eq!(package_dir(json), Some(PathBuf::from("/r/nginx-src-1")));
        assert_eq!(package_dir(r#"{"packages": []}"#), None);
        assert_eq!(package_dir("no json"), None);
    }
}
