use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{Workspace, text};
use crate::{Error, shell};

/// File name of the module next to each nginx.
const MODULE: &str = "ngx_http_upstream_diag_module.so";

/// Directories with headers in nginx's `src` (`CORE_INCS` and `HTTP_INCS` of its `auto/sources`).
const INCLUDED: [&str; 9] = [
    "core",
    "event",
    "event/modules",
    "event/quic",
    "os/unix",
    "http",
    "http/modules",
    "http/v2",
    "http/v3",
];

/// An nginx that is ready: to build the module for, and to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nginx {
    /// `release`, `debian` or `custom`.
    pub name: String,
    /// Everything about it: `target/nginx/<name>`.
    pub dir: PathBuf,
    /// Sources, or at least headers: `NGINX_SOURCE_DIR`.
    pub source_dir: PathBuf,
    /// What `configure` has written: `NGINX_BUILD_DIR`.
    pub build_dir: PathBuf,
    /// The program.
    pub binary: PathBuf,
}

impl Nginx {
    /// Finds an nginx that `nginx-setup` has made ready.
    ///
    /// # Errors
    ///
    /// When it has not, or its program has gone since.
    pub fn load(name: &str) -> Result<Self, Error> {
        let nginx = Self::read(&Workspace::find()?.nginx_dir(name), name)?;
        if !nginx.binary.is_file() {
            let why = format!("{} is not there", nginx.binary.display());
            return Err(Error::NotReady { name: name.to_owned(), why });
        }
        Ok(nginx)
    }

    /// Where the module built for this nginx is.
    #[must_use]
    pub fn module_path(&self) -> PathBuf {
        self.dir.join(MODULE)
    }

    /// Where the headers are that a module in C includes. Not every nginx has all of these.
    #[must_use]
    pub fn include_dirs(&self) -> Vec<PathBuf> {
        let dirs = INCLUDED.iter().map(|dir| self.source_dir.join("src").join(dir));
        std::iter::once(self.build_dir.clone()).chain(dirs).collect()
    }

    pub(crate) fn read(dir: &Path, name: &str) -> Result<Self, Error> {
        let not_ready = |why| Error::NotReady { name: name.to_owned(), why };
        let path = dir.join("env");
        let env = fs::read_to_string(&path)
            .map_err(|err| not_ready(format!("{}: {err}", path.display())))?;
        Self::from_env(dir, name, &env)
            .ok_or_else(|| not_ready(format!("{}: not understood", path.display())))
    }

    pub(crate) fn write(&self) -> Result<(), Error> {
        let path = self.dir.join("env");
        fs::write(&path, self.to_env()?).map_err(Error::io(&path))
    }

    fn from_env(dir: &Path, name: &str, env: &str) -> Option<Self> {
        let words = shell::words(env)?;
        let get =
            |key: &str| words.iter().find_map(|word| Some(PathBuf::from(word.strip_prefix(key)?)));
        Some(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            source_dir: get("NGINX_SOURCE_DIR=")?,
            build_dir: get("NGINX_BUILD_DIR=")?,
            binary: get("NGINX_BINARY=")?,
        })
    }

    fn to_env(&self) -> Result<String, Error> {
        Ok(format!(
            "NGINX_SOURCE_DIR={}\nNGINX_BUILD_DIR={}\nNGINX_BINARY={}\n",
            shell::quote(text(&self.source_dir)?),
            shell::quote(text(&self.build_dir)?),
            shell::quote(text(&self.binary)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn nginx(base: &str) -> Nginx {
        let base = Path::new(base);
        Nginx {
            name: "custom".to_owned(),
            dir: base.join("dir"),
            source_dir: base.join("source"),
            build_dir: base.join("objs"),
            binary: base.join("objs/nginx"),
        }
    }

    #[test]
    fn env_comes_back() {
        for base in ["/a", "/a b", "/it's", "/$HOME `id` \"x\" \\", "/two\nlines", "/é#;*"] {
            let nginx = nginx(base);
            let env = nginx.to_env().unwrap();
            assert_eq!(Nginx::from_env(&nginx.dir, "custom", &env), Some(nginx), "{env}");
        }
    }

    #[test]
    fn env_is_what_a_shell_reads() {
        let nginx = nginx("/a 'b' $HOME \"c\"");
        let script = format!("{}printf %s \"$NGINX_BINARY\"", nginx.to_env().unwrap());
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), nginx.binary.to_str().unwrap());
    }

    #[test]
    fn plain_paths_stay_plain() {
        let env = nginx("/w").to_env().unwrap();
        assert!(env.starts_with("NGINX_SOURCE_DIR=/w/source\nNGINX_BUILD_DIR=/w/objs\n"), "{env}");
    }

    #[test]
    fn half_an_env_is_none() {
        let dir = Path::new("/d");
        assert_eq!(Nginx::from_env(dir, "x", "NGINX_SOURCE_DIR=/a\nNGINX_BUILD_DIR=/b\n"), None);
        assert_eq!(Nginx::from_env(dir, "x", "NGINX_SOURCE_DIR='/a"), None);
        assert!(matches!(Nginx::read(dir, "x"), Err(Error::NotReady { .. })));
    }

    #[test]
    fn the_module_is_next_to_its_nginx() {
        let path = nginx("/w").module_path();
        assert_eq!(path, Path::new("/w/dir/ngx_http_upstream_diag_module.so"));
    }
}
