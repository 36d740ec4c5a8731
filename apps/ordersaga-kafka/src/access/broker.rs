//! Users and rights on a broker. librdkafka's Rust binding knows neither SCRAM users (KIP-554) nor
//! ACLs; `krafka` does.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use krafka::admin::{
    AclBinding, AclFilter, AclOperation, AclPatternType, AclPermissionType, AclResourceType,
    AdminClient, AlterUserScramCredentialsOptions, CreateAclsOptions, DeleteAclsOptions,
    DescribeAclsOptions, DescribeUserScramCredentialsOptions, ScramCredentialUpsertion,
};
use krafka::auth::{AuthConfig, ScramMechanism, TlsConfig};
use krafka::{Kafka, KrafkaError};
use ordersaga_runtime::config::{KafkaSecurity, Login, Mechanism, Secret};
use ordersaga_runtime::topics::Target;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

use super::{CLUSTER, LITERAL, Passwords, Right};

const TIMEOUT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// What brokers themselves take: the passwords are long and random, not words.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
const EVERYWHERE: &str = "*";

/// What [`apply`] did.
pub(super) enum Change {
    Created(String),
    PasswordChanged(String),
    Granted(Right),
    Withdrawn { user: String, what: String },
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(user) => write!(formatter, "{user}: created"),
            Self::PasswordChanged(user) => write!(formatter, "{user}: password changed"),
            Self::Granted(right) => write!(formatter, "{}: granted {right}", right.user),
            Self::Withdrawn { user, what } => write!(formatter, "{user}: withdrawn {what}"),
        }
    }
}

/// Makes users and rights what is wanted. What these users may do besides is withdrawn, as far as
/// it is about topics and groups of the target's prefix; nobody else is touched.
pub(super) async fn apply(
    target: &Target,
    passwords: &Passwords,
    rights: &[Right],
) -> Result<Vec<Change>> {
    let login = target.security.login.as_ref();
    let login =
        login.context("KAFKA_USER and KAFKA_PASSWORD of the broker's superuser are needed")?;
    let kafka = connect(target, login).await.context("the broker cannot be used")?;
    let broker = Broker { target, mechanism: login.mechanism, admin: kafka.admin() };
    let mut changes = broker.users(passwords).await?;
    changes.extend(broker.rights(passwords, rights).await?);
    Ok(changes)
}

async fn connect(target: &Target, login: &Login) -> Result<Kafka, KrafkaError> {
    let (user, password) = (login.user.as_str(), login.password.expose());
    let security = match login.mechanism {
        Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
        Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
    };
    let security = match tls(&target.security) {
        Some(tls) => security.with_tls(tls),
        None => security,
    };
    Kafka::builder(&target.brokers).client_id("ordersaga-kafka").security(security).connect().await
}

fn tls(security: &KafkaSecurity) -> Option<TlsConfig> {
    let given = security.tls.as_ref()?;
    let tls = match &given.authorities {
        Some(file) => TlsConfig::new().with_ca_cert(file.to_string_lossy()),
        None => TlsConfig::new().with_native_roots(),
    };
    Some(match &given.certificate {
        Some((file, key)) => tls.with_client_cert(file.to_string_lossy(), key.to_string_lossy()),
        None => tls,
    })
}

struct Broker<'a> {
    target: &'a Target,
    mechanism: Mechanism,
    admin: AdminClient,
}

impl Broker<'_> {
    /// Creates users that are missing. The broker does not show passwords: whether one is right is
    /// seen by logging in with it.
    async fn users(&self, passwords: &Passwords) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut new = Vec::new();
        for (user, password) in passwords {
            let known = self.is_known(user).await?;
            if known && self.can_log_in(user, password).await? {
                continue;
            }
            new.push(self.credential(user, password)?);
            changes.push(if known {
                Change::PasswordChanged(user.clone())
            } else {
                Change::Created(user.clone())
            });
        }
        if new.is_empty() {
            return Ok(changes);
        }
        let names: Vec<_> = new.iter().map(|credential| credential.name.clone()).collect();
        let altered = self.admin.alter_user_scram_credentials(
            Vec::new(),
            new,
            AlterUserScramCredentialsOptions::default(),
        );
        for (user, result) in altered.await? {
            result.with_context(|| format!("cannot set the password of {user}"))?;
        }
        for user in &names {
            self.wait_for(user, &passwords[user]).await?;
        }
        Ok(changes)
    }

    async fn is_known(&self, user: &str) -> Result<bool> {
        let described = self
            .admin
            .describe_user_scram_credentials(
                Some(vec![user.to_owned()]),
                DescribeUserScramCredentialsOptions::default(),
            )
            .await
            .context("the broker does not tell its users")?;
        // A user that is not there is an error of its own.
        Ok(described.values().flatten().flatten().any(|known| known.mechanism == self.scram()))
    }

    async fn can_log_in(&self, user: &str, password: &Secret) -> Result<bool> {
        let login =
            Login { user: user.to_owned(), password: password.clone(), mechanism: self.mechanism };
        match connect(self.target, &login).await {
            Ok(_) => Ok(true),
            Err(KrafkaError::Auth { .. }) => Ok(false),
            Err(error) => Err(error).context(format!("cannot try the password of {user}")),
        }
    }

    /// The controller answers before every broker knows of the change.
    async fn wait_for(&self, user: &str, password: &Secret) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.can_log_in(user, password).await? {
            ensure!(Instant::now() < deadline, "{user} cannot log in with its new password");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn scram(&self) -> ScramMechanism {
        match self.mechanism {
            Mechanism::ScramSha256 => ScramMechanism::Sha256,
            Mechanism::ScramSha512 => ScramMechanism::Sha512,
        }
    }

    fn credential(&self, user: &str, password: &Secret) -> Result<ScramCredentialUpsertion> {
        let (algorithm, length) = match self.mechanism {
            Mechanism::ScramSha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Mechanism::ScramSha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut salt = vec![0; 32];
        SystemRandom::new().fill(&mut salt).map_err(|_| anyhow!("no source of random bytes"))?;
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, ITERATIONS, &salt, password.expose().as_bytes(), &mut salted);
        Ok(ScramCredentialUpsertion {
            name: user.to_owned(),
            mechanism: self.scram(),
            iterations: i32::try_from(ITERATIONS.get())?,
            salt: salt.into(),
            salted_password: salted.into(),
        })
    }

    async fn rights(&self, passwords: &Passwords, wanted: &[Right]) -> Result<Vec<Change>> {
        let (missing, extra) = self.difference(passwords, wanted).await?;
        if missing.is_empty() && extra.is_empty() {
            return Ok(Vec::new());
        }
        let created = self
            .admin
            .create_acls(missing.iter().map(binding).collect(), CreateAclsOptions::default());
        for (binding, result) in created.await? {
            result.with_context(|| format!("cannot grant {}", describe(&binding)))?;
        }
        let deleted = self
            .admin
            .delete_acls(extra.iter().map(filter).collect(), DeleteAclsOptions::default());
        for (_, result) in deleted.await? {
            let failed = result.context("cannot withdraw a right")?.failed.into_iter().next();
            if let Some((binding, error)) = failed {
                return Err(error).context(format!("cannot withdraw {}", describe(&binding)));
            }
        }
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (missing, extra) = self.difference(passwords, wanted).await?;
            if missing.is_empty() && extra.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "the rights do not change");
            tokio::time::sleep(LOOK).await;
        }
        let withdrawn = extra
            .iter()
            .map(|acl| Change::Withdrawn { user: user(acl).to_owned(), what: describe(acl) });
        Ok(missing.into_iter().map(Change::Granted).chain(withdrawn).collect())
    }

    /// What is not there yet, and what is there and must go.
    async fn difference(
        &self,
        passwords: &Passwords,
        wanted: &[Right],
    ) -> Result<(Vec<Right>, Vec<AclBinding>)> {
        let mut present = Vec::new();
        for user in passwords.keys() {
            let filter = AclFilter::for_principal(principal(user));
            let acls = self.admin.describe_acls(filter, DescribeAclsOptions::default()).await;
            present.extend(acls.context("the broker does not tell its users' rights")?);
        }
        let missing = wanted.iter().filter(|right| !present.iter().any(|acl| is(acl, right)));
        let extra = present.iter().filter(|acl| !wanted.iter().any(|right| is(acl, right)));
        let extra = extra.filter(|acl| belongs(acl, &self.target.prefix));
        Ok((missing.cloned().collect(), extra.cloned().collect()))
    }
}

fn principal(user: &str) -> String {
    format!("User:{user}")
}

fn user(acl: &AclBinding) -> &str {
    acl.principal.strip_prefix("User:").unwrap_or(&acl.principal)
}

fn binding(right: &Right) -> AclBinding {
    AclBinding::new(
        right.resource,
        &right.name,
        principal(&right.user),
        EVERYWHERE,
        right.operation,
        AclPermissionType::Allow,
    )
    .with_pattern_type(LITERAL)
}

fn filter(acl: &AclBinding) -> AclFilter {
    // A prefix, which is none of ours, has no name in krafka.
    let pattern = if acl.pattern_type == LITERAL { LITERAL } else { AclPatternType::Any };
    AclFilter::for_resource(acl.resource_type, &acl.resource_name)
        .pattern_type(pattern)
        .principal(&acl.principal)
        .host(&acl.host)
        .operation(acl.operation)
        .permission_type(acl.permission_type)
}

fn is(acl: &AclBinding, right: &Right) -> bool {
    let wanted = binding(right);
    key(acl) == key(&wanted)
}

type Key<'a> =
    (AclResourceType, &'a str, AclPatternType, &'a str, &'a str, AclOperation, AclPermissionType);

fn key(acl: &AclBinding) -> Key<'_> {
    (
        acl.resource_type,
        &acl.resource_name,
        acl.pattern_type,
        &acl.principal,
        &acl.host,
        acl.operation,
        acl.permission_type,
    )
}

/// Whether a right is about the environment of this prefix: other environments on the same broker
/// have the same users.
fn belongs(acl: &AclBinding, prefix: &str) -> bool {
    acl.resource_name == CLUSTER || acl.resource_name.starts_with(prefix)
}

fn describe(acl: &AclBinding) -> String {
    let AclBinding { resource_type, resource_name, operation, permission_type, host, .. } = acl;
    let mut text = format!("{operation:?} on {resource_type:?} {resource_name}");
    if *permission_type != AclPermissionType::Allow {
        text = format!("{permission_type:?} {text}");
    }
    if host != EVERYWHERE {
        text = format!("{text} from {host}");
    }
    text
}
