//! Receivers that mean harm, or are broken as if they did: each reads one request and
//! answers in its own bad way, over a plain socket.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufStream, Result};
use tokio::net::{TcpListener, TcpStream};

use super::eventually::meanwhile;
use super::wire::read_request;

/// Announced and sent, if the caller goes on reading.
const HUGE: u64 = 1 << 30;
const HEADER_FLOOD: usize = 10 << 20;
static CHUNK: [u8; 1 << 16] = [b'x'; 1 << 16];

/// A way to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hostility {
    /// 200, then a byte of the body now and then.
    DrippingBody,
    /// A byte of the status line now and then.
    DrippingHead,
    /// Interim answers (103) without end, a thousand a second.
    EndlessInterim,
    /// 500 with a body of 1 GiB.
    HugeBody,
    /// 200 with 10 MiB of headers.
    HeaderFlood,
    /// 500 with a body of 7 MiB that would be 1 GiB decompressed.
    GzipBomb,
    /// 500, and in the same breath a 200 that nobody has asked for.
    SecondAnswer,
    /// The end instead of an answer.
    EarlyClose,
    /// A 200 that announces a body, then RST.
    ResetAfterHead,
    /// Text without a status line, as in the days of HTTP/0.9.
    Http09,
    /// What an HTTP/2 client would begin with.
    Http2Preface,
}

impl Hostility {
    pub(crate) const ALL: [Hostility; 11] = [
        Hostility::DrippingBody,
        Hostility::DrippingHead,
        Hostility::EndlessInterim,
        Hostility::HugeBody,
        Hostility::HeaderFlood,
        Hostility::GzipBomb,
        Hostility::SecondAnswer,
        Hostility::EarlyClose,
        Hostility::ResetAfterHead,
        Hostility::Http09,
        Hostility::Http2Preface,
    ];
}

/// What [`Hostility::GzipBomb`] sends: the start of valid gzip, 158 bytes of zeros a byte.
pub(crate) static GZIP_BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // RFC 1951, 3.2.6: one last block with the fixed codes, a literal zero, then "258
    // bytes again from one byte back" for ever, in 13 bits.
    let start = "110".chars().chain("00110000".chars());
    let bits = start.chain("1100010100000".chars().cycle());
    let mut bits = bits.map(|bit| u8::from(bit == '1'));
    let mut byte = || (0..8).fold(0, |byte, place| byte | bits.next().expect("endless") << place);
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bomb.extend((0..64).map(|_| byte()));
    // From here on it repeats: 8 times 13 bits are 13 bytes.
    while u64::try_from(bomb.len()).expect("64 bits") < HUGE / 158 {
        let period = (bomb.len() - 64) / 13 * 13;
        bomb.extend_from_within(bomb.len() - period.max(13)..);
    }
    bomb
});

/// Starts such a receiver on loopback; it ends with the test. Its URL.
pub(crate) async fn receiver(hostility: Hostility) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The caller hangs up as soon as it has had enough: that is no fault here.
            tokio::spawn(async move { answer(stream, hostility).await.ok() });
        }
    });
    format!("http://{address}/hook")
}

async fn answer(stream: TcpStream, hostility: Hostility) -> Result<()> {
    let mut stream = BufStream::new(stream);
    while read_request(&mut stream, 0).await?.is_some() {
        let wire = stream.get_mut();
        match hostility {
            Hostility::DrippingBody => {
                wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await?;
                drip(wire, std::iter::repeat(b'.')).await?;
            }
            Hostility::DrippingHead => {
                let head = b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().copied();
                drip(wire, head.chain(std::iter::repeat(b'.'))).await?;
            }
            Hostility::EndlessInterim => loop {
                // Faster, a hundred of them would keep the machine busy with writing.
                wire.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50)).await?;
                meanwhile(Duration::from_millis(50)).await;
            },
            Hostility::HugeBody => {
                let head = format!("HTTP/1.1 500 Oh\r\nContent-Length: {HUGE}\r\n\r\n");
                wire.write_all(head.as_bytes()).await?;
                for _ in 0..HUGE >> 16 {
                    wire.write_all(&CHUNK).await?;
                }
            }
            Hostility::HeaderFlood => {
                wire.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                let header = format!("X-Flood: {}\r\n", "v".repeat(1000));
                for _ in 0..HEADER_FLOOD / header.len() {
                    wire.write_all(header.as_bytes()).await?;
                }
                wire.write_all(b"Content-Length: 0\r\n\r\n").await?;
            }
            Hostility::GzipBomb => {
                let length = GZIP_BOMB.len();
                let head = format!(
                    "HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
                );
                wire.write_all(head.as_bytes()).await?;
                wire.write_all(&GZIP_BOMB).await?;
            }
            Hostility::SecondAnswer => {
                let first = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
                let second = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                wire.write_all(format!("{first}{second}").as_bytes()).await?;
            }
            Hostility::EarlyClose => return Ok(()),
            Hostility::ResetAfterHead => {
                wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await?;
                return wire.set_zero_linger();
            }
            Hostility::Http09 => return wire.write_all(b"<html>All is well.</html>\r\n").await,
            Hostility::Http2Preface => {
                wire.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
            }
        }
    }
    Ok(())
}

async fn drip(wire: &mut TcpStream, bytes: impl Iterator<Item = u8>) -> Result<()> {
    for byte in bytes {
        wire.write_all(&[byte]).await?;
        meanwhile(Duration::from_millis(100)).await;
    }
    Ok(())
}
