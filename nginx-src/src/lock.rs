use std::fs::{self, File};
use std::path::Path;

use crate::Error;

/// Keeps a second `nginx-setup` from building in the same directory at the
/// same time. The kernel drops it with the file, so a crash leaves nothing.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop")] File);

impl Lock {
    /// Waits for the lock on `path`, whose parent directory is made if needed.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let file = File::create(path).map_err(Error::io(path))?;
        file.lock().map_err(Error::io(path))?;
        Ok(Self(file))
    }
}
