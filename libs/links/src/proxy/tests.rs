//! Each toxic on real sockets. What must pass is waited for with a generous bound; that nothing
//! passes is looked at for [`QUIET`], in which a defect would show.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::ensure;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::*;

const WITHIN: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(150);

/// A client and a server, connected through a proxy.
struct Pair {
    listener: TcpListener,
    proxy: Proxy,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    async fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Proxy::start(listener.local_addr()?).await?;
        let client = connect(&proxy).await?;
        let server = accepted(&listener).await?;
        let mut pair = Self { listener, proxy, client, server };
        // From now on the proxy, too, knows that it is connected.
        pair.talk().await?;
        Ok(pair)
    }

    /// Something passes both ways.
    async fn talk(&mut self) -> Result<()> {
        self.client.write_all(b"question").await?;
        expect(&mut self.server, b"question").await?;
        self.server.write_all(b"answer").await?;
        expect(&mut self.client, b"answer").await
    }
}

async fn connect(proxy: &Proxy) -> Result<TcpStream> {
    Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await?)
}

async fn accepted(listener: &TcpListener) -> Result<TcpStream> {
    Ok(timeout(WITHIN, listener.accept()).await??.0)
}

async fn expect(stream: &mut TcpStream, text: &[u8]) -> Result<()> {
    let mut read = vec![0; text.len()];
    timeout(WITHIN, stream.read_exact(&mut read)).await??;
    ensure!(read == text, "{} came", String::from_utf8_lossy(&read));
    Ok(())
}

/// Neither data nor an end arrives.
async fn expect_silence(stream: &mut TcpStream) -> Result<()> {
    let mut read = [0; 16];
    let silent = timeout(QUIET, stream.read(&mut read)).await.is_err();
    ensure!(silent, "something came");
    Ok(())
}

async fn expect_reset(stream: &mut TcpStream) -> Result<()> {
    let mut read = [0; 16];
    let error = timeout(WITHIN, stream.read(&mut read)).await?.err();
    let kind = error.map(|error| error.kind());
    ensure!(kind == Some(std::io::ErrorKind::ConnectionReset), "{kind:?}");
    Ok(())
}

async fn expect_end(stream: &mut TcpStream) -> Result<()> {
    let mut read = [0; 16];
    ensure!(timeout(WITHIN, stream.read(&mut read)).await?? == 0, "data came after the end");
    Ok(())
}

#[tokio::test]
async fn a_whole_link_passes_both_ways_and_half_closed() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.client.shutdown().await?;
    expect_end(&mut pair.server).await?;
    pair.server.write_all(b"still here").await?;
    expect(&mut pair.client, b"still here").await?;
    drop(pair.server);
    expect_end(&mut pair.client).await
}

#[tokio::test]
async fn latency_delays_and_keeps_the_order() -> Result<()> {
    let mut pair = Pair::new().await?;
    let delay = Duration::from_millis(80);
    pair.proxy.set(Some(Toxic::Latency { delay, jitter: delay }));
    let begin = Instant::now();
    let text: Vec<u8> = (0..64).collect();
    for byte in &text {
        pair.client.write_all(&[*byte]).await?;
        // Each a packet of its own, with a lateness of its own.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    expect(&mut pair.server, &text).await?;
    ensure!(begin.elapsed() >= delay);
    pair.talk().await
}

#[tokio::test]
async fn healing_ends_a_delay_at_once() -> Result<()> {
    let mut pair = Pair::new().await?;
    let delay = Duration::from_hours(1);
    pair.proxy.set(Some(Toxic::Latency { delay, jitter: Duration::ZERO }));
    pair.client.write_all(b"late").await?;
    expect_silence(&mut pair.server).await?;
    pair.proxy.set(None);
    expect(&mut pair.server, b"late").await
}

#[tokio::test]
async fn cut_up_holds_requests_and_passes_answers() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::CutUp));
    pair.client.write_all(b"one").await?;
    expect_silence(&mut pair.server).await?;
    pair.server.write_all(b"answer").await?;
    expect(&mut pair.client, b"answer").await?;
    pair.proxy.set(None);
    pair.client.write_all(b"two").await?;
    expect(&mut pair.server, b"onetwo").await
}

#[tokio::test]
async fn cut_down_passes_requests_and_holds_answers() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::CutDown));
    pair.client.write_all(b"question").await?;
    expect(&mut pair.server, b"question").await?;
    pair.server.write_all(b"answer").await?;
    expect_silence(&mut pair.client).await?;
    pair.proxy.set(None);
    expect(&mut pair.client, b"answer").await?;
    pair.talk().await
}

#[tokio::test]
async fn cut_hides_ends_until_it_heals() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::Cut));
    pair.client.write_all(b"last words").await?;
    pair.client.shutdown().await?;
    pair.server.set_zero_linger()?;
    expect_silence(&mut pair.server).await?;
    pair.proxy.set(None);
    expect(&mut pair.server, b"last words").await?;
    expect_end(&mut pair.server).await?;
    // And a reset, the other way.
    pair.proxy.set(Some(Toxic::Cut));
    drop(pair.server);
    expect_silence(&mut pair.client).await?;
    pair.proxy.set(None);
    expect_reset(&mut pair.client).await
}

#[tokio::test]
async fn an_end_without_last_words_waits_as_well() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::CutUp));
    pair.client.shutdown().await?;
    expect_silence(&mut pair.server).await?;
    pair.proxy.set(None);
    expect_end(&mut pair.server).await
}

#[tokio::test]
async fn a_cut_link_accepts_connections_and_forgets_those_given_up() -> Result<()> {
    let pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::Cut));
    let mut given_up = connect(&pair.proxy).await?;
    given_up.write_all(b"given up").await?;
    let mut patient = connect(&pair.proxy).await?;
    patient.write_all(b"patient").await?;
    ensure!(timeout(QUIET, pair.listener.accept()).await.is_err(), "a connection got through");
    drop(given_up);
    // The proxy has seen the end before the link heals.
    expect_silence(&mut patient).await?;
    pair.proxy.set(None);
    expect(&mut accepted(&pair.listener).await?, b"patient").await?;
    ensure!(timeout(QUIET, pair.listener.accept()).await.is_err(), "it was not forgotten");
    Ok(())
}

#[tokio::test]
async fn a_cut_link_holds_so_much_and_loses_nothing() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::Cut));
    // More than the proxy and the kernel's buffers hold.
    let text: Vec<u8> = (0..64 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 4]).collect();
    let writing = timeout(Duration::from_secs(1), pair.client.write_all(&text)).await;
    ensure!(writing.is_err(), "the sender was never made to wait");
    drop(pair.client);
    pair.proxy.set(None);
    let mut read = Vec::new();
    timeout(WITHIN, pair.server.read_to_end(&mut read)).await??;
    ensure!(read.len() > pump::MOST && text.starts_with(&read), "{} bytes came", read.len());
    Ok(())
}

#[tokio::test]
async fn refuse_resets_connections_old_and_new() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::Refuse));
    expect_reset(&mut pair.client).await?;
    expect_reset(&mut pair.server).await?;
    // The reset may be there before the connection is known to be.
    if let Ok(mut new) = connect(&pair.proxy).await {
        expect_reset(&mut new).await?;
    }
    pair.proxy.set(None);
    pair.client = connect(&pair.proxy).await?;
    pair.server = accepted(&pair.listener).await?;
    pair.talk().await
}

#[tokio::test]
async fn a_reset_ends_the_current_connections_only() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.reset();
    expect_reset(&mut pair.client).await?;
    expect_reset(&mut pair.server).await?;
    pair.client = connect(&pair.proxy).await?;
    pair.server = accepted(&pair.listener).await?;
    pair.talk().await
}

#[tokio::test]
async fn throttle_passes_everything_slowly() -> Result<()> {
    let mut pair = Pair::new().await?;
    pair.proxy.set(Some(Toxic::Throttle { bytes_per_second: 10_000 }));
    let text: Vec<u8> = (0..4_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let begin = Instant::now();
    pair.client.write_all(&text).await?;
    expect(&mut pair.server, &text).await?;
    // Two fifths of a second, of which the first write may go at once.
    ensure!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_shows_as_a_reset() -> Result<()> {
    let pair = Pair::new().await?;
    drop(pair.listener);
    expect_reset(&mut connect(&pair.proxy).await?).await
}

#[tokio::test]
async fn dropping_the_proxy_ends_its_connections() -> Result<()> {
    let mut pair = Pair::new().await?;
    drop(pair.proxy);
    expect_end(&mut pair.client).await?;
    expect_end(&mut pair.server).await
}
