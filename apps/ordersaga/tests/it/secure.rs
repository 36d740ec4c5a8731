//! The system as production has it: TLS with an authority of its own on every connection, users
//! with no more rights than `redpanda/access.toml` grants, applied by the program that does so
//! there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Cluster, Database, Part, Security, Service, ServiceProcess, free_port};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::bed::{Bed, Plan, WITHIN, block_on, until};
use crate::client::{DEAD_LETTERS, EVIDENCE, order_for, state_of};
use crate::dlq::{Said, program};

/// The users of `redpanda/access.toml`, and the variables that hold their passwords for the job.
pub(crate) const USERS: [(&str, &str); 5] = [
    ("service-create-order", "KAFKA_PASSWORD_CREATE_ORDER"),
    ("service-store", "KAFKA_PASSWORD_STORE"),
    ("service-monitoring-order", "KAFKA_PASSWORD_MONITORING"),
    ("console", "KAFKA_PASSWORD_CONSOLE"),
    ("operator", "KAFKA_PASSWORD_OPERATOR"),
];

pub(crate) fn password_of(user: &str) -> String {
    format!("correct-{user}")
}

/// Secured parts, shared by these tests; each has topics, groups and databases to itself.
pub(crate) struct Parts {
    pub(crate) security: Arc<Security>,
    pub(crate) broker: Part,
    postgres: Part,
    pub(crate) redis: Part,
}

pub(crate) async fn parts() -> Result<&'static Parts> {
    static PARTS: OnceCell<Parts> = OnceCell::const_new();
    PARTS
        .get_or_try_init(async || {
            let security = Arc::new(Security::new()?);
            let (broker, postgres, redis) = tokio::try_join!(
                Part::secured_broker(&security),
                Part::secured_postgres(&security),
                Part::secured_redis(&security),
            )?;
            Ok(Parts { security, broker, postgres, redis })
        })
        .await
}

impl Parts {
    pub(crate) fn authority(&self) -> String {
        self.security.authority().display().to_string()
    }

    fn stranger(&self) -> String {
        self.security.stranger().display().to_string()
    }

    /// A client of the broker as this user.
    fn client(&self, user: &str, password: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.broker.url())
            .set("security.protocol", "sasl_ssl")
            .set("sasl.mechanisms", "SCRAM-SHA-256")
            .set("sasl.username", user)
            .set("sasl.password", password)
            .set("ssl.ca.location", self.authority())
            .set("message.timeout.ms", "10000");
        client
    }

    /// The job that makes topics, users and rights, as the broker's superuser.
    pub(crate) fn job(&self, bed: &Bed) -> Result<Command> {
        let mut job = Command::new(program("ordersaga-kafka")?);
        job.args(["topics", "apply"])
            .env("KAFKA_BROKERS", self.broker.url())
            .env("KAFKA_TOPIC_PREFIX", &bed.prefix)
            .env("KAFKA_USER", "admin")
            .env("KAFKA_PASSWORD", &self.security.admin_password)
            .env("KAFKA_CA_FILE", self.authority())
            .envs(USERS.map(|(user, variable)| (variable, password_of(user))));
        Ok(job)
    }

    async fn apply(&self, bed: &Bed) -> Result<String> {
        Ok(Said::by(self.job(bed)?).await?.expect(0, "")?.text)
    }

    /// The databases of one system, all on the secured server.
    async fn databases(&self, name: &str) -> Result<BTreeMap<Cluster, Database>> {
        let (server, mut databases) = (self.postgres.server(), BTreeMap::new());
        for cluster in Cluster::ALL {
            let own = format!("{name}_{}", cluster.database());
            let database = server.create_database(cluster, &own).await?;
            databases.insert(cluster, database.trusting(&self.security.authority()));
        }
        Ok(databases)
    }

    /// A system on the secured parts; nothing of it runs yet.
    pub(crate) async fn plan(&self, name: &str) -> Result<Plan> {
        let mut plan = Plan::default().idle().broker(self.broker.url());
        for (cluster, database) in self.databases(name).await? {
            plan = plan.database(cluster, database);
        }
        for service in Service::ALL {
            let user = service.name();
            plan = plan
                .set(service, "KAFKA_USER", user)
                .set(service, "KAFKA_PASSWORD", &password_of(user))
                .set(service, "KAFKA_CA_FILE", &self.authority());
        }
        Ok(plan.set(Service::Store, "REDIS_URL", &self.redis.url()).set(
            Service::Store,
            "REDIS_CA_FILE",
            &self.authority(),
        ))
    }
}

#[test]
fn a_fully_secured_system_takes_and_cancels_orders() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            parts.apply(bed).await?;
            bed.start_all().await?;
            // Ready is said without it.
            until("Redis is used", async || {
                let ready = bed.get(Service::Store, "/ready").await?.json()?;
                Ok(state_of(&ready, "redis")?["ready"] == true)
            })
            .await?;
            let item = bed.add_item(1).await?;
            let shipped = bed.place(&order_for(item)).await?;
            bed.reaches(shipped, "SHIPPING").await?;
            // The item is sold: the store refuses.
            let refused = bed.place(&order_for(item)).await?;
            let status = bed.reaches(refused, "CANCELLED").await?;
            ensure!(status["reason"] == "OUT_OF_STOCK", "{status}");
            bed.cancel(shipped).await?;
            bed.reaches(shipped, "CANCELLED").await?;
            until("the stock is back", async || Ok(bed.item(item).await?["available"] == 1))
                .await?;
            hits_the_cache(bed, item).await?;
            may_read_the_topics(bed, shipped).await?;
            coordinator_is_encrypted(bed).await
        };
        parts.plan("whole").await?.run(test).await
    })
}

/// Redis' user may do what the cache needs.
async fn hits_the_cache(bed: &Bed, item: i64) -> Result<()> {
    until("the cache answers", async || {
        bed.item(item).await?;
        Ok(bed.metric(Service::Store, "cache_requests_total{result=\"hit\"}").await? > 0)
    })
    .await
}

/// Monitoring's user may look for records, and at dead letters.
async fn may_read_the_topics(bed: &Bed, order: i64) -> Result<()> {
    let path = format!("{EVIDENCE}?order_id={order}");
    let evidence = bed.get(Service::Monitoring, &path).await?.expect(200)?;
    let mut facts = evidence["facts"].as_array().into_iter().flatten();
    ensure!(facts.all(|fact| fact["record"].is_object()), "{evidence}");
    let letters = bed.get(Service::Monitoring, DEAD_LETTERS).await?.expect(200)?;
    ensure!(letters["is_complete"] == true, "{letters}");
    Ok(())
}

async fn coordinator_is_encrypted(bed: &Bed) -> Result<()> {
    let owner = bed.databases[Cluster::Monitoring].owner_url();
    let mut connection = PgConnection::connect(&owner).await?;
    let modes: Vec<String> =
        sqlx::query_scalar("SELECT unnest(srvoptions) FROM pg_foreign_server ORDER BY srvname, 1")
            .fetch_all(&mut connection)
            .await?;
    let verified = modes.iter().filter(|option| *option == "sslmode=verify-full").count();
    ensure!(verified == 2, "{modes:?}");
    ensure!(modes.iter().filter(|option| option.starts_with("sslrootcert=")).count() == 2);
    Ok(())
}

#[test]
fn no_user_may_do_what_is_not_its_own() -> Result<()> {
    use RDKafkaErrorCode::TopicAuthorizationFailed;
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            parts.apply(bed).await?;
            for (user, topic, allowed) in [
                ("service-store", "reservation", true),
                ("service-store", "incoming", false),
                ("service-create-order", "incoming", true),
                ("service-create-order", "reservation", false),
                ("service-monitoring-order", "dead-letter", true),
                ("service-monitoring-order", "reset", false),
                ("operator", "incoming", true),
                ("console", "incoming", false),
                ("console", "dead-letter", false),
            ] {
                let client = parts.client(user, &password_of(user));
                let outcome = write(&client, bed, topic, allowed).await?;
                let expected = if allowed { None } else { Some(TopicAuthorizationFailed) };
                ensure!(outcome == expected, "{user} writes {topic}: {outcome:?}");
            }
            for (user, _) in USERS {
                let client = parts.client(user, &password_of(user));
                let outcome = create_topic(&client, &format!("{}mine", bed.prefix)).await?;
                let codes = [
                    RDKafkaErrorCode::TopicAuthorizationFailed,
                    RDKafkaErrorCode::ClusterAuthorizationFailed,
                ];
                ensure!(outcome.is_some_and(|code| codes.contains(&code)), "{user}: {outcome:?}");
            }
            sees(parts, bed, "console", &["dead-letter", "incoming", "reservation", "reset"])
                .await?;
            sees(
                parts,
                bed,
                "service-monitoring-order",
                &["dead-letter", "incoming", "reservation", "reset"],
            )
            .await?;
            dlq_works(parts, bed).await
        };
        parts.plan("rights").await?.run(test).await
    })
}

/// Writes a record, with a producer id if it should succeed: a user without any right to write gets
/// none, and no other answer. None: it was taken.
async fn write(
    client: &ClientConfig,
    bed: &Bed,
    topic: &str,
    idempotent: bool,
) -> Result<Option<RDKafkaErrorCode>> {
    let mut client = client.clone();
    let producer: FutureProducer =
        client.set("enable.idempotence", idempotent.to_string()).create()?;
    let topic = format!("{}{topic}", bed.prefix);
    let record = FutureRecord::<(), str>::to(&topic).payload("x");
    Ok(match producer.send(record, WITHIN).await {
        Ok(_) => None,
        Err((KafkaError::MessageProduction(code), _)) => Some(code),
        Err((error, _)) => return Err(error.into()),
    })
}

async fn create_topic(client: &ClientConfig, name: &str) -> Result<Option<RDKafkaErrorCode>> {
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new().request_timeout(Some(WITHIN));
    let outcome = admin.create_topics([&topic], &options).await?;
    Ok(outcome.into_iter().next().context("no answer")?.err().map(|(_, code)| code))
}

/// The broker tells this user of these topics of the system.
async fn sees(parts: &Parts, bed: &Bed, user: &str, topics: &[&str]) -> Result<()> {
    let producer: FutureProducer = parts.client(user, &password_of(user)).create()?;
    let fetch = move || producer.client().fetch_metadata(None, WITHIN);
    let metadata = tokio::task::spawn_blocking(fetch).await??;
    let mut seen: Vec<_> =
        metadata.topics().iter().filter_map(|t| t.name().strip_prefix(&bed.prefix)).collect();
    seen.sort_unstable();
    ensure!(seen == topics, "{user} sees {seen:?}");
    Ok(())
}

async fn dlq_works(parts: &Parts, bed: &Bed) -> Result<()> {
    let mut list = Command::new(program("ordersaga-kafka")?);
    list.args(["dlq", "list"])
        .env("KAFKA_BROKERS", parts.broker.url())
        .env("KAFKA_TOPIC_PREFIX", &bed.prefix)
        .env("KAFKA_USER", "operator")
        .env("KAFKA_PASSWORD", password_of("operator"))
        .env("KAFKA_CA_FILE", parts.authority());
    Said::by(list).await?.expect(0, "0 of 0 letters")?;
    Ok(())
}

#[test]
fn users_and_rights_are_applied_once_and_withdrawn_when_the_file_no_longer_names_them() -> Result<()>
{
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            let first = parts.apply(bed).await?;
            let granted = format!("service-store: granted Read on topic {}incoming", bed.prefix);
            ensure!(first.contains(&granted), "{first}");
            let second = parts.apply(bed).await?;
            ensure!(second.contains("all topics are as they should be"), "{second}");
            ensure!(second.contains("all users and rights are as they should be"), "{second}");
            ensure!(second.lines().count() == 2, "{second}");

            let full = std::fs::read_to_string(repository().join("redpanda/access.toml"))?;
            let less = full.replacen("read = [\"incoming\", \"reset\"]", "read = [\"reset\"]", 1);
            ensure!(less != full, "the file has changed: adapt the test");
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), less)?;
            let mut job = parts.job(bed)?;
            job.arg("--access").arg(file.path());
            let said = Said::by(job).await?.expect(0, "")?;
            let withdrawn =
                format!("service-store: withdrawn Read on Topic {}incoming", bed.prefix);
            ensure!(said.text.contains(&withdrawn), "{}", said.text);
            ensure!(!said.text.contains("granted"), "{}", said.text);
            sees(parts, bed, "service-store", &["dead-letter", "reservation", "reset"]).await?;
            let third = parts.apply(bed).await?;
            ensure!(third.contains(&granted) && third.lines().count() == 2, "{third}");
            Ok(())
        };
        parts.plan("apply").await?.run(test).await
    })
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn the_job_says_in_one_line_why_it_is_not_let_in() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            let fails = async |set: &dyn Fn(&mut Command), text: &str| {
                let mut job = parts.job(bed)?;
                set(&mut job);
                let said = Said::by(job).await?.expect(1, text)?;
                ensure!(said.text.trim().lines().count() == 1, "{}", said.text);
                ensure!(!said.text.contains("hush-hush"), "{}", said.text);
                anyhow::Ok(())
            };
            fails(&|job| _ = job.env("KAFKA_PASSWORD", "hush-hush"), "uthentication failed")
                .await?;
            let anonymous = |job: &mut Command| {
                job.env_remove("KAFKA_USER").env_remove("KAFKA_PASSWORD");
            };
            fails(&anonymous, "no KAFKA_USER is set").await?;
            fails(
                &|job| _ = job.env("KAFKA_CA_FILE", parts.stranger()),
                "certificate verify failed",
            )
            .await?;
            fails(&|job| _ = job.env_remove("KAFKA_PASSWORD_STORE"), "KAFKA_PASSWORD_STORE").await
        };
        parts.plan("job").await?.run(test).await
    })
}

/// What `/ready` of a service says of a dependency, once it says this.
async fn says(bed: &Bed, process: &ServiceProcess, name: &str, why: &str) -> Result<()> {
    until(&format!("{name}: {why}"), async || {
        let answer = bed.send(bed.http.get(format!("{}/ready", process.url()))).await;
        let Ok(answer) = answer else { return Ok(false) };
        let ready = answer.json()?;
        let state = state_of(&ready, name)?;
        Ok(state["ready"] == false && state["detail"].as_str() == Some(why))
    })
    .await
    .with_context(|| std::fs::read_to_string(process.log()).unwrap_or_default())
}

#[test]
fn a_service_says_why_it_is_not_let_in_and_lives_on() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            parts.apply(bed).await?;
            bed.migrate().await?;
            let store = |name: &str, set: &[(&str, &str)]| {
                let mut process = bed.instance(Service::Store, free_port()?, name);
                for (name, value) in set {
                    process.set(name, value);
                }
                process.start()?;
                anyhow::Ok(process)
            };
            let own = &bed.databases[Cluster::Store];
            let wrong_role = own.service_url().replace(&own.passwords.service, "hush-hush");
            let wrong_redis =
                parts.redis.url().replace(&parts.security.redis_password, "hush-hush");
            let login = store(
                "wrong-login",
                &[("KAFKA_PASSWORD", "hush-hush"), ("REDIS_URL", &wrong_redis)],
            )?;
            says(bed, &login, "kafka-producer", "the broker refuses the user or its password")
                .await?;
            says(bed, &login, "kafka-consumer", "the broker refuses the user or its password")
                .await?;
            says(bed, &login, "redis", "refuses the user or its password").await?;
            lives_and_is_discreet(&login)?;
            let role = store("wrong-role", &[("DATABASE_URL", &wrong_role)])?;
            says(bed, &role, "postgres", "refuses the role or its password").await?;
            lives_and_is_discreet(&role)?;

            let distrusting = own.trusting(&parts.security.stranger());
            let stranger = parts.stranger();
            let trust = store(
                "wrong-authority",
                &[("KAFKA_CA_FILE", &stranger), ("REDIS_CA_FILE", &stranger)],
            )?;
            says(bed, &trust, "kafka-producer", "no trusted connection to the broker").await?;
            says(bed, &trust, "redis", "its certificate is not trusted").await?;
            lives_and_is_discreet(&trust)?;
            let trust =
                store("wrong-database-authority", &[("DATABASE_URL", &distrusting.service_url())])?;
            says(bed, &trust, "postgres", "no trusted connection").await?;
            lives_and_is_discreet(&trust)
        };
        parts.plan("refused").await?.run(test).await
    })
}

/// It runs, its log never has the wrong password, and says of a part only once or twice what is
/// wrong with it.
fn lives_and_is_discreet(process: &ServiceProcess) -> Result<()> {
    ensure!(process.is_running(), "{} has ended", process.name());
    let log = std::fs::read_to_string(process.log())?;
    ensure!(!log.contains("hush-hush"), "{log}");
    ensure!(log.lines().count() < 20, "{log}");
    Ok(())
}

#[test]
fn nobody_comes_in_clear() -> Result<()> {
    block_on(async {
        let parts = parts().await?;
        let test = async |bed: &mut Bed| {
            bed.migrate().await?;
            let process = {
                let mut process = bed.instance(Service::Store, free_port()?, "clear");
                for variable in ["KAFKA_CA_FILE", "REDIS_CA_FILE"] {
                    process.unset(variable);
                }
                process.set("REDIS_URL", &parts.redis.url().replace("rediss://", "redis://"));
                process
            };
            process.start()?;
            says(bed, &process, "kafka-producer", "no connection to the broker").await?;
            says(bed, &process, "redis", "does not answer").await?;

            let own = &bed.databases[Cluster::Store];
            let clear = own.service_url().replace("verify-full", "disable");
            let refused = PgConnection::connect(&clear).await.err().context("let in")?;
            ensure!(refused.to_string().contains("no encryption"), "{refused}");
            Ok(())
        };
        parts.plan("clear").await?.run(test).await
    })
}
