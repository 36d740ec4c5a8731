//! Where the parts of a stack are and how to get in: what is kept in its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::{Deserialize, Deserializer, Serialize};

use crate::databases::{Databases, Server};
use crate::digest::hex;
use crate::folder::elsewhere;
use crate::names::Cluster;
use crate::ports::{free_port, is_free};
use crate::postgres;
use crate::private::{own_folder, write_private};

/// Passwords of the roles of one cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct Passwords {
    /// Of `postgres`: the same in every cluster of a stack, since they begin as copies of one. It is
    /// the stack's own way in; no service has it.
    pub superuser: String,
    /// Of `ordersaga_owner`.
    pub owner: String,
    /// Of `ordersaga_service`.
    pub service: String,
    /// Of `ordersaga_fdw`.
    pub fdw: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passwords(…)")
    }
}

impl Passwords {
    /// New ones, of letters and digits only: they need no escaping in a URL.
    pub fn random() -> Result<Self> {
        let password = || -> Result<String> { Ok(hex(&random_bytes::<16>()?)) };
        Ok(Self {
            superuser: password()?,
            owner: password()?,
            service: password()?,
            fdw: password()?,
        })
    }

    /// New ones, but for the superuser's.
    fn renewed(&self) -> Result<Self> {
        Ok(Self { superuser: self.superuser.clone(), ..Self::random()? })
    }
}

/// Passwords by cluster. An older version kept one set, which was the same in every cluster.
fn by_cluster<'de, D>(kept: D) -> Result<BTreeMap<Cluster, Passwords>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        ByCluster(BTreeMap<Cluster, Passwords>),
        Same(Passwords),
    }
    Ok(match Kept::deserialize(kept)? {
        Kept::ByCluster(passwords) => passwords,
        Kept::Same(same) => Cluster::ALL.map(|cluster| (cluster, same.clone())).into(),
    })
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut source = fs::File::open("/dev/urandom").context("no source of random bytes")?;
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The addresses and passwords of one stack's parts, running or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parts {
    /// Where their data are.
    pub folder: PathBuf,
    /// Port of each Postgres cluster.
    pub clusters: BTreeMap<Cluster, u16>,
    /// Port of Redis.
    pub redis: u16,
    /// Port of the broker.
    pub broker: u16,
    /// Port of the broker's controller.
    pub controller: u16,
    /// Passwords of the database roles, of each cluster its own.
    #[serde(deserialize_with = "by_cluster")]
    pub passwords: BTreeMap<Cluster, Passwords>,
}

impl Parts {
    /// The parts whose data are in `folder`, with the ports and passwords kept there; a new folder
    /// gets new ones. A port that somebody else has taken since is replaced, except `broker`.
    pub fn open(folder: &Path, broker: Option<u16>) -> Result<Self> {
        own_folder(folder)?;
        let folder = folder.canonicalize()?;
        let file = folder.join("parts.json");
        let mut parts = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse_lost(&folder)?;
                Self::new(&folder)?
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        parts.folder = folder;
        parts.choose_ports(broker)?;
        parts.separate_passwords()?;
        parts.save(&file)?;
        Ok(parts)
    }

    fn new(folder: &Path) -> Result<Self> {
        let first = Passwords::random()?;
        let passwords = Cluster::ALL.into_iter().map(|cluster| Ok((cluster, first.renewed()?)));
        Ok(Self {
            folder: folder.to_owned(),
            clusters: Cluster::ALL.map(|cluster| (cluster, 0)).into(),
            redis: 0,
            broker: 0,
            controller: 0,
            passwords: passwords.collect::<Result<_>>()?,
        })
    }

    /// Replaces those that an older version gave to several clusters. [`Parts::provision`] makes it
    /// so in the clusters.
    fn separate_passwords(&mut self) -> Result<()> {
        let owners = self.passwords.values().map(|one| &one.owner).collect::<BTreeSet<_>>().len();
        if owners < Cluster::ALL.len() {
            for passwords in self.passwords.values_mut() {
                *passwords = passwords.renewed()?;
            }
        }
        Ok(())
    }

    fn choose_ports(&mut self, broker: Option<u16>) -> Result<()> {
        if let Some(port) = broker {
            self.broker = port;
        }
        let broker_is_given = broker.is_some();
        let free = |port: &mut u16| -> Result<()> {
            if *port == 0 || !is_free(*port) {
                *port = free_port()?;
            }
            Ok(())
        };
        self.clusters.values_mut().try_for_each(free)?;
        free(&mut self.redis)?;
        free(&mut self.controller)?;
        if !broker_is_given {
            free(&mut self.broker)?;
        }
        Ok(())
    }

    /// Writes them for another process; only the own user may read the file.
    pub fn save(&self, file: &Path) -> Result<()> {
        write_private(file, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads what [`Parts::save`] wrote.
    pub fn load(file: &Path) -> Result<Self> {
        let context = || format!("cannot read {}", file.display());
        let text = fs::read(file).with_context(context)?;
        serde_json::from_slice(&text).with_context(context)
    }

    /// One of the Postgres servers.
    pub fn server(&self, cluster: Cluster) -> Server {
        Server {
            port: self.clusters.get(&cluster).copied().unwrap_or_default(),
            passwords: self.passwords[&cluster].clone(),
        }
    }

    /// Host and port of the broker.
    pub fn broker_address(&self) -> String {
        format!("127.0.0.1:{}", self.broker)
    }

    /// URL of Redis.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.redis)
    }

    /// The databases of a running stack.
    pub fn databases(&self) -> Databases {
        let database = |cluster: Cluster| self.server(cluster).database(cluster.database());
        Databases::new(Cluster::ALL.map(|cluster| (cluster, database(cluster))).into())
    }

    /// Makes one database per cluster, with roles and rights and without tables: `store` for the
    /// empty prefix, `t7_store` for `t7`. Those that exist keep their content.
    pub async fn provision(&self, prefix: &str) -> Result<Databases> {
        let databases = Cluster::ALL.map(|cluster| async move {
            let name = named(prefix, cluster);
            let database = self.server(cluster).create_database(cluster, &name).await?;
            anyhow::Ok((cluster, database))
        });
        let databases = try_join_all(databases).await?;
        Ok(Databases::new(databases.into_iter().collect()))
    }

    /// Drops the databases of [`Parts::provision`], connections or not.
    pub async fn drop_databases(&self, prefix: &str) -> Result<()> {
        for cluster in Cluster::ALL {
            let name = named(prefix, cluster);
            self.server(cluster).drop_database(&name).await?;
        }
        Ok(())
    }
}

fn named(prefix: &str, cluster: Cluster) -> String {
    match prefix {
        "" => cluster.database().to_owned(),
        prefix => format!("{prefix}_{}", cluster.database()),
    }
}

/// With new passwords nobody would get into databases that are there.
fn refuse_lost(folder: &Path) -> Result<()> {
    let usual = folder.join("postgres");
    for clusters in [elsewhere(&usual), usual] {
        let exists = |cluster: &Cluster| postgres::exists(&clusters.join(cluster.name()));
        ensure!(
            !Cluster::ALL.iter().any(exists),
            "{folder}/parts.json is gone, and with it the passwords of the databases in {clusters}: \
             put it back from a copy. To begin without those databases, move {clusters} and \
             {folder}/broker away, or choose another folder with --data",
            folder = folder.display(),
            clusters = clusters.display(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_keeps_its_ports_and_passwords() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let first = Parts::open(folder.path(), Some(9092))?;
        let second = Parts::open(folder.path(), Some(9092))?;
        assert_eq!(first.clusters, second.clusters);
        let owner = |parts: &Parts| parts.server(Cluster::Store).passwords.owner;
        assert_eq!(owner(&first), owner(&second));
        assert_eq!(second.broker, 9092);
        let mode = fs::metadata(folder.path().join("parts.json"))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Ok(())
    }

    #[test]
    fn each_cluster_gets_passwords_of_its_own_where_an_older_version_kept_the_same() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("parts.json");
        let mut kept = serde_json::to_value(Parts::open(folder.path(), None)?)?;
        let same = Passwords::random()?;
        kept["passwords"] = serde_json::to_value(&same)?;
        fs::write(&file, serde_json::to_vec(&kept)?)?;
        // A stack of that version that runs has these.
        let running = Parts::load(&file)?;
        assert_eq!(running.server(Cluster::Shard2).passwords.owner, same.owner);
        let parts = Parts::open(folder.path(), None)?;
        let owners: BTreeSet<_> = parts.passwords.values().map(|one| &one.owner).collect();
        assert_eq!(owners.len(), Cluster::ALL.len());
        assert!(!owners.contains(&same.owner));
        assert!(parts.passwords.values().all(|one| one.superuser == same.superuser));
        let again = Parts::open(folder.path(), None)?;
        assert_eq!(
            again.server(Cluster::Store).passwords.owner,
            parts.server(Cluster::Store).passwords.owner
        );
        Ok(())
    }

    #[test]
    fn lost_passwords_are_no_new_ones() -> Result<()> {
        let folder = tempfile::tempdir()?;
        Parts::open(folder.path(), None)?;
        let cluster = folder.path().join("postgres/shard2");
        fs::create_dir_all(&cluster)?;
        fs::write(cluster.join("PG_VERSION"), "15")?;
        let file = folder.path().join("parts.json");
        let kept = fs::read(&file)?;
        fs::remove_file(&file)?;
        let error = Parts::open(folder.path(), None).err().context("opened")?.to_string();
        assert!(error.contains("parts.json is gone"), "{error}");
        assert!(!file.exists());
        fs::write(&file, kept)?;
        Parts::open(folder.path(), None).map(drop)
    }

    #[test]
    fn a_taken_port_is_replaced() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let first = Parts::open(folder.path(), None)?;
        let _taken = std::net::TcpListener::bind(("127.0.0.1", first.redis))?;
        let second = Parts::open(folder.path(), None)?;
        assert_ne!(first.redis, second.redis);
        assert_eq!(first.broker, second.broker);
        Ok(())
    }
}
