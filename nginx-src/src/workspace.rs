use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// One of the nginxes this program knows how to make ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Built from the sources of a release.
    Release,
    /// The distribution's.
    Debian,
    /// A tree that the user has configured.
    Custom,
}

impl Name {
    /// Which nginx is meant: an explicit name (the argument, then `NGINX`)
    /// comes before the guess from the variables that point at a tree.
    ///
    /// # Errors
    ///
    /// When the name is none that exists.
    pub fn choose(
        arg: Option<&str>,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let var = |key| var(key).filter(|value| !value.is_empty());
        let named = arg.map(str::to_owned);
        let named = named.or_else(|| Some(var("NGINX")?.to_string_lossy().into_owned()));
        match named.as_deref() {
            Some("release") => Ok(Self::Release),
            Some("debian") => Ok(Self::Debian),
            Some("custom") => Ok(Self::Custom),
            Some(other) => Err(Error::Name(other.to_owned())),
            None if var("NGINX_SOURCE_DIR").or(var("NGINX_BUILD_DIR")).is_some() => {
                Ok(Self::Custom)
            }
            None => Ok(Self::Release),
        }
    }

    /// The name as given on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debian => "debian",
            Self::Custom => "custom",
        }
    }
}

/// What an nginx is made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Building the module, and running it.
    Build,
    /// Also its tests: other programs are run by some.
    Tests,
    /// Also measuring: with other programs, and next to other modules.
    Bench,
}

/// The Cargo workspace that this package is a member of.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// Looks from the package that cargo runs (this one, or the tests), then
    /// where this was compiled. Asking cargo would take longer than all else
    /// that a run with nothing to do does.
    pub(crate) fn find() -> Result<Self, Error> {
        let compiled = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let running = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = running.iter().chain([&compiled]).find_map(|dir| {
            dir.ancestors().find(|dir| {
                dir.join("nginx-src/Cargo.toml").is_file() && dir.join("Cargo.toml").is_file()
            })
        });
        Ok(Self { root: root.ok_or(Error::Workspace)?.to_owned() })
    }

    /// Where the nginx called `name` lives. A relative `CARGO_TARGET_DIR` is
    /// taken from the workspace: cargo runs tests in other directories.
    pub(crate) fn nginx_dir(&self, name: &str) -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
        let target = target.map_or_else(|| PathBuf::from("target"), PathBuf::from);
        self.root.join(target).join("nginx").join(name)
    }

    /// The version and the checksum that Cargo.lock has for `package`.
    pub(crate) fn locked(&self, package: &str) -> Result<(String, String), Error> {
        let path = self.root.join("Cargo.lock");
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        locked(&text, package).ok_or_else(|| {
            Error::Unexpected(format!("{}: it does not have {package}", path.display()))
        })
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("Cargo.toml")
    }
}

fn locked(text: &str, package: &str) -> Option<(String, String)> {
    let field = |block: &str, key: &str| {
        let mut fields = block.lines().filter_map(|line| line.split_once(" = "));
        Some(fields.find(|field| field.0 == key)?.1.trim_matches('"').to_owned())
    };
    let mut blocks = text.split("[[package]]");
    let block = blocks.find(|block| field(block, "name").as_deref() == Some(package))?;
    Some((field(block, "version")?, field(block, "checksum").unwrap_or_default()))
}

/// `path` as text; paths end up in files and flags that are text.
pub(crate) fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Unexpected(format!("{}: not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(arg: Option<&str>, vars: &[(&str, &str)]) -> Result<Name, Error> {
        Name::choose(arg, |key| {
            vars.iter().find(|var| var.0 == key).map(|var| OsString::from(var.1))
        })
    }

    #[test]
    fn an_explicit_name_wins() {
        let tree = [("NGINX_BUILD_DIR", "/objs")];
        assert_eq!(choose(None, &[]).unwrap(), Name::Release);
        assert_eq!(choose(None, &[("NGINX", "")]).unwrap(), Name::Release);
        assert_eq!(choose(None, &[("NGINX", "debian")]).unwrap(), Name::Debian);
        assert_eq!(choose(None, &tree).unwrap(), Name::Custom);
        assert_eq!(choose(None, &[tree[0], ("NGINX", "debian")]).unwrap(), Name::Debian);
        assert_eq!(choose(Some("release"), &tree).unwrap(), Name::Release);
        assert_eq!(choose(Some("custom"), &[]).unwrap(), Name::Custom);
        assert!(matches!(choose(Some("../x"), &[]), Err(Error::Name(name)) if name == "../x"));
    }

    #[test]
    fn reads_cargo_lock() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2.0.0+3\"\nsource = \"registry+x\"\n\
                    checksum = \"abc\"\ndependencies = [\n \"a\",\n]\n";
        assert_eq!(locked(text, "b").unwrap(), ("2.0.0+3".to_owned(), "abc".to_owned()));
        assert_eq!(locked(text, "a").unwrap(), ("1.0.0".to_owned(), String::new()));
        assert_eq!(locked(text, "c"), None);
    }
}
