//! Which nginx and which module to test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use nginx_setup::Name;

/// An nginx and the module built for it.
#[derive(Debug, Clone)]
pub(super) struct Build {
    pub(super) binary: PathBuf,
    pub(super) module: Option<PathBuf>,
}

/// The build called `name`, or that the environment names. Without the module any nginx will
/// do, so that the harness can be tested before there is one.
pub(super) fn build(name: Option<Name>, with_module: bool) -> Build {
    let nginx = nginx_setup::Nginx::load(name.unwrap_or_else(named).as_str());
    if !with_module {
        let binary = nginx.ok().map(|n| n.binary).or_else(in_path);
        return Build { binary: binary.expect("no nginx in PATH"), module: None };
    }
    let nginx = nginx.unwrap_or_else(|e| panic!("{e}"));
    let module = nginx.module_path();
    assert!(module.exists(), "{} was not built", module.display());
    Build { binary: nginx.binary, module: Some(module) }
}

/// The nginx that the environment names.
fn named() -> Name {
    Name::choose(None, |key| env::var_os(key)).unwrap_or_else(|e| panic!("{e}"))
}

/// Compiles a module written in C for the nginx that the environment names, with a macro defined, into
/// a directory.
///
/// # Panics
/// With what the compiler said, when it refuses.
pub(super) fn compile(code: &Path, macro_name: &str, dir: &Path) -> PathBuf {
    let nginx = nginx_setup::Nginx::load(named().as_str()).unwrap_or_else(|e| panic!("{e}"));
    let module = dir.join(format!("{macro_name}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wall", "-Werror", "-D", macro_name])
        .arg(code)
        .arg("-o")
        .arg(&module);
    for dir in nginx.include_dirs() {
        cc.arg("-I").arg(dir);
    }
    let output = cc.output().unwrap_or_else(|e| panic!("cc: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    module
}

/// `/usr/sbin` is where distributions put nginx, and not in everybody's PATH.
fn in_path() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|dir| dir.join("nginx"))
        .find(|file| file.is_file())
}
