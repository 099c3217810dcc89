//! Writes the documents that are made from the code into a directory (`make docs`).

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "docs".into()));
    for (name, text) in diagnosis::runbook::documents() {
        std::fs::write(directory.join(name), text)?;
    }
    Ok(())
}
