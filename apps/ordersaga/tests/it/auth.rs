//! Who may do what, on a running system: by API keys, and by JSON Web Tokens.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ordersaga_api_key::{ApiKey, Scope};
use ordersaga_devstack::{Service, binary};
use ordersaga_runtime::clock;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::bed::{Bed, Plan, block_on, until};
use crate::client::{
    ADD, Answer, CANCEL, CREATE, CREATE_MANY, DEAD_LETTERS, EVIDENCE, FIND, ITEMS, ORDERS,
    RESERVATIONS, STATS, STATUS, STREAM, STUCK, state_of,
};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "orders";

/// A client of the services, with what it shows them.
struct Client<'a> {
    bed: &'a Bed,
    credentials: String,
}

impl Client<'_> {
    async fn ask(
        &self,
        method: Method,
        service: Service,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer> {
        let mut request = self.bed.http.request(method, format!("{}{path}", self.bed.url(service)));
        if !self.credentials.is_empty() {
            request = request.bearer_auth(&self.credentials);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.bed.send(request).await
    }

    async fn get(&self, service: Service, path: &str) -> Result<Answer> {
        self.ask(Method::GET, service, path, None, None).await
    }

    async fn create(&self, body: &Value, key: Option<&str>) -> Result<Answer> {
        self.ask(Method::POST, Service::CreateOrder, CREATE, Some(body), key).await
    }

    async fn place(&self, body: &Value, key: Option<&str>) -> Result<i64> {
        self.create(body, key).await?.expect(201)?["order_id"].as_i64().context("no order_id")
    }

    async fn cancel(&self, order: i64, key: Option<&str>) -> Result<Answer> {
        let path = format!("{CANCEL}?order_id={order}");
        self.ask(Method::POST, Service::CreateOrder, &path, None, key).await
    }

    async fn status(&self, order: i64) -> Result<Answer> {
        self.get(Service::Monitoring, &format!("{STATUS}?order_id={order}")).await
    }

    /// The first event of an order on a stream of these orders.
    async fn first_on_stream(&self, orders: [i64; 2]) -> Result<Value> {
        let [one, two] = orders;
        let url = format!("{}{STREAM}", self.bed.url(Service::Monitoring));
        let request = self.bed.http.get(format!("{url}?order_id={one}&order_id={two}"));
        let mut stream = request.bearer_auth(&self.credentials).send().await?.error_for_status()?;
        let mut text = String::new();
        while let Some(more) = stream.chunk().await? {
            text.push_str(std::str::from_utf8(&more)?);
            let event = text.split("\n\n").find(|event| event.starts_with("event: order\n"));
            let data = event.and_then(|event| event.split_once("\ndata: "));
            if let Some((_, data)) = data.filter(|_| text.ends_with("\n\n")) {
                return Ok(serde_json::from_str(data)?);
            }
        }
        anyhow::bail!("the stream ended: {text}")
    }
}

fn order(item: i64, client: i64) -> Value {
    json!({"item_id": item, "seller_id": 1, "client_id": client})
}

/// A key, and its entry in the file.
fn key(name: &str, scopes: &[Scope], client: Option<i64>) -> Result<(String, String)> {
    let (key, entry) = ApiKey::generate(name.to_owned(), scopes.to_vec(), client, None)?;
    Ok((key, entry.to_toml()?))
}

fn with_all(plan: Plan, name: &'static str, value: &str) -> Plan {
    Service::ALL.into_iter().fold(plan, |plan, service| plan.set(service, name, value))
}

/// What two clients and the operators of a system may do. All are known to it already.
struct People<'a> {
    desk: Client<'a>,
    /// Bound to clients 7 and 8.
    seven: Client<'a>,
    eight: Client<'a>,
    reader: Client<'a>,
}

const WRITES: [Scope; 3] = [Scope::OrdersRead, Scope::OrdersWrite, Scope::ItemsWrite];

impl People<'_> {
    /// Holds the system to what each of them may do.
    async fn try_everything(&self) -> Result<()> {
        let item = self.try_scopes().await?;
        let (of_seven, of_eight) = self.try_creates(item).await?;
        self.try_reads(item, of_seven, of_eight).await?;
        self.try_cancels(of_seven, of_eight).await
    }

    async fn try_scopes(&self) -> Result<i64> {
        let nobody = Client { bed: self.desk.bed, credentials: String::new() };
        let stranger = Client { bed: self.desk.bed, credentials: "wrong".to_owned() };
        for client in [&nobody, &stranger] {
            let refused = client.create(&order(1, 1), None).await?;
            refused.is_problem(401, "unauthenticated", None)?;
            let challenge = refused.header("www-authenticate").context("no challenge")?;
            ensure!(challenge.starts_with("Bearer"), "{challenge}");
            client.status(1).await?.is_problem(401, "unauthenticated", None)?;
        }
        for service in Service::ALL {
            for open in ["/health", "/ready", "/openapi.json", "/problems/", "/docs/"] {
                nobody.get(service, open).await?.status.eq(&200).then_some(()).context(open)?;
            }
            nobody.get(service, "/metrics").await?.is_problem(401, "unauthenticated", None)?;
            self.desk.get(service, "/metrics").await?.is_problem(403, "forbidden", None)?;
        }
        self.reader.create(&order(1, 1), None).await?.is_problem(403, "forbidden", None)?;
        let letters = self.desk.get(Service::Monitoring, DEAD_LETTERS).await?;
        letters.is_problem(403, "forbidden", None)?;
        let thing = json!({"seller_id": 1, "price": 1, "name": "thing", "quantity": 100});
        let add = (Method::POST, Service::Store, ADD, Some(&thing), None);
        let refused = self.seven.ask(add.0.clone(), add.1, add.2, add.3, add.4).await?;
        refused.is_problem(403, "forbidden", None)?;
        ensure!(refused.text.contains("items:write"), "{}", refused.text);
        let added = self.desk.ask(add.0, add.1, add.2, add.3, add.4).await?.expect(201)?;
        // The catalogue is for everybody.
        nobody.get(Service::Store, ITEMS).await?.expect(200)?;
        added["item_id"].as_i64().context("no item_id")
    }

    async fn try_creates(&self, item: i64) -> Result<(i64, i64)> {
        let of_seven = self.seven.place(&order(item, 7), Some("k")).await?;
        let of_eight = self.eight.place(&order(item, 8), Some("k")).await?;
        let foreign = self.seven.create(&order(item, 8), None).await?;
        foreign.is_problem(403, "forbidden", Some("client_id"))?;
        let both = json!({"orders": [order(item, 7), order(item, 8)]});
        let many = (Method::POST, Service::CreateOrder, CREATE_MANY, Some(&both), None);
        let foreign = self.seven.ask(many.0, many.1, many.2, many.3, many.4).await?;
        foreign.is_problem(403, "forbidden", Some("client_id"))?;

        // The same request under the same key: once for each principal.
        ensure!(self.seven.place(&order(item, 7), Some("k")).await? == of_seven, "a repetition");
        let of_desk = self.desk.place(&order(item, 7), Some("k")).await?;
        ensure!(of_desk != of_seven, "another principal's key was replayed");
        Ok((of_seven, of_eight))
    }

    async fn try_reads(&self, item: i64, of_seven: i64, of_eight: i64) -> Result<()> {
        let monitoring = Service::Monitoring;
        for (client, own) in [(&self.seven, of_seven), (&self.eight, of_eight)] {
            let path = format!("{STATUS}?order_id={own}&wait_ms=30000");
            let status = client.get(monitoring, &path).await?.expect(200)?;
            ensure!(status["step"] == "SHIPPING", "{status}");
            let evidence = client.get(monitoring, &format!("{EVIDENCE}?order_id={own}")).await?;
            evidence.expect(200)?;
        }
        self.eight.status(of_seven).await?.is_problem(404, "not-found", None)?;
        let evidence = format!("{EVIDENCE}?order_id={of_seven}");
        self.eight.get(monitoring, &evidence).await?.is_problem(404, "not-found", None)?;
        self.reader.get(monitoring, &evidence).await?.expect(200)?;

        let listed = self.eight.get(monitoring, ORDERS).await?.expect(200)?;
        let orders = listed["items"].as_array().context("no items")?;
        ensure!(orders.len() == 1 && orders[0]["order_id"] == of_eight, "{listed}");
        let foreign = self.eight.get(monitoring, &format!("{ORDERS}?client_id=7")).await?;
        foreign.is_problem(403, "forbidden", Some("client_id"))?;
        self.eight.get(monitoring, &format!("{ORDERS}?client_id=8")).await?.expect(200)?;
        let all = self.reader.get(monitoring, ORDERS).await?.expect(200)?;
        ensure!(all["items"].as_array().is_some_and(|items| items.len() == 3), "{all}");
        self.eight.get(monitoring, STATS).await?.is_problem(403, "forbidden", None)?;
        self.reader.get(monitoring, STATS).await?.expect(200)?;
        self.eight.get(monitoring, STUCK).await?.expect(200)?;
        for feed in ["newest", "stats", "stuck"] {
            let path = format!("{STREAM}?{feed}=true");
            self.eight.get(monitoring, &path).await?.is_problem(403, "forbidden", None)?;
        }
        for (client, own) in [(&self.seven, of_seven), (&self.eight, of_eight)] {
            let first = client.first_on_stream([of_seven, of_eight]).await?;
            ensure!(first["order_id"] == own, "{first}");
        }

        let path = format!("{RESERVATIONS}?item_id={item}");
        let held = self.eight.get(Service::Store, &path).await?.expect(200)?;
        let held = held["items"].as_array().context("no items")?;
        ensure!(held.len() == 1 && held[0]["client_id"] == 8, "{held:?}");
        let path = format!("{FIND}?item_id={item}");
        let shown = async |client: &Client<'_>| {
            let found = client.get(Service::Store, &path).await?.expect(200)?;
            ensure!(found["reserved"].as_i64().is_some_and(|units| units > 0), "{found}");
            anyhow::Ok(found["reservations"].as_array().map_or(0, Vec::len))
        };
        ensure!(shown(&self.eight).await? == 0 && shown(&self.reader).await? > 0, "reservations");
        Ok(())
    }

    async fn try_cancels(&self, of_seven: i64, of_eight: i64) -> Result<()> {
        self.reader.cancel(of_seven, None).await?.is_problem(403, "forbidden", None)?;
        self.eight.cancel(of_seven, None).await?.is_problem(404, "not-found", None)?;
        // The key was not used up by what was refused.
        self.eight.cancel(of_seven, Some("c")).await?.is_problem(404, "not-found", None)?;
        self.eight.cancel(of_eight, Some("c")).await?.expect(202)?;
        let status = self.seven.status(of_seven).await?.expect(200)?;
        ensure!(status["is_cancelled"] == false, "{status}");
        self.seven.cancel(of_seven, None).await?.expect(202).map(drop)
    }
}

#[test]
fn api_keys_say_who_may_do_what_and_are_changed_while_services_run() -> Result<()> {
    let file = NamedTempFile::new()?;
    let path = file.path().to_str().context("no path")?.to_owned();
    let orders = [Scope::OrdersRead, Scope::OrdersWrite];
    let (desk, one) = key("desk", &WRITES, None)?;
    let (seven, two) = key("seven", &orders, Some(7))?;
    let (eight, three) = key("eight", &orders, Some(8))?;
    let (reader, four) = key("reader", &[Scope::OrdersRead], None)?;
    std::fs::write(&path, [one, two, three, four].concat())?;
    let plan = with_all(Plan::default(), "AUTH", "api-key");
    let plan = with_all(plan, "API_KEYS_FILE", &path);
    block_on(plan.run(async |bed| {
        let client = |credentials: &str| Client { bed, credentials: credentials.to_owned() };
        let [desk, seven, eight, reader] = [&desk, &seven, &eight, &reader].map(|it| client(it));
        let people = People { desk, seven, eight, reader };
        people.try_everything().await?;

        let keys = async || {
            let ready = bed.get(Service::Monitoring, "/ready").await?.json()?;
            anyhow::Ok(state_of(&ready, "api-keys")?.clone())
        };
        std::fs::write(&path, "[[key]]\nname = \"half\"")?;
        until("a broken file shows", async || Ok(keys().await?["ready"] == false)).await?;
        ensure!(keys().await?["detail"].as_str().is_some_and(|it| it.contains(&path)));
        people.reader.get(Service::Monitoring, ORDERS).await?.expect(200)?;
        let (newcomer, entry) = key("newcomer", &[Scope::Admin], None)?;
        std::fs::write(&path, entry)?;
        let newcomer = client(&newcomer);
        for service in Service::ALL {
            let let_in = async || Ok(newcomer.get(service, "/metrics").await?.status == 200);
            until("the new key is known", let_in).await?;
        }
        let gone = people.reader.get(Service::Monitoring, ORDERS).await?;
        gone.is_problem(401, "unauthenticated", None)?;
        let refused = "http_server_authentications_refused_total{reason=\"unknown\"}";
        ensure!(bed.metric(Service::Monitoring, refused).await? >= 1);
        for process in bed.services.values() {
            let log = std::fs::read_to_string(process.log())?;
            ensure!(
                !log.contains(&newcomer.credentials),
                "a key is in {}",
                process.log().display()
            );
        }
        Ok(())
    }))
}

/// An issuer's key.
struct Signer {
    id: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Result<Self> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let made = made.ok().context("no key")?;
        let key = Ed25519KeyPair::from_pkcs8(made.as_ref()).ok().context("no key")?;
        Ok(Self { id, key })
    }

    fn set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "alg": "EdDSA", "x": x});
        json!({"keys": [key]}).to_string()
    }

    fn token(&self, subject: &str, scope: &str, client: Option<i64>) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.id});
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope,
                                "exp": clock::now().timestamp() + 3_600});
        if let Some(client) = client {
            claims["ordersaga_client_id"] = json!(client);
        }
        let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Serves a key set to whoever asks, as long as there is one.
fn serve(set: Arc<Mutex<String>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/keys", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let set = set.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let status = if set.is_empty() { "503 Service Unavailable" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{set}", set.len());
        }
    });
    Ok(url)
}

#[test]
fn tokens_say_who_may_do_what_and_their_keys_change_while_services_run() -> Result<()> {
    let (first, second) = (Signer::new("first")?, Signer::new("second")?);
    let (file, set) = (NamedTempFile::new()?, Arc::new(Mutex::new(first.set())));
    let path = file.path().to_str().context("no path")?.to_owned();
    std::fs::write(&path, first.set())?;
    let plan = with_all(Plan::default(), "AUTH", "jwt");
    let plan = with_all(with_all(plan, "JWT_ISSUER", ISSUER), "JWT_AUDIENCE", AUDIENCE);
    let plan = with_all(plan, "JWT_JWKS", &serve(set.clone())?);
    let plan = plan.set(Service::Store, "JWT_JWKS", &path);
    let publish = |text: String| *set.lock().unwrap_or_else(PoisonError::into_inner) = text;
    block_on(plan.run(async |bed| {
        let client = |credentials: String| Client { bed, credentials };
        let all = WRITES.map(Scope::name).join(" ");
        let people = People {
            desk: client(first.token("desk", &all, None)),
            seven: client(first.token("seven", "orders:read orders:write", Some(7))),
            eight: client(first.token("eight", "orders:read orders:write", Some(8))),
            reader: client(first.token("reader", "orders:read", None)),
        };
        people.try_everything().await?;

        // The issuer is away: its keys are good as they are.
        publish(String::new());
        let newcomer = client(second.token("newcomer", "orders:read", None));
        newcomer.status(1).await?.is_problem(401, "unauthenticated", None)?;
        people.reader.get(Service::Monitoring, ORDERS).await?.expect(200)?;
        // It comes back with another key.
        publish(second.set());
        std::fs::write(&path, second.set())?;
        let path = format!("{RESERVATIONS}?item_id=1000");
        for (service, path) in [(Service::Monitoring, ORDERS), (Service::Store, path.as_str())] {
            let let_in = async || Ok(newcomer.get(service, path).await?.status == 200);
            until("the new key is known", let_in).await?;
            let gone = people.reader.get(service, path).await?;
            gone.is_problem(401, "unauthenticated", None)?;
        }
        Ok(())
    }))
}

#[test]
fn a_service_that_asks_nobody_does_not_listen_in_public() -> Result<()> {
    for service in Service::ALL {
        let start = |settings: &[(&str, &str)]| {
            let mut command = Command::new(binary(service)?);
            command.env_clear().env("HTTP_LISTEN", "0.0.0.0:0").stdin(Stdio::null());
            for url in ["DATABASE_URL", "DATABASE_MIGRATION_URL"] {
                command.env(url, "postgres://u:p@127.0.0.1:1/d");
            }
            command.env("SHARDS", "shard1=postgres://u:p@127.0.0.1:1/d");
            let output = command.envs(settings.iter().copied()).output()?;
            anyhow::Ok((output.status.code(), String::from_utf8(output.stderr)?))
        };
        let (code, said) = start(&[])?;
        ensure!(code == Some(2) && said.contains("AUTH_OFF_IN_PUBLIC=true"), "{code:?}: {said}");
        let (code, said) = start(&[("AUTH", "api-key")])?;
        ensure!(code == Some(2) && said.contains("API_KEYS_FILE"), "{code:?}: {said}");
        let broken = NamedTempFile::new()?;
        std::fs::write(broken.path(), "[[key]]\nsecret = \"geheim\"")?;
        let path = broken.path().to_str().context("no path")?;
        let (code, said) = start(&[("AUTH", "api-key"), ("API_KEYS_FILE", path)])?;
        ensure!(code == Some(2) && said.contains(path), "{code:?}: {said}");
        ensure!(!said.contains("geheim"), "{said}");
    }
    Ok(())
}

#[test]
fn the_tool_makes_keys() -> Result<()> {
    let tool = binary(Service::Store)?.with_file_name("ordersaga");
    let make = ["api-key", "new", "--name", "desk", "--scopes", "orders:read,items:write"];
    let output = Command::new(&tool).args(make).args(["--client-id", "7"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let entries = ordersaga_api_key::parse(std::str::from_utf8(&output.stdout)?)?;
    let [entry] = &entries[..] else { anyhow::bail!("{entries:?}") };
    ensure!(entry.name == "desk" && entry.client_id == Some(7), "{entry:?}");
    let said = String::from_utf8(output.stderr)?;
    let key = said.lines().find(|line| line.starts_with("ordersaga_")).context("no key")?;
    ensure!(entry.hash()? == ordersaga_api_key::hash(key), "{said}");
    let wrong = Command::new(&tool).args(make).args(["--scopes", "orders"]).output()?;
    ensure!(!wrong.status.success() && String::from_utf8(wrong.stderr)?.contains("orders:write"));
    Ok(())
}
