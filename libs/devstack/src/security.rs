//! What a secured part needs: certificates of an authority made for it, and a superuser of the broker.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::TemporaryFolder;
use crate::digest::hex;
use crate::folder::User;
use crate::parts::random_bytes;
use crate::private::write_whole;

/// The broker's superuser.
pub(crate) const ADMIN: &str = "admin";

/// Secrets of secured parts, in a folder that goes with this value.
#[derive(Debug)]
pub struct Security {
    folder: TemporaryFolder,
    /// Password of the broker's superuser `admin`.
    pub admin_password: String,
    /// Password of Redis' only user, `store`.
    pub redis_password: String,
}

impl Security {
    /// An authority, a certificate of loopback signed by it, and passwords.
    pub fn new() -> Result<Self> {
        let folder = TemporaryFolder::new("security")?;
        let password = || -> Result<String> { Ok(hex(&random_bytes::<16>()?)) };
        let security = Self { folder, admin_password: password()?, redis_password: password()? };
        security.make_certificates()?;
        security.write_settings()?;
        Ok(security)
    }

    fn make_certificates(&self) -> Result<()> {
        let (issuer, authority_pem) = authority("ordersaga trial authority")?;
        let (_, stranger_pem) = authority("ordersaga trial stranger")?;
        let mut server = CertificateParams::new(["localhost".into(), "127.0.0.1".into()])?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &issuer)?.pem();
        let key = key.serialize_pem();
        write(&self.authority(), &authority_pem, 0o644)?;
        write(&self.stranger(), &stranger_pem, 0o644)?;
        write(&self.certificate(), &certificate, 0o644)?;
        write(&self.key(), &key, 0o600)?;
        write(&self.keystore(), &[key.as_str(), &certificate].concat(), 0o600)?;
        // Postgres wants its key to be its own and nobody else's to read.
        write(&self.postgres_key(), &key, 0o600)?;
        User::unprivileged()?.map_or(Ok(()), |user| user.give(&self.postgres_key()))
    }

    fn write_settings(&self) -> Result<()> {
        // Whoever comes in clear is not let in, password or not.
        let hba = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        write(&self.hba(), hba, 0o644)?;
        let rule =
            format!("user default off\nuser store on >{} {REDIS_RULE}\n", self.redis_password);
        write(&self.redis_users(), &rule, 0o600)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority's certificate: what clients are to trust.
    pub fn authority(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The certificate of an authority that has signed nothing.
    pub fn stranger(&self) -> PathBuf {
        self.file("stranger.pem")
    }

    /// The certificate of loopback.
    pub fn certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// Key and certificate, as Kafka wants them.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.file("keystore.pem")
    }

    /// The users of Redis and what each may do: its ACL file.
    pub fn redis_users(&self) -> PathBuf {
        self.file("users.acl")
    }

    fn postgres_key(&self) -> PathBuf {
        self.file("postgres.key")
    }

    fn hba(&self) -> PathBuf {
        self.file("pg_hba.conf")
    }

    /// Settings of a Postgres cluster that only takes encrypted connections.
    pub(crate) fn postgres_settings(&self) -> Vec<String> {
        let setting = |name: &str, file: PathBuf| format!("{name}={}", file.display());
        vec![
            "ssl=on".to_owned(),
            setting("ssl_cert_file", self.certificate()),
            setting("ssl_key_file", self.postgres_key()),
            setting("hba_file", self.hba()),
        ]
    }
}

/// What service-store needs of Redis.
const REDIS_RULE: &str = "resetkeys ~item:* -@all +get +set +eval +evalsha +script|load +info +ping \
                          +hello +select +client|setname";

fn write(path: &Path, content: &str, mode: u32) -> Result<()> {
    write_whole(path, content.as_bytes(), mode)
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}
