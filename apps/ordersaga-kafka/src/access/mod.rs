//! The broker's users and rights as `redpanda/access.toml` wants them.

mod broker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use krafka::admin::{AclOperation, AclPatternType, AclResourceType};
use ordersaga_runtime::config::Secret;
use ordersaga_runtime::topics::Target;
use serde::Deserialize;

const EMBEDDED: &str = include_str!("../../../../redpanda/access.toml");
/// The one name of the resource that rights on the cluster itself belong to.
const CLUSTER: &str = "kafka-cluster";

/// A right on just the resource of its name (and on each, if that is `*`). krafka 0.28.1 numbers
/// pattern types 1, 2, 3; in the protocol 2 is MATCH, which only filters may have, 3 is LITERAL and
/// 4 is PREFIXED (KIP-290). So its `Prefixed` is what goes out as LITERAL, and what LITERAL comes
/// back as; a prefix cannot be sent.
const LITERAL: AclPatternType = AclPatternType::Prefixed;

/// What `redpanda/access.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessFile {
    users: BTreeMap<String, User>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    password: String,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    inspect: bool,
}

/// The password of each user.
pub(crate) type Passwords = BTreeMap<String, Secret>;

impl AccessFile {
    /// Another file than the one built in, if named.
    pub(crate) fn get(other: Option<&Path>) -> Result<Self> {
        let Some(path) = other else {
            return Ok(toml::from_str(EMBEDDED)?);
        };
        let text = std::fs::read_to_string(path).map_err(anyhow::Error::from);
        text.and_then(|text| Ok(toml::from_str(&text)?))
            .with_context(|| format!("cannot read the users in {}", path.display()))
    }

    /// The users' passwords as the environment gives them; none if it has not a single one, and an
    /// error that names the missing ones if it has some.
    pub(crate) fn passwords(&self) -> Result<Option<Passwords>> {
        self.passwords_from(|name| std::env::var(name).ok()).context("passwords of Kafka users")
    }

    fn passwords_from(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Passwords>> {
        let (mut passwords, mut missing) = (Passwords::new(), Vec::new());
        for (name, user) in &self.users {
            match variable(&user.password).filter(|password| !password.is_empty()) {
                Some(password) => _ = passwords.insert(name.clone(), Secret::new(password)),
                None => missing.push(user.password.as_str()),
            }
        }
        if passwords.is_empty() {
            return Ok(None);
        }
        ensure!(missing.is_empty(), "not set: {}", missing.join(", "));
        Ok(Some(passwords))
    }

    /// All that the users may do in the environment of this prefix.
    fn rights(&self, prefix: &str) -> Vec<Right> {
        let all = |names: fn(&User) -> Vec<&String>| -> BTreeSet<String> {
            match prefix {
                "" => ["*".to_owned()].into(),
                _ => self.users.values().flat_map(names).cloned().collect(),
            }
        };
        let topics = all(|user| user.read.iter().chain(&user.write).collect());
        let groups = all(|user| user.groups.iter().collect());
        let users = self.users.iter();
        users.flat_map(|(name, user)| user.rights(name, prefix, &topics, &groups)).collect()
    }
}

impl User {
    /// `topics` and `groups` are all there are.
    fn rights(
        &self,
        name: &str,
        prefix: &str,
        topics: &BTreeSet<String>,
        groups: &BTreeSet<String>,
    ) -> Vec<Right> {
        use AclOperation::{Describe, DescribeConfigs, IdempotentWrite, Read, Write};
        use AclResourceType::{Cluster, Group, Topic};
        let right = |resource, of: &str, operation| Right {
            user: name.to_owned(),
            resource,
            name: of.to_owned(),
            operation,
        };
        let one =
            |resource, of: &String, operation| right(resource, &format!("{prefix}{of}"), operation);
        let cluster = |operation| right(Cluster, CLUSTER, operation);
        // Reading and writing include describing.
        let mut rights: Vec<_> = self.read.iter().map(|topic| one(Topic, topic, Read)).collect();
        rights.extend(self.write.iter().map(|topic| one(Topic, topic, Write)));
        rights.extend(self.groups.iter().map(|group| one(Group, group, Read)));
        if !self.write.is_empty() {
            rights.push(cluster(IdempotentWrite));
        }
        if self.inspect {
            for operation in [Read, DescribeConfigs] {
                rights.extend(topics.iter().map(|topic| one(Topic, topic, operation)));
            }
            rights.extend(groups.iter().map(|group| one(Group, group, Describe)));
            rights.extend([Describe, DescribeConfigs].map(cluster));
        }
        rights
    }
}

/// Something that a user may do, from wherever it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    user: String,
    resource: AclResourceType,
    name: String,
    operation: AclOperation,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.resource {
            AclResourceType::Topic => "topic",
            AclResourceType::Group => "group",
            _ => return write!(formatter, "{:?} on the cluster", self.operation),
        };
        write!(formatter, "{:?} on {kind} {}", self.operation, self.name)
    }
}

/// Makes the broker's users and rights what the file says, and tells what changed. Does nothing
/// without passwords.
pub(crate) async fn apply(
    target: &Target,
    file: &AccessFile,
    passwords: Option<Passwords>,
) -> Result<()> {
    let Some(passwords) = passwords else {
        if target.security.login.is_some() {
            say!("users and rights are left alone: the environment has no passwords for them");
        }
        return Ok(());
    };
    let changes = broker::apply(target, &passwords, &file.rights(&target.prefix)).await?;
    for change in &changes {
        say!("{change}");
    }
    if changes.is_empty() {
        say!("all users and rights are as they should be");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use ordersaga_contract::Topic;

    use super::*;

    fn said(prefix: &str, user: &str) -> Vec<String> {
        let rights = AccessFile::get(None).unwrap().rights(prefix);
        let own = rights.iter().filter(|right| right.user == user);
        own.map(ToString::to_string).collect()
    }

    #[test]
    fn each_may_do_its_work_and_no_more() {
        assert_eq!(
            said("", "service-store"),
            [
                "Read on topic incoming",
                "Read on topic reset",
                "Write on topic reservation",
                "Write on topic reset",
                "Write on topic dead-letter",
                "Read on group storage",
                "IdempotentWrite on the cluster"
            ]
        );
        let console = said("", "console");
        assert!(console.contains(&"Read on topic *".to_owned()), "{console:?}");
        assert!(console.iter().all(|right| !right.contains("rite")), "{console:?}");
    }

    #[test]
    fn a_prefix_goes_before_every_topic_and_group() {
        let store = said("t7.", "service-store");
        assert_eq!(store[0], "Read on topic t7.incoming");
        assert_eq!(store[5], "Read on group t7.storage");
        let console = said("t7.", "console");
        assert!(console.contains(&"Describe on group t7.storage".to_owned()), "{console:?}");
        assert!(!console.iter().any(|right| right.contains('*')), "{console:?}");
    }

    #[test]
    fn literal_is_what_the_protocol_calls_so() {
        assert_eq!(LITERAL.to_i8(), 3, "krafka has changed: LITERAL is its own Literal now?");
    }

    #[test]
    fn topics_exist_and_nobody_creates() {
        let file = AccessFile::get(None).unwrap();
        for (name, user) in &file.users {
            for topic in user.read.iter().chain(&user.write) {
                let known = [Topic::DeadLetter].into_iter().chain(Topic::EVENTS);
                assert!(known.into_iter().any(|known| known.name() == topic), "{name}: {topic}");
            }
        }
        let all = file.rights("");
        assert!(all.iter().all(|right| !matches!(
            right.operation,
            AclOperation::All | AclOperation::Create | AclOperation::Delete | AclOperation::Alter
        )));
    }

    #[test]
    fn passwords_are_all_there_or_none() {
        let file = AccessFile::get(None).unwrap();
        assert!(file.passwords_from(|_| None).unwrap().is_none());
        assert!(file.passwords_from(|_| Some(String::new())).unwrap().is_none());
        let all = file.passwords_from(|name| Some(name.to_lowercase())).unwrap().unwrap();
        assert_eq!(all["console"].expose(), "kafka_password_console");
        let some = |name: &str| name.ends_with("STORE").then(|| "x".to_owned());
        let error = file.passwords_from(some).unwrap_err().to_string();
        assert!(error.contains("KAFKA_PASSWORD_OPERATOR"), "{error}");
        assert!(!error.contains("KAFKA_PASSWORD_STORE"), "{error}");
    }

    #[test]
    fn the_table_in_the_documentation_is_the_file() {
        let text = include_str!("../../../../docs/security.md");
        let list = |names: &[String]| {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        for (name, user) in &AccessFile::get(None).unwrap().users {
            let row = if user.inspect {
                format!("| `{name}` | everything |  | looks at all |")
            } else {
                let [read, write, groups] =
                    [&user.read, &user.write, &user.groups].map(|l| list(l));
                format!("| `{name}` | {read} | {write} | {groups} |")
            };
            assert!(text.contains(&row), "not in docs/security.md:\n{row}");
        }
    }

    #[test]
    fn help_names_every_password() {
        let mut command = crate::Arguments::command();
        let apply = command.find_subcommand_mut("topics").unwrap();
        let apply = apply.find_subcommand_mut("apply").unwrap();
        let help = apply.render_long_help().to_string();
        for user in AccessFile::get(None).unwrap().users.values() {
            assert!(help.contains(&user.password), "{} is missing:\n{help}", user.password);
        }
    }
}
