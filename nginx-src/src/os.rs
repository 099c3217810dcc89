//! Questions to the system.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Is the system Debian or made from it? Says /etc/os-release.
pub(crate) fn has_apt() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| is_debian(&text))
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

/// Does root run this? `/proc/self` belongs to the process's effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Installed packages, by name, with their versions.
pub(crate) type Packages = BTreeMap<String, String>;

/// Asks dpkg which of the packages (or patterns) `names` are installed.
pub(crate) fn installed(names: &[&str]) -> Packages {
    // Its status says if all are known, which is not the question.
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package}\\t${Version}\\t${Status}\\n"])
        .args(names)
        .stderr(Stdio::null())
        .output();
    out.map(|out| parse_installed(&String::from_utf8_lossy(&out.stdout))).unwrap_or_default()
}

fn parse_installed(text: &str) -> Packages {
    let fields = text.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (name, version, status) = (fields.next()?, fields.next()?, fields.next()?);
        // "<wanted> <errors> <state>", as in "deinstall ok config-files".
        status.ends_with(" ok installed").then(|| (name.to_owned(), version.to_owned()))
    });
    fields.collect()
}

/// Is there a libclang with its headers among `packages`?
pub(crate) fn has_libclang_package(packages: &Packages) -> bool {
    packages.keys().any(|name| {
        name.strip_prefix("libclang-").and_then(|rest| rest.strip_suffix("dev")).is_some_and(
            |version| {
                let version = version.strip_suffix('-').unwrap_or(version);
                version.chars().all(|c| c.is_ascii_digit())
            },
        )
    })
}

/// Is there a libclang where bindgen would look for it?
pub(crate) fn has_libclang_file() -> bool {
    let found = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libclang"))
    };
    program("llvm-config").is_some()
        || ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/opt/llvm/lib"]
            .iter()
            .any(|dir| found(Path::new(dir)))
}

/// PATH with the system's own directories, which a user's PATH often lacks.
fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).collect()
}

/// The same for the programs started from here.
pub(crate) fn path_for_children() -> OsString {
    env::join_paths(search_path()).unwrap_or_default()
}

/// Where the program `name` is, if anywhere.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 > 0)
    })
}

/// Can a C program include `header`?
pub(crate) fn has_header(header: &str) -> bool {
    let try_it = || {
        let mut cc = Command::new("cc")
            // pcre2.h insists on it.
            .args(["-DPCRE2_CODE_UNIT_WIDTH=8", "-E", "-x", "c", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = cc.stdin.take() {
            writeln!(stdin, "#include <{header}>")?;
        }
        cc.wait()
    };
    try_it().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_debian_and_its_children() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(is_debian("ID='debian'"));
        assert!(!is_debian("ID=fedora\nNAME=\"not debian\"\n"));
        assert!(!is_debian("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"));
        assert!(!is_debian("VARIANT_ID=debian\n# ID=debian\nID=debianish\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn removed_packages_are_not_installed() {
        let text = "make\t4.3-4.1\tinstall ok installed\n\
                    nginx\t1.22.1-9\tdeinstall ok config-files\n\
                    gcc\t\tunknown ok not-installed\n\
                    zlib1g-dev\t1:1.2.13\thold ok installed\n\
                    iproute2\t6\tinstall ok half-configured\n\
                    noise\n";
        let packages = parse_installed(text);
        let names: Vec<_> = packages.keys().map(String::as_str).collect();
        assert_eq!(names, ["make", "zlib1g-dev"]);
        assert_eq!(packages["make"], "4.3-4.1");
    }

    #[test]
    fn any_libclang_will_do() {
        let has =
            |name: &str| has_libclang_package(&Packages::from([(name.to_owned(), "1".to_owned())]));
        assert!(has("libclang-dev"));
        assert!(has("libclang-19-dev"));
        assert!(!has("libclang-common-14-dev"));
        assert!(!has("libclang-cpp14"));
        assert!(!has("libclang1-14"));
    }

    #[test]
    fn finds_programs() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-here").is_none());
    }
}
