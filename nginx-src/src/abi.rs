//! Does a configured tree match a program? nginx loads a module only if both
//! have the same signature: a string of what their headers depend on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::nginx::Nginx;
use crate::{Error, steps};

/// Stands before the signature in the preprocessor's output.
const MARK: &str = "nginx_setup_signature";

/// Compares the signatures of the tree and of the program of `nginx`.
pub(crate) fn check(nginx: &Nginx) -> Result<(), Error> {
    let expected = expand(nginx)?;
    let binary = fs::read(&nginx.binary).map_err(Error::io(&nginx.binary))?;
    let found = signatures(&binary, expected.get(..6).unwrap_or(&expected));
    if found.contains(&expected) {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "{} would not load a module built for {}: their signatures differ\n  \
         program: {}\n  tree:    {expected}",
        nginx.binary.display(),
        nginx.build_dir.display(),
        if found.is_empty() { "none found".to_owned() } else { found.join(", ") },
    )))
}

/// What `NGX_MODULE_SIGNATURE` is in the configured tree.
fn expand(nginx: &Nginx) -> Result<String, Error> {
    let probe = nginx.dir.join("signature.c");
    let code =
        format!("#include <ngx_config.h>\n#include <ngx_core.h>\n{MARK} NGX_MODULE_SIGNATURE\n");
    fs::write(&probe, code).map_err(Error::io(&probe))?;
    let mut cc = Command::new("cc");
    cc.arg("-E").arg("-P");
    for dir in nginx.include_dirs() {
        cc.arg("-I").arg(dir);
    }
    let (text, _) = steps::output("reading nginx's signature", cc.arg(&probe))?;
    signature(&text).ok_or_else(|| unreadable(&nginx.source_dir))
}

fn unreadable(source: &Path) -> Error {
    Error::Unexpected(format!("{}: cannot tell the signature of modules", source.display()))
}

/// Joins the string literals after the mark.
fn signature(preprocessed: &str) -> Option<String> {
    let (_, literals) = preprocessed.split_once(MARK)?;
    let signature: String = literals.split('"').skip(1).step_by(2).collect();
    (!signature.is_empty()).then_some(signature)
}

/// The strings in `binary` that start with `start` and look like a signature.
fn signatures(binary: &[u8], start: &str) -> Vec<String> {
    let strings = binary.split(|byte| !matches!(byte, b'0'..=b'9' | b','));
    strings
        .filter(|string| string.starts_with(start.as_bytes()))
        .map(|string| String::from_utf8_lossy(string).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_literals() {
        let text = "int x = \"y\";\nnginx_setup_signature \"8\" \",\" \"4\" \",\"\n \"8\" \",\" \"00\" \"1\"\n";
        assert_eq!(signature(text).unwrap(), "8,4,8,001");
        assert_eq!(signature("nginx_setup_signature NGX_MODULE_SIGNATURE\n"), None);
        assert_eq!(signature("\"8\""), None);
    }

    #[test]
    fn finds_signatures() {
        let binary = b"\x7fELF\0x8,4,8\08,4,8,0011\0a\08,4,8,0010\0,8,4,8,1\0";
        assert_eq!(signatures(binary, "8,4,8,"), ["8,4,8,0011", "8,4,8,0010"]);
        assert!(signatures(b"", "8,4,8,").is_empty());
    }
}
