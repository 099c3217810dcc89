//! The documents made from the code are those in the repository.

/// Guards against a cause, its advice or its meaning being changed without the runbook that
/// operators read, against a message or a metric that no list has, and against a schema that tells
/// clients of a cause that is no more.
#[test]
fn the_documents_are_up_to_date() {
    for (name, made) in diagnosis::runbook::documents() {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let written = std::fs::read_to_string(path).unwrap_or_default();
        let differs = written.lines().zip(made.lines()).position(|(old, new)| old != new);
        assert!(written == made, "run `make docs`: {name} differs, first in line {differs:?}");
    }
}
