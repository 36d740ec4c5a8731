//! The broker's jars, fetched once from Maven Central and checked by their SHA-256.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::digest::sha256;

const CENTRAL: &str = "https://repo1.maven.org/maven2";
const LIST: &str = include_str!("../../../redpanda/kafka/jars.tsv");
/// Names another repository that mirrors Maven Central.
const MIRROR_VARIABLE: &str = "ORDERSAGA_MAVEN_URL";
const DOWNLOADS_AT_ONCE: usize = 6;
const ATTEMPTS: u32 = 4;

struct Jar<'a> {
    group: &'a str,
    artifact: &'a str,
    version: &'a str,
    sha256: &'a str,
}

impl Jar<'_> {
    fn file(&self) -> String {
        format!("{}-{}.jar", self.artifact, self.version)
    }

    fn url(&self, repository: &str) -> String {
        let group = self.group.replace('.', "/");
        let (artifact, version) = (self.artifact, self.version);
        format!("{repository}/{group}/{artifact}/{version}/{}", self.file())
    }
}

fn list() -> Result<Vec<Jar<'static>>> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let [group, artifact, version, sha256] = fields[..] else {
                bail!("the list of jars has a bad line: {line}");
            };
            Ok(Jar { group, artifact, version, sha256 })
        })
        .collect()
}

/// The jars in `folder`, in the order of the class path; fetches those that are not there.
pub(crate) fn fetch(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let jars = list()?;
    let missing: Vec<_> = jars.iter().filter(|jar| !folder.join(jar.file()).is_file()).collect();
    if !missing.is_empty() {
        download_all(&missing, folder)?;
    }
    Ok(jars.iter().map(|jar| folder.join(jar.file())).collect())
}

fn download_all(jars: &[&Jar<'_>], folder: &Path) -> Result<()> {
    let agent = agent();
    let repository = repository();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while let Some(jar) = jars.get(next.fetch_add(1, Ordering::Relaxed)) {
            download(&agent, &repository, jar, folder)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..DOWNLOADS_AT_ONCE).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a download thread panicked"),
            }
        }
        Ok(())
    })
}

fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_global(Some(Duration::from_mins(5)))
        .build();
    config.into()
}

fn download(agent: &Agent, repository: &str, jar: &Jar<'_>, folder: &Path) -> Result<()> {
    let url = jar.url(repository);
    let mut attempt = 1;
    let bytes = loop {
        match get(agent, &url) {
            Ok(bytes) => break bytes,
            Err(error) if attempt == ATTEMPTS => {
                return Err(error).with_context(|| format!("cannot fetch {url}"));
            }
            Err(error) => tracing::debug!(%url, attempt, error = %error, "fetching again"),
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a pause before asking a remote server again"
        )]
        std::thread::sleep(Duration::from_millis(500) * attempt);
        attempt += 1;
    };
    let found = sha256(&bytes);
    if found != jar.sha256 {
        bail!("{url} has the SHA-256 {found}, not {}", jar.sha256);
    }
    // Under its name only when whole: a name that is there needs no second check.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, &bytes)?;
    file.persist(folder.join(jar.file()))?;
    Ok(())
}

fn get(agent: &Agent, url: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut body = agent.get(url).call()?.into_body();
    body.as_reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Maven Central, or the mirror this machine is set up with.
fn repository() -> String {
    let from_variable = std::env::var(MIRROR_VARIABLE).ok();
    let from_settings = || {
        let settings = std::env::home_dir()?.join(".m2/settings.xml");
        mirror(&fs::read_to_string(settings).ok()?)
    };
    let chosen = from_variable.or_else(from_settings);
    let chosen = chosen.unwrap_or_else(|| CENTRAL.to_owned());
    chosen.trim_end_matches('/').to_owned()
}

/// The mirror of Maven Central in a Maven settings file.
fn mirror(settings: &str) -> Option<String> {
    let element = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.trim().to_owned())
    };
    settings.split("<mirror>").skip(1).find_map(|text| {
        let of = element(text, "mirrorOf")?;
        let central =
            of.split(',').any(|name| matches!(name.trim(), "*" | "central" | "external:*"));
        central.then(|| element(text, "url")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jar_has_its_sum() -> Result<()> {
        let jars = list()?;
        assert_eq!(jars.len(), 45);
        assert!(jars.iter().all(|jar| jar.sha256.len() == 64));
        let broker = jars.iter().find(|jar| jar.artifact == "kafka_2.13");
        assert_eq!(
            broker.map(|jar| jar.url(CENTRAL)).as_deref(),
            Some(
                "https://repo1.maven.org/maven2/org/apache/kafka/kafka_2.13/4.4.0/kafka_2.13-4.4.0.jar"
            )
        );
        Ok(())
    }

    #[test]
    fn finds_the_mirror_of_central() {
        let settings = "<settings><mirrors>\
            <mirror><mirrorOf>other</mirrorOf><url>https://a.example/</url></mirror>\
            <mirror><url> https://b.example/maven </url><mirrorOf>x, central</mirrorOf></mirror>\
            </mirrors></settings>";
        assert_eq!(mirror(settings).as_deref(), Some("https://b.example/maven"));
        assert_eq!(mirror("<settings/>"), None);
    }
}
