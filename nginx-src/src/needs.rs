//! Which system packages are needed, and what to do about missing ones.

use crate::workspace::{Name, Purpose};

/// How to tell that a package's content is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A program, from whichever package: `cc` may be gcc or clang.
    Program(&'static str),
    /// A C header.
    Header(&'static str),
    /// libclang, in any version.
    Libclang,
    /// The package itself.
    Package,
}

/// A system package, by its Debian name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) package: &'static str,
    pub(crate) probe: Probe,
}

const fn need(package: &'static str, probe: Probe) -> Need {
    Need { package, probe }
}

const COMMON: &[Need] = &[
    need("gcc", Probe::Program("cc")),
    need("libc6-dev", Probe::Header("stdlib.h")),
    need("make", Probe::Program("make")),
    // nginx's headers include theirs: the bindings need them even where
    // nginx itself is not compiled.
    need("libpcre2-dev", Probe::Header("pcre2.h")),
    need("libssl-dev", Probe::Header("openssl/ssl.h")),
    need("zlib1g-dev", Probe::Header("zlib.h")),
    // For bindgen.
    need("libclang-dev", Probe::Libclang),
    // For tests in network namespaces.
    need("iproute2", Probe::Program("ip")),
    need("util-linux", Probe::Program("unshare")),
];

const DEBIAN: &[Need] = &[need("nginx", Probe::Package), need("nginx-dev", Probe::Package)];

/// Programs that some tests run, and nothing else: without them everything can be built.
const TOOLS: &[Need] = &[
    // promtool comes with it.
    need("prometheus", Probe::Program("promtool")),
    need("rsyslog", Probe::Program("rsyslogd")),
    // Servers that are upstreams.
    need("nodejs", Probe::Program("node")),
    need("gunicorn", Probe::Program("gunicorn")),
    // The program's name has the version in it.
    need("php-fpm", Probe::Package),
    need("uwsgi-core", Probe::Program("uwsgi-core")),
    need("uwsgi-plugin-python3", Probe::Package),
    need("openssl", Probe::Program("openssl")),
];

/// Programs that only measuring needs.
const BENCH: &[Need] = &[
    need("valgrind", Probe::Program("valgrind")),
    need("strace", Probe::Program("strace")),
    need("wrk", Probe::Program("wrk")),
];

/// What the module is compared with, in the nginx of the distribution.
const BENCH_DEBIAN: &[Need] = &[
    need("libnginx-mod-http-lua", Probe::Package),
    need("lua-cjson", Probe::Package),
    need("libnginx-mod-http-js", Probe::Package),
];

/// What the nginx called `name` needs, and what is to be done with it.
pub(crate) fn needs(name: Name, purpose: Purpose) -> impl Iterator<Item = Need> {
    let debian = name == Name::Debian;
    let nginx = if debian { DEBIAN } else { &[] };
    let (tools, others): (&[Need], &[Need]) = match purpose {
        Purpose::Build => (&[], &[]),
        Purpose::Tests => (TOOLS, &[]),
        Purpose::Bench => (BENCH, if debian { BENCH_DEBIAN } else { &[] }),
    };
    COMMON.iter().chain(nginx).chain(tools).chain(others).copied()
}

/// What to do about missing packages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing is missing.
    Ready,
    /// Install them.
    Install,
    /// Go on without them, and tell the user so in these words.
    Mention(String),
    /// Tell the user, in these words.
    Refuse(String),
}

/// Decides what to do about the packages `missing`.
pub(crate) fn plan(missing: &[&str], apt: bool, root: bool) -> Plan {
    if missing.is_empty() {
        return Plan::Ready;
    }
    let list = missing.join(" ");
    let among = |needs: &[Need], package: &str| needs.iter().any(|need| need.package == package);
    let on_debian_only = missing.iter().any(|package| among(DEBIAN, package));
    let only_tools = missing.iter().all(|package| among(TOOLS, package));
    match (apt, root) {
        (true, true) => Plan::Install,
        _ if only_tools => Plan::Mention(format!("some tests will fail without: {list}")),
        (true, false) => Plan::Refuse(format!(
            "missing system packages: {list}\ninstall them, then try again:\n    \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}"
        )),
        (false, _) if on_debian_only => Plan::Refuse(format!(
            "the nginx `debian` is that of Debian or Ubuntu, and this system is neither \
             (missing: {list}); choose `release` or `custom`"
        )),
        (false, _) => Plan::Refuse(format!(
            "missing on this system, by the names Debian has for them: {list}\n\
             install what your system calls these, then try again"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_missing() {
        assert_eq!(plan(&[], true, false), Plan::Ready);
        assert_eq!(plan(&[], false, false), Plan::Ready);
    }

    #[test]
    fn root_on_debian_installs() {
        assert_eq!(plan(&["make"], true, true), Plan::Install);
    }

    #[test]
    fn a_user_on_debian_gets_the_command() {
        let Plan::Refuse(text) = plan(&["make", "zlib1g-dev"], true, false) else { panic!() };
        assert!(text.starts_with("missing system packages: make zlib1g-dev\n"), "{text}");
        let command = "sudo apt-get install -y --no-install-recommends make zlib1g-dev";
        assert!(text.ends_with(command), "{text}");
    }

    #[test]
    fn elsewhere_nothing_is_installed() {
        for root in [true, false] {
            let Plan::Refuse(text) = plan(&["make"], false, root) else { panic!() };
            assert!(text.contains("Debian has for them: make\n"), "{text}");
            let Plan::Refuse(text) = plan(&["make", "nginx-dev"], false, root) else { panic!() };
            assert!(text.contains("choose `release` or `custom`"), "{text}");
        }
    }

    /// Guards against a module that cannot be built for want of what only its tests need.
    #[test]
    fn tools_are_only_for_tests() {
        for apt in [true, false] {
            let Plan::Mention(text) = plan(&["prometheus"], apt, false) else { panic!() };
            assert!(text.ends_with(": prometheus"), "{text}");
            let Plan::Refuse(text) = plan(&["make", "prometheus"], apt, false) else { panic!() };
            assert!(text.contains("make prometheus\n"), "{text}");
        }
        assert_eq!(plan(&["prometheus"], true, true), Plan::Install);
        let has = |purpose| needs(Name::Release, purpose).any(|need| need.package == "prometheus");
        assert_eq!([Purpose::Build, Purpose::Tests].map(has), [false, true]);
    }

    #[test]
    fn only_debian_needs_the_distributions_nginx() {
        let has = |name| needs(name, Purpose::Tests).any(|need| need.package == "nginx-dev");
        assert!(has(Name::Debian));
        assert!(!has(Name::Release));
        assert!(!has(Name::Custom));
    }
    /// Guards against measuring that goes on without what it measures with.
    #[test]
    fn tools_to_measure_with() {
        let all = |name, purpose| -> Vec<_> {
            needs(name, purpose).map(|need| need.package).collect::<Vec<_>>()
        };
        assert!(all(Name::Release, Purpose::Bench).contains(&"valgrind"));
        assert!(!all(Name::Release, Purpose::Tests).contains(&"valgrind"));
        assert!(!all(Name::Release, Purpose::Bench).contains(&"libnginx-mod-http-lua"));
        assert!(all(Name::Debian, Purpose::Bench).contains(&"libnginx-mod-http-lua"));
        assert!(matches!(plan(&["valgrind"], true, false), Plan::Refuse(_)));
    }
}
