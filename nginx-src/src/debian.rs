//! nginx of the distribution: its program as installed by the package `nginx`,
//! its headers from the package `nginx-dev`, configured as the program was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use crate::nginx::Nginx;
use crate::os::Packages;
use crate::workspace::text;
use crate::{Error, abi, shell, steps};

const BINARY: &str = "/usr/sbin/nginx";
const SOURCE: &str = "/usr/share/nginx/src";

pub(crate) fn setup(dir: &Path, packages: &Packages) -> Result<Nginx, Error> {
    let versions = ["nginx", "nginx-dev"].map(|name| {
        format!("{name} {}", packages.get(name).map(String::as_str).unwrap_or_default())
    });
    let stamp = format!("{}\n{}\n", versions.join("\n"), text(dir)?);
    if let Some(nginx) = steps::cached(dir, "debian", &stamp) {
        return Ok(nginx);
    }
    let log = dir.join("build.log");
    eprintln!("nginx debian: configuring {}, log in {}", versions.join(", "), log.display());
    steps::start(dir)?;
    let nginx = Nginx {
        name: "debian".to_owned(),
        dir: dir.to_owned(),
        source_dir: dir.join("source"),
        build_dir: dir.join("objs"),
        binary: PathBuf::from(BINARY),
    };
    steps::copy(Path::new(SOURCE), &nginx.source_dir)?;
    steps::configure(dir, "configure", &flags(&nginx)?)?;
    abi::check(&nginx)?;
    steps::finish(nginx, &stamp)
}

/// The flags that the package keeps for builders of modules. They are those of
/// `nginx -V` without the modules that need more libraries, which do not
/// change what other modules see.
fn flags(nginx: &Nginx) -> Result<Vec<String>, Error> {
    let path = nginx.source_dir.join("conf_flags");
    let conf = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut flags = conf_flags(&conf)
        .ok_or_else(|| Error::Unexpected(format!("{}: no NGX_CONF_FLAGS=( )", path.display())))?;
    let (_, info) = steps::output("nginx -V", Command::new(BINARY).arg("-V"))?;
    // The compiler's flags may define what the headers depend on.
    flags.extend(compiler_flags(&info));
    Ok(flags)
}

/// The elements of the array that the file `conf_flags` assigns.
fn conf_flags(text: &str) -> Option<Vec<String>> {
    let (_, array) = text.split_once("NGX_CONF_FLAGS=(")?;
    let (array, _) = array.rsplit_once(')')?;
    shell::words(array)
}

fn compiler_flags(info: &str) -> Vec<String> {
    let (_, args) = info.split_once("configure arguments:").unwrap_or_default();
    let words = iter::once(args).filter_map(shell::words).flatten();
    words
        .filter(|arg| arg.starts_with("--with-cc-opt=") || arg.starts_with("--with-ld-opt="))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_conf_flags() {
        let text = "NGX_CONF_FLAGS=( --prefix=/usr/share/nginx --with-compat )\n";
        assert_eq!(conf_flags(text).unwrap(), ["--prefix=/usr/share/nginx", "--with-compat"]);
        let text = "# flags\nNGX_CONF_FLAGS=(\n  --with-cc-opt='-g (O2)'\n  --with-a\n)\n# end";
        assert_eq!(conf_flags(text).unwrap(), ["--with-cc-opt=-g (O2)", "--with-a"]);
        assert_eq!(conf_flags("NGX_CONF_FLAGS=()").unwrap(), [""; 0]);
        assert_eq!(conf_flags("NGX_CONF_FLAGS=( --a"), None);
        assert_eq!(conf_flags("OTHER=( --a )"), None);
    }

    #[test]
    fn reads_compiler_flags() {
        let info = "nginx version: nginx/1.22.1\nTLS SNI support enabled\n\
                    configure arguments: --with-cc-opt='-g -O2' --with-ld-opt=-Wl,-z,now \
                    --prefix=/usr --with-compat\n";
        assert_eq!(compiler_flags(info), ["--with-cc-opt=-g -O2", "--with-ld-opt=-Wl,-z,now"]);
        assert_eq!(compiler_flags("nginx version: nginx/1.22.1\n"), [""; 0]);
    }
}
