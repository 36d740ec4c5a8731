//! Redis as a child process: a cache only, so nothing is written to disk.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Launch;
use crate::{Security, private_folder, programs};

/// `security` makes it take encrypted connections only, of the user that its file names.
pub(crate) fn launch(
    folder: &Path,
    port: u16,
    security: Option<&Security>,
    log: &Path,
) -> Result<Launch> {
    private_folder(folder)?;
    let port = port.to_string();
    let dir = folder.to_string_lossy();
    let port_option = if security.is_some() { "--tls-port" } else { "--port" };
    let options: [(&str, &str); 8] = [
        (port_option, &port),
        ("--bind", "127.0.0.1"),
        ("--dir", &dir),
        ("--save", ""),
        ("--appendonly", "no"),
        ("--maxmemory", "64mb"),
        ("--maxmemory-policy", "volatile-lru"),
        ("--daemonize", "no"),
    ];
    let mut arguments: Vec<OsString> =
        options.iter().flat_map(|(name, value)| [name.into(), value.into()]).collect();
    if let Some(security) = security {
        arguments.extend(["--port", "0", "--tls-auth-clients", "no"].map(OsString::from));
        for (name, file) in [
            ("--tls-cert-file", security.certificate()),
            ("--tls-key-file", security.key()),
            ("--tls-ca-cert-file", security.authority()),
            ("--aclfile", security.redis_users()),
        ] {
            arguments.extend([name.into(), file.into_os_string()]);
        }
    }
    Ok(Launch {
        program: programs::find("redis-server").context("no redis-server found")?,
        arguments,
        environment: [].into(),
        folder: None,
        log: log.to_owned(),
        death_signal: "KILL",
        user: None,
    })
}

pub(crate) async fn is_ready(port: u16) -> bool {
    tokio::time::timeout(Duration::from_secs(1), ping(port))
        .await
        .is_ok_and(|pong| pong.is_ok_and(|text| text.starts_with(b"+PONG")))
}

async fn ping(port: u16) -> std::io::Result<[u8; 7]> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    connection.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).await?;
    Ok(answer)
}
