//! `up --playground`: one more process beside a stack, with which the order desk breaks parts of it
//! and checks its invariants.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ordersaga_devstack::{Companion, Service, ServiceProcess, free_port};

use crate::supervisor::Ports;

/// Its package and binary.
pub(crate) const PROGRAM: &str = "ordersaga-playground";
/// Its port in a stack that is where everybody expects it.
pub(crate) const PORT: u16 = 8003;
/// What the documents of the services, and its own, are called.
const TITLES: [(Service, &str); 3] = [
    (Service::CreateOrder, "Create order"),
    (Service::Monitoring, "Monitoring"),
    (Service::Store, "Store"),
];

/// The playground beside these services, not started. The order desk learns where it is, and may ask
/// it and the services.
pub(crate) fn beside(
    services: &mut BTreeMap<Service, ServiceProcess>,
    ports: Ports,
    folder: &Path,
) -> Result<Companion> {
    let port = if ports == Ports::Usual { PORT } else { free_port()? };
    let document = |(title, port)| format!("{title}=http://localhost:{port}/openapi.json");
    let titles = TITLES.map(|(service, title)| (title, services[&service].port()));
    let documents: Vec<_> =
        titles.into_iter().chain([("Playground", port)]).map(document).collect();
    let desk = services[&Service::Monitoring].port();
    let origins = format!("http://localhost:{desk},http://127.0.0.1:{desk}");
    for service in services.values_mut() {
        service.set("DOCS_URLS", &documents.join(","));
        if ports == Ports::Free {
            // At the usual ports they allow each other's pages by themselves.
            service.set("HTTP_ORIGINS", &origins);
        }
    }
    let environment = [
        ("HTTP_LISTEN", format!("127.0.0.1:{port}")),
        ("HTTP_ORIGINS", origins),
        ("DOCS_URLS", documents.join(",")),
        ("LOG_FORMAT", "json".to_owned()),
        ("RUST_LIB_BACKTRACE", "0".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let arguments = vec!["--data".into(), folder.into()];
    let log = folder.join("logs").join(format!("{PROGRAM}.log"));
    Ok(Companion::new(PROGRAM, arguments, environment, port, log))
}

/// Starts it and waits until it is ready.
pub(crate) async fn start(playground: &Companion, within: Duration) -> Result<()> {
    playground.start()?;
    playground.wait_ready(within).await
}
