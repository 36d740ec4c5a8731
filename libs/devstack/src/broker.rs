//! The broker as a child process: Apache Kafka in `KRaft` mode, one node.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::digest::sha256;
use crate::logs::{since, tail};
use crate::private::{private_folder, refuse_link, write_private};
use crate::process::{Launch, Process, TICK, run};
use crate::security::ADMIN;
use crate::{Security, TemporaryFolder, folder, free_port, jars, programs};

/// The broker's version: Apache Kafka.
pub const VERSION: &str = "4.4.0";
const PROPERTIES: &str = include_str!("../../../redpanda/kafka/server.properties");
/// Added for a broker that lets in only whom it knows.
const SECURE: &str = include_str!("../../../redpanda/kafka/secure.properties");
const LOGGING: &str = include_str!("../../../redpanda/kafka/log4j2.properties");
const READY: &str = "Kafka Server started";
/// The broker's files. It runs in their folder and finds them by these names: that of the folder may
/// have characters that settings cannot express, as a comma in a list of folders.
const PROPERTIES_FILE: &str = "server.properties";
const LOGGING_FILE: &str = "log4j2.properties";
const DATA: &str = "data";
/// Java can only open files whose names its locale can spell. In that of POSIX they are ASCII.
const LOCALE: (&str, &str) = ("LC_ALL", "C.UTF-8");
/// For a small machine. What a request allocates dies with it: a young generation that holds a few
/// seconds of them keeps them out of the old one, whose collection stops the broker for 100 ms.
const JVM: [&str; 6] = [
    "-Xms192m",
    "-Xmn128m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
];

/// A further way to a broker for clients behind a proxy: whoever comes in by it is told to come
/// back by it.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Where the broker listens, and the proxy connects to.
    pub listen: u16,
    /// Where the proxy listens.
    pub advertised: u16,
}

/// The ports of one broker.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// For clients.
    pub(crate) listen: u16,
    /// For the broker's own controller.
    pub(crate) controller: u16,
    /// What clients are told to connect to: `listen`, or a proxy's port in front of it.
    pub(crate) advertised: u16,
    /// Further ways in, usually none.
    pub(crate) further: Vec<Listener>,
    /// Asks for users and encrypts; then `listen` does both, and `sasl` only asks.
    pub(crate) secured: Option<Secured>,
}

/// How a broker is secured.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    pub(crate) security: Arc<Security>,
    /// The port that asks for users without encrypting, which the broker uses itself.
    pub(crate) sasl: u16,
}

/// What every broker on this machine shares, made once: jars, an archive of loaded classes, which
/// halves the time of a start, and an empty formatted data folder, which saves a run of the JVM.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    java: PathBuf,
    class_path: OsString,
    archive: PathBuf,
    formatted: PathBuf,
}

/// Makes ready what every start of a broker needs, if it is not there: fetches the jars and makes
/// the archive. Starting a broker does this by itself; done ahead it can run beside other work.
pub fn prepare() -> Result<()> {
    Kit::get().map(drop)
}

impl Kit {
    pub(crate) fn get() -> Result<Self> {
        let home = home()?;
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        // One process at a time; the lock ends with this file, however this process ends.
        let lock = fs::File::create(home.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the broker's cache")?;
        let jars = jars::fetch(&home.join("libs"))?;
        let kit = Self::at(&home, jars)?;
        if !kit.archive.is_file() {
            kit.make()?;
        }
        Ok(kit)
    }

    /// Whether nothing is left to fetch or to make.
    pub(crate) fn is_there() -> Result<bool> {
        let kit = Self::at(&home()?, Vec::new())?;
        Ok(kit.archive.is_file())
    }

    fn at(home: &Path, jars: Vec<PathBuf>) -> Result<Self> {
        let java = std::path::absolute(programs::require_java()?)?;
        // Another Java, other flags or another recipe make another archive.
        let version = programs::java_version(&java)?;
        let mut id = sha256([&version, PROPERTIES, LOGGING, &JVM.join(" ")].concat().as_bytes());
        id.truncate(12);
        Ok(Self {
            java,
            class_path: std::env::join_paths(jars)?,
            archive: home.join(format!("classes-{id}.jsa")),
            formatted: home.join(format!("formatted-{id}")),
        })
    }

    fn arguments(&self, extra: &[OsString], main: &[&str]) -> Vec<OsString> {
        let logging = format!("-Dlog4j2.configurationFile={LOGGING_FILE}").into();
        let mut arguments: Vec<OsString> = JVM.iter().map(Into::into).collect();
        arguments.extend_from_slice(extra);
        arguments.extend([logging, "-cp".into(), self.class_path.clone()]);
        arguments.extend(main.iter().map(Into::into));
        arguments
    }

    /// Formats a data folder, runs a broker on it and stops it, which writes the archive.
    fn make(&self) -> Result<()> {
        let temporary = TemporaryFolder::new("broker")?;
        let ports = Ports::free(None)?;
        let place = Place::new(temporary.path());
        place.write_settings(&ports)?;
        self.run_format(&place, &[])?;
        let _ = fs::remove_dir_all(&self.formatted);
        folder::copy(None, &place.data, &self.formatted)?;

        let archive = self.archive.with_extension("new");
        let mut dump = OsString::from("-XX:ArchiveClassesAtExit=");
        dump.push(&archive);
        let quiet = ["-Xlog:cds=off".into(), "-Xlog:cds+dynamic=off".into(), dump];
        let log = temporary.path().join("log");
        let broker = Process::start(&self.launch_with(&quiet, &place, &log))?;
        let deadline = Instant::now() + Duration::from_mins(2);
        let mut stopping = false;
        while broker.exited().is_none() {
            if Instant::now() >= deadline {
                bail!("the first run of the broker hangs:\n{}", tail(&log));
            }
            if !stopping && started(&log, 0) {
                broker.signal(Signal::TERM)?;
                stopping = true;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the condition is the loop's, with a deadline"
            )]
            std::thread::sleep(TICK);
        }
        if !stopping {
            bail!("the first run of the broker failed:\n{}", tail(&log));
        }
        // A Java that cannot make archives starts brokers without one, only slower.
        if !archive.is_file() {
            fs::write(&archive, [])?;
        }
        fs::rename(archive, &self.archive)?;
        Ok(())
    }

    /// How to start the broker whose files are in `folder`; a new folder gets its data.
    pub(crate) fn launch(&self, folder: &Path, ports: &Ports, log: &Path) -> Result<Launch> {
        let place = Place::new(folder);
        private_folder(folder)?;
        refuse_link(&place.data)?;
        place.write_settings(ports)?;
        if !place.data.is_dir() {
            self.format(&place, ports)?;
        }
        let mut shared = OsString::from("-XX:SharedArchiveFile=");
        shared.push(&self.archive);
        let archive =
            ["-Xshare:auto".into(), "-Xlog:cds=off".into(), "-Xlog:cds+dynamic=off".into(), shared];
        let usable = fs::metadata(&self.archive).is_ok_and(|file| file.len() > 0);
        let extra = if usable { &archive[..] } else { &[] };
        Ok(self.launch_with(extra, &place, log))
    }

    fn format(&self, place: &Place, ports: &Ports) -> Result<()> {
        if let Some(Secured { security, .. }) = &ports.secured {
            // Its superuser stands in the formatted data.
            let admin =
                format!("SCRAM-SHA-256=[name={ADMIN},password={}]", security.admin_password);
            return self.run_format(place, &["--add-scram", &admin]);
        }
        let new = place.data.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        folder::copy(None, &self.formatted, &new)?;
        Ok(fs::rename(new, &place.data)?)
    }

    fn run_format(&self, place: &Place, options: &[&str]) -> Result<()> {
        let identity = identity()?;
        let format = ["kafka.tools.StorageTool", "format", "-t", &identity, "-c", PROPERTIES_FILE];
        let mut command = Command::new(&self.java);
        command.args(self.arguments(&[], &[&format, options].concat()));
        run(command.current_dir(&place.folder).env(LOCALE.0, LOCALE.1)).map(drop)
    }

    fn launch_with(&self, extra: &[OsString], place: &Place, log: &Path) -> Launch {
        // A library unpacked for a broker that was killed goes with the broker's folder.
        let mut unpack = OsString::from("-Djava.io.tmpdir=");
        unpack.push(&place.folder);
        let extra: Vec<_> = extra.iter().cloned().chain([unpack]).collect();
        Launch {
            program: self.java.clone(),
            arguments: self.arguments(&extra, &["kafka.Kafka", PROPERTIES_FILE]),
            environment: [(LOCALE.0.to_owned(), LOCALE.1.to_owned())].into(),
            folder: Some(place.folder.clone()),
            log: log.to_owned(),
            death_signal: "KILL",
            user: None,
        }
    }
}

fn home() -> Result<PathBuf> {
    Ok(folder::cache_folder()?.join(format!("kafka-{VERSION}")))
}

impl Ports {
    /// Free ones; `advertised` is a proxy's port.
    pub(crate) fn free(advertised: Option<u16>) -> Result<Self> {
        let listen = free_port()?;
        Ok(Self {
            listen,
            controller: free_port()?,
            advertised: advertised.unwrap_or(listen),
            further: Vec::new(),
            secured: None,
        })
    }
}

/// Where the files of one broker are.
struct Place {
    folder: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), data: folder.join(DATA) }
    }

    fn write_settings(&self, ports: &Ports) -> Result<()> {
        let mut text = with_listeners(PROPERTIES, &ports.further);
        if let Some(Secured { security, sasl }) = &ports.secured {
            text += &SECURE
                .replace("@SASL_PORT@", &sasl.to_string())
                .replace("@ADMIN@", ADMIN)
                .replace("@PASSWORD@", &security.admin_password)
                .replace("@KEYSTORE@", &escaped(&security.keystore().to_string_lossy()));
        }
        let text = text
            .replace("@PORT@", &ports.listen.to_string())
            .replace("@CPORT@", &ports.controller.to_string())
            .replace("@ADV@", &ports.advertised.to_string())
            .replace("@DATA@", DATA);
        write_private(&self.folder.join(LOGGING_FILE), LOGGING.as_bytes())?;
        write_private(&self.folder.join(PROPERTIES_FILE), text.as_bytes())
    }
}

/// A path as it stands in a file of Java properties, which are ISO 8859-1: a backslash is doubled, and
/// other characters are units of UTF-16.
fn escaped(value: &str) -> String {
    let escape = |unit: u16| match u8::try_from(unit) {
        Ok(b'\\') => "\\\\".to_owned(),
        Ok(ascii @ b' '..=b'~') => char::from(ascii).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    value.encode_utf16().map(escape).collect()
}

/// Adds named listeners to those that a broker has anyway.
fn with_listeners(properties: &str, further: &[Listener]) -> String {
    let add = |line: &str, entry: fn(usize, &Listener) -> String| {
        let entries = further.iter().enumerate().map(|(number, listener)| entry(number, listener));
        [line.to_owned()].into_iter().chain(entries).collect::<Vec<_>>().join(",")
    };
    let line = |line: &str| match line.split_once('=') {
        Some(("listeners", _)) => {
            add(line, |number, listener| format!("PROXY{number}://127.0.0.1:{}", listener.listen))
        }
        Some(("advertised.listeners", _)) => add(line, |number, listener| {
            format!("PROXY{number}://127.0.0.1:{}", listener.advertised)
        }),
        Some(("listener.security.protocol.map", _)) => {
            add(line, |number, _| format!("PROXY{number}:PLAINTEXT"))
        }
        _ => line.to_owned(),
    };
    properties.lines().map(|text| line(text) + "\n").collect()
}

/// A cluster id as Kafka writes them: 16 bytes in base64url. The first and last character are
/// fixed: an id may not begin with a dash, and the last one holds only four bits.
fn identity() -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let random = crate::parts::random_bytes::<20>()?;
    let middle = random.map(|byte| char::from(ALPHABET[usize::from(byte % 64)]));
    Ok(format!("E{}g", middle.iter().collect::<String>()))
}

/// Whether the folder has a broker's data.
pub(crate) fn exists(folder: &Path) -> bool {
    Place::new(folder).data.join("meta.properties").is_file()
}

/// Whether the broker whose log began at `offset` says that it has started: its port is open
/// earlier than it answers.
pub(crate) fn started(log: &Path, offset: u64) -> bool {
    since(log, offset).contains(READY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_java_reads_them() {
        assert_eq!(escaped("/tmp/a b,c=d/key.pem"), "/tmp/a b,c=d/key.pem");
        assert_eq!(escaped("/дом\\🦀"), "/\\u0434\\u043e\\u043c\\\\\\ud83e\\udd80");
    }

    #[test]
    fn further_listeners_change_three_lines_and_nothing_else() {
        assert_eq!(with_listeners(PROPERTIES, &[]).trim_end(), PROPERTIES.trim_end());
        let further =
            [Listener { listen: 11, advertised: 12 }, Listener { listen: 21, advertised: 22 }];
        let text = with_listeners(PROPERTIES, &further);
        let changed: Vec<_> =
            text.lines().zip(PROPERTIES.lines()).filter(|(new, old)| new != old).collect();
        let ends = [
            ",PROXY0://127.0.0.1:11,PROXY1://127.0.0.1:21",
            ",PROXY0://127.0.0.1:12,PROXY1://127.0.0.1:22",
            ",PROXY0:PLAINTEXT,PROXY1:PLAINTEXT",
        ];
        assert_eq!(changed.len(), ends.len());
        for ((new, old), end) in changed.into_iter().zip(ends) {
            assert_eq!(new, format!("{old}{end}"));
        }
    }
}
