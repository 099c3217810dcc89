//! Obtains, configures, builds and caches the nginx that the module is built
//! for and tested with, under `target/nginx/<name>/`:
//!
//! - `release`: a current nginx, built from the sources in a crates.io package;
//! - `debian`: the nginx of the distribution, as in its packages;
//! - `custom`: any configured tree, named by `NGINX_SOURCE_DIR` and/or
//!   `NGINX_BUILD_DIR`.
//!
//! The binary of this package does the work; tests call [`Nginx::load`] to
//! learn where the result is.

mod abi;
mod custom;
mod debian;
mod error;
mod lock;
mod needs;
mod nginx;
mod os;
mod packages;
mod release;
mod shell;
mod steps;
mod workspace;

pub use error::Error;
pub use nginx::Nginx;
pub use workspace::{Name, Purpose};

/// Makes the nginx called `name` ready; does nothing when it already is. Also the programs that
/// the `purpose` takes.
///
/// Returns it with what its binary says about its version.
///
/// # Errors
///
/// When a system package is missing and cannot be installed, or a step of the
/// build fails.
pub fn setup(name: Name, purpose: Purpose) -> Result<(Nginx, String), Error> {
    let workspace = workspace::Workspace::find()?;
    let dir = workspace.nginx_dir(name.as_str());
    // Next to the directory, not in it: a rebuild starts by removing it.
    let _lock = lock::Lock::take(&dir.with_extension("lock"))?;
    let packages = packages::ensure(name, purpose)?;
    let nginx = match name {
        Name::Release => release::setup(&workspace, &dir)?,
        Name::Debian => debian::setup(&dir, &packages)?,
        Name::Custom => custom::setup(&dir)?,
    };
    let version = steps::version(&nginx.binary)?;
    Ok((nginx, version))
}
