//! A tree that the user has configured. It is used in place; all that is ever
//! done to it is to compile nginx if that has not happened.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::nginx::Nginx;
use crate::workspace::text;
use crate::{Error, abi, steps};

pub(crate) fn setup(dir: &Path) -> Result<Nginx, Error> {
    let var = |key| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (source, build) = dirs(var("NGINX_SOURCE_DIR"), var("NGINX_BUILD_DIR"))
        .ok_or(Error::Usage("the nginx `custom` needs NGINX_SOURCE_DIR and/or NGINX_BUILD_DIR"))?;
    let nginx = Nginx {
        name: "custom".to_owned(),
        dir: dir.to_owned(),
        binary: absolute(&build)?.join("nginx"),
        source_dir: absolute(&source)?,
        build_dir: absolute(&build)?,
    };
    let makefile = nginx.build_dir.join("Makefile");
    let header = nginx.source_dir.join("src/core/nginx.h");
    let config = nginx.build_dir.join("ngx_auto_config.h");
    if let Some(file) = [&header, &makefile, &config].into_iter().find(|file| !file.is_file()) {
        return Err(Error::Unexpected(format!(
            "{} is not there: NGINX_SOURCE_DIR={} with NGINX_BUILD_DIR={} is not a configured \
             tree of nginx (run its configure --with-compat first)",
            file.display(),
            nginx.source_dir.display(),
            nginx.build_dir.display(),
        )));
    }
    let compiled = nginx.binary.is_file();
    if compiled && let Some(nginx) = steps::cached(dir, "custom", &stamp(&nginx, &config)?) {
        return Ok(nginx);
    }
    steps::start(dir)?;
    if !compiled {
        let log = dir.join("build.log");
        eprintln!("nginx custom: compiling {}, log in {}", source.display(), log.display());
        steps::make(dir, &nginx.source_dir, &makefile)?;
    }
    abi::check(&nginx)?;
    let stamp = stamp(&nginx, &config)?;
    steps::finish(nginx, &stamp)
}

/// Where the sources and the build are, each by default from the other.
fn dirs(source: Option<PathBuf>, build: Option<PathBuf>) -> Option<(PathBuf, PathBuf)> {
    match (source, build) {
        (Some(source), Some(build)) => Some((source, build)),
        (Some(source), None) => Some((source.clone(), source.join("objs"))),
        // Not `parent`: that of "objs" would be "".
        (None, Some(build)) => Some((build.join(".."), build)),
        (None, None) => None,
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(Error::io(path))
}

/// Changes when the tree does, which it may at any time: it is the user's.
fn stamp(nginx: &Nginx, config: &Path) -> Result<String, Error> {
    let mut stamp = format!("{}\n{}\n", text(&nginx.source_dir)?, text(&nginx.build_dir)?);
    for file in [&nginx.binary, config] {
        let meta = fs::metadata(file).map_err(Error::io(file))?;
        let modified = meta.modified().map_err(Error::io(file))?;
        stamp.push_str(&format!("{} bytes, {modified:?}\n", meta.len()));
    }
    Ok(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_directory_is_enough() {
        let path = |text: &str| Some(PathBuf::from(text));
        let pair = |source, build| Some((PathBuf::from(source), PathBuf::from(build)));
        assert_eq!(dirs(path("/n"), None), pair("/n", "/n/objs"));
        assert_eq!(dirs(None, path("objs")), pair("objs/..", "objs"));
        assert_eq!(dirs(path("/n"), path("/b")), pair("/n", "/b"));
        assert_eq!(dirs(None, None), None);
    }
}
