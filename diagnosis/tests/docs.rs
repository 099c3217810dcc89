//! The documents made from the code are those in the repository.

/// Guards against a cause, its advice or its meaning being changed without the runbook that
/// operators read.
#[test]
fn the_runbook_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/causes.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let made = diagnosis::runbook::causes();
    let differs = written.lines().zip(made.lines()).position(|(old, new)| old != new);
    assert!(written == made, "run `make docs`: docs/causes.md differs, first in line {differs:?}");
}
