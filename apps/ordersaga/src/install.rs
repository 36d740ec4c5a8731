//! What the machine must have, and how Debian and Ubuntu get it.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use ordersaga_devstack::programs::{self, JAVA_SINCE, POSTGRES_SINCE};

/// What was found of the things needed.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that is there or not")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Machine {
    postgres: Option<u32>,
    redis: bool,
    java: Option<u32>,
    compilers: bool,
    make: bool,
    openssl: bool,
}

/// Something that is needed and not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Postgres,
    Redis,
    Java,
    Compilers,
    Make,
    Openssl,
    Python,
    Browser,
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres => write!(formatter, "PostgreSQL server, {POSTGRES_SINCE} or newer"),
            Self::Redis => formatter.write_str("Redis server"),
            Self::Java => write!(formatter, "Java runtime, {JAVA_SINCE} or newer (for the broker)"),
            Self::Compilers => formatter.write_str("C and C++ compilers (for librdkafka)"),
            Self::Make => formatter.write_str("make (for librdkafka)"),
            Self::Openssl => formatter.write_str("OpenSSL to compile with (for librdkafka)"),
            Self::Browser => formatter.write_str("Chromium and npm (for the order desk's test)"),
            Self::Python => formatter.write_str("Python 3 with venv (for tests and schemathesis)"),
        }
    }
}

impl Machine {
    fn look() -> Self {
        let there = |name| programs::find(name).is_some();
        Self {
            postgres: programs::postgres().map(|(version, _)| version),
            redis: there("redis-server"),
            java: programs::java().map(|(version, _)| version),
            compilers: there("cc") && there("c++"),
            make: there("make"),
            openssl: there("pkg-config") && has_openssl(),
        }
    }

    fn missing(&self) -> Vec<Need> {
        let old = |found: Option<u32>, since| found.is_none_or(|version| version < since);
        [
            (old(self.postgres, POSTGRES_SINCE), Need::Postgres),
            (!self.redis, Need::Redis),
            (old(self.java, JAVA_SINCE), Need::Java),
            (!self.compilers, Need::Compilers),
            (!self.make, Need::Make),
            (!self.openssl, Need::Openssl),
        ]
        .into_iter()
        .filter_map(|(missing, need)| missing.then_some(need))
        .collect()
    }
}

/// Asked as its own build script asks.
fn has_openssl() -> bool {
    let probe = Command::new("pkg-config").args(["--exists", "openssl"]).status();
    probe.is_ok_and(|status| status.success())
}

/// The packages for what is missing. `system` is the text of /etc/os-release.
fn packages(needs: &[Need], system: &str) -> Vec<&'static str> {
    let names = needs.iter().flat_map(|need| match need {
        Need::Postgres => ["postgresql"].as_slice(),
        Need::Redis => &["redis-server"],
        Need::Java if has_java_21(system) => &["openjdk-21-jre-headless"],
        Need::Java => &["openjdk-17-jre-headless"],
        Need::Compilers => &["gcc", "g++"],
        Need::Make => &["make"],
        Need::Openssl => &["libssl-dev", "pkg-config"],
        Need::Python => &["python3", "python3-venv"],
        Need::Browser if programs::find("npm").is_some() => &["chromium"],
        Need::Browser => &["chromium", "npm"],
    });
    names.copied().collect()
}

/// Debian has Java 21 since 13; every Ubuntu that is still cared for has it.
fn has_java_21(system: &str) -> bool {
    let field = |name: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches('"'))
    };
    let version =
        field("VERSION_ID=").and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (field("ID="), version) {
        (Some("debian"), Some(version)) => version >= 13,
        _ => true,
    }
}

/// The commands that install these packages.
fn commands(packages: &[&str], root: bool) -> [Vec<String>; 2] {
    let sudo: &[&str] = if root { &[] } else { &["sudo"] };
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    // Another installation may be at work for a moment, as on a freshly started machine.
    let options = ["-qq", "-o", "DPkg::Lock::Timeout=300"];
    let line = |action: &[&str]| {
        let words = [sudo, &apt, &options, action].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let install = [["install", "--yes", "--no-install-recommends"].as_slice(), packages].concat();
    [line(&["update"]), line(&install)]
}

/// What is missing to build and run everything, by name.
pub(crate) fn missing() -> Vec<String> {
    Machine::look().missing().iter().map(ToString::to_string).collect()
}

/// What is there of it, with versions.
pub(crate) fn found() -> String {
    let Machine { postgres, redis, java, compilers, make, openssl } = Machine::look();
    let version = |name: &str, version: Option<u32>| version.map(|at| format!("{name} {at}"));
    let plain = |name: &str, is_there: bool| is_there.then(|| name.to_owned());
    let found = [
        version("PostgreSQL", postgres),
        plain("Redis", redis),
        version("Java", java),
        plain("compilers", compilers),
        plain("make", make),
        plain("OpenSSL", openssl),
    ];
    found.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Installs what is missing, having said how. With `only_say` it says so and fails instead.
pub(crate) fn ensure(only_say: bool) -> Result<()> {
    let missing = Machine::look().missing();
    if missing.is_empty() {
        return Ok(());
    }
    get(&missing, only_say)?;
    check()
}

/// The same for Python, which only testing and fuzzing need.
pub(crate) fn ensure_python(only_say: bool) -> Result<()> {
    // Debian has venv apart from Python, and without the second module it makes no pip.
    let probe = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if probe.is_ok_and(|probe| probe.status.success()) {
        Ok(())
    } else {
        get(&[Need::Python], only_say)
    }
}

/// The same for a browser, which only the order desk's test needs.
pub(crate) fn ensure_browser(only_say: bool) -> Result<()> {
    let is_there = ["chromium", "npm"].iter().all(|name| programs::find(name).is_some());
    if is_there { Ok(()) } else { get(&[Need::Browser], only_say) }
}

fn get(missing: &[Need], only_say: bool) -> Result<()> {
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    say_error!("Missing on this machine:\n  {}", names.join("\n  "));
    if programs::find("apt-get").is_none() {
        bail!(
            "this machine has no apt-get: install what is missing by its own means and try again"
        );
    }
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let root = rustix::process::geteuid().is_root();
    let commands = commands(&packages(missing, &system), root);
    let verb = if only_say { "To install it" } else { "Installing it" };
    say_error!("{verb}:\n  {}", commands.each_ref().map(|words| words.join(" ")).join("\n  "));
    if only_say {
        bail!("something is missing");
    }
    if !root && programs::find("sudo").is_none() {
        bail!("neither root nor sudo: let an administrator run the commands above");
    }
    commands.iter().try_for_each(|words| execute(words))
}

fn execute(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // Standard output is what a command was called for.
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{}: {status}", words.join(" "));
    }
    Ok(())
}

/// After installing: an old distribution may only have an old version.
fn check() -> Result<()> {
    let machine = Machine::look();
    let missing = machine.missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
    bail!(
        "still missing after the installation (this distribution may be too old): {}; found: {machine:?}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Machine {
        Machine {
            postgres: Some(15),
            redis: true,
            java: Some(17),
            compilers: true,
            make: true,
            openssl: true,
        }
    }

    #[test]
    fn a_complete_machine_misses_nothing() {
        assert_eq!(complete().missing(), []);
    }

    #[test]
    fn a_bare_machine_misses_everything() {
        let all =
            [Need::Postgres, Need::Redis, Need::Java, Need::Compilers, Need::Make, Need::Openssl];
        assert_eq!(Machine::default().missing(), all);
    }

    #[test]
    fn too_old_is_missing() {
        let old = Machine { postgres: Some(14), java: Some(11), ..complete() };
        assert_eq!(old.missing(), [Need::Postgres, Need::Java]);
    }

    #[test]
    fn the_java_package_fits_the_distribution() {
        let java = |system| packages(&[Need::Java], system);
        assert_eq!(java("ID=debian\nVERSION_ID=\"12\"\n"), ["openjdk-17-jre-headless"]);
        assert_eq!(java("ID=debian\nVERSION_ID=\"13\"\n"), ["openjdk-21-jre-headless"]);
        assert_eq!(java("ID=ubuntu\nVERSION_ID=\"22.04\"\n"), ["openjdk-21-jre-headless"]);
    }

    #[test]
    fn says_the_exact_commands() {
        let [update, install] = commands(&["redis-server", "make"], false);
        let apt = "sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300";
        assert_eq!(update.join(" "), format!("{apt} update"));
        assert_eq!(
            install.join(" "),
            format!("{apt} install --yes --no-install-recommends redis-server make")
        );
        assert_eq!(commands(&[], true)[0][0], "env");
    }
}
