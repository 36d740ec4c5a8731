//! No process outlives the one that started it, and none ends before.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ordersaga_devstack::{Part, is_alive};

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        ensure!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Started by the test below as a process of its own.
#[tokio::test]
#[ignore = "waits until it is killed"]
async fn owner_of_parts() -> Result<()> {
    let postgres = Part::temporary_postgres().await?;
    let redis = Part::temporary_redis().await?;
    for part in [&postgres, &redis] {
        let pid = part.pid().context("it runs")?;
        writeln!(std::io::stderr(), "part {pid} {}", part.log().display())?;
    }
    std::future::pending().await
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_behind() -> Result<()> {
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "owner_of_parts", "--ignored", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = owner.stderr.take().context("it has an output")?;
    let parts: Vec<(u32, String)> = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            let (pid, log) = line.strip_prefix("part ")?.split_once(' ')?;
            Some((pid.parse().ok()?, log.to_owned()))
        })
        .take(2)
        .collect();
    ensure!(parts.len() == 2, "the owner did not start its parts");
    owner.kill()?;
    owner.wait()?;
    for (pid, log) in parts {
        until("the part has ended", || !is_alive(pid, "")).await?;
        let folder = Path::new(&log).parent().context("a log has a folder")?;
        until("its folder is gone", || !folder.exists()).await?;
    }
    Ok(())
}

#[test]
fn a_part_outlives_the_thread_that_started_it() -> Result<()> {
    let start = || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(Part::temporary_redis())
    };
    let redis = std::thread::spawn(start).join();
    let redis = redis.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    // Its starter is gone; a signal sent then would have arrived by now.
    std::thread::yield_now();
    ensure!(redis.pid().is_some(), "Redis ended with the thread");
    ensure!(std::net::TcpStream::connect(("127.0.0.1", redis.port())).is_ok());
    Ok(())
}
