use std::io;
use std::path::{Path, PathBuf};

/// Why an nginx could not be made ready or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong arguments.
    #[error("{0}")]
    Usage(&'static str),
    /// No nginx goes by this name.
    #[error("no nginx is called {0:?}: expected release, debian or custom")]
    Name(String),
    /// The files of the workspace are not where they should be.
    #[error("cannot find the workspace: run this from inside it")]
    Workspace,
    /// `setup` has not run for this nginx, or its files have gone since.
    #[error("nginx {name} is not set up ({why}): run `cargo run -p nginx-setup -- {name}`")]
    NotReady {
        /// The nginx asked for.
        name: String,
        /// What was looked for and not found.
        why: String,
    },
    /// System packages are missing and were not installed.
    #[error("{0}")]
    Packages(String),
    /// A file or directory could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{what} failed ({status}):\n{output}")]
    Failed {
        /// The step that failed.
        what: String,
        /// How the program ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something read is not what it is expected to be.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// For `map_err`: says which path an I/O error is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// For `map_err`: says which program could not be started.
    pub(crate) fn spawn(program: impl AsRef<std::ffi::OsStr>) -> impl FnOnce(io::Error) -> Self {
        let program = program.as_ref().to_string_lossy().into_owned();
        move |source| Self::Spawn { program, source }
    }
}
