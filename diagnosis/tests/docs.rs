//! The documents made from the code are those in the repository.

/// Guards against a cause, its advice or its meaning being changed without the runbook that
/// operators read, and against a message that no list has.
#[test]
fn the_documents_are_up_to_date() {
    for (name, made) in [
        ("causes.md", diagnosis::runbook::causes()),
        ("messages.md", diagnosis::runbook::messages()),
    ] {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let written = std::fs::read_to_string(path).unwrap_or_default();
        let differs = written.lines().zip(made.lines()).position(|(old, new)| old != new);
        assert!(written == made, "run `make docs`: {name} differs, first in line {differs:?}");
    }
}
