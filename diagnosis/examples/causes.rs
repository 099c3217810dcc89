//! Prints the runbook, docs/causes.md (`make docs`).

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    io::stdout().write_all(diagnosis::runbook::causes().as_bytes())
}
