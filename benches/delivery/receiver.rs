//! The receiver: counts every delivery once and how long it took to arrive.
//!
//! HTTP/1.1 by hand on one thread, only as much of it as our own client speaks, so
//! that it costs the machine as little as it can: requests with a `content-length`,
//! connections that stay open, always `200` without a body. What comes to the path of
//! a [`Manner`] is not counted and gets what it deserves.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use anyhow::Context as _;
use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificate;
use crate::histogram::Histogram;
use crate::hostile::Manner;
use crate::payload;
use crate::payload::Mark;
use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Doors;
use crate::protocol::Order;
use crate::protocol::Tally;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUFFER_BYTES: usize = 64 * 1024;

/// What arrived so far.
#[derive(Default)]
struct Arrivals {
    run: u32,
    fan_out: u32,
    seen: Vec<u64>,
    latency: Histogram,
    tally: Tally,
}

type Shared = Arc<Mutex<Arrivals>>;

/// Serves on two free ports, one with TLS, until the orders end.
pub(crate) async fn run() -> anyhow::Result<()> {
    let plain = TcpListener::bind(("127.0.0.1", 0)).await?;
    let secure = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (config, authority) = certificate::server()?;
    let doors =
        Doors { plain: Some(plain.local_addr()?), secure: Some(secure.local_addr()?), authority };
    let arrivals = Shared::default();
    protocol::answer(&Answer::Ready(doors))?;
    tokio::spawn(accept(plain, None, Arc::clone(&arrivals)));
    tokio::spawn(accept(secure, Some(TlsAcceptor::from(config)), Arc::clone(&arrivals)));
    let mut orders = protocol::orders();
    while let Some(order) = orders.recv().await {
        let said = obey(&mut lock(&arrivals), &order);
        protocol::answer(&said)?;
    }
    Ok(())
}

fn lock(arrivals: &Shared) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

fn obey(arrivals: &mut Arrivals, order: &Order) -> Answer {
    match order {
        Order::Begin { run, fan_out } => {
            *arrivals = Arrivals { run: *run, fan_out: *fan_out, ..Arrivals::default() };
            Answer::Done
        }
        Order::Tally => {
            arrivals.tally.latency = arrivals.latency.quantiles();
            Answer::Tally(arrivals.tally.clone())
        }
        Order::Subscribe(_) | Order::Publish(_) | Order::Post { .. } => {
            Answer::Failed("this is the receiver".into())
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, arrivals: Shared) {
    while let Ok((stream, _peer)) = listener.accept().await {
        lock(&arrivals).tally.connections += 1;
        let (arrivals, tls) = (Arc::clone(&arrivals), tls.clone());
        tokio::spawn(async move {
            let served = match (stream.set_nodelay(true), tls) {
                (Err(error), _) => Err(error.into()),
                (Ok(()), None) => serve(stream, &arrivals).await,
                (Ok(()), Some(tls)) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &arrivals).await,
                    Err(error) => Err(error.into()),
                },
            };
            match served {
                // Senders that end are killed: no close is too rude.
                Err(error) if !error.is::<std::io::Error>() => eprintln!("receiver: {error:#}"),
                Ok(()) | Err(_) => {}
            }
        });
    }
}

async fn serve<S>(mut stream: S, arrivals: &Shared) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    let mut mark_at = 0;
    loop {
        while let Some((head, body)) = frame(&buffer)? {
            if buffer.len() < head + body {
                break;
            }
            let path = path(&buffer);
            if let Some(manner) = Manner::at(path) {
                return Ok(manner.answer(stream).await?);
            }
            let subscription = last_number(path);
            let mark = payload::read(&buffer[head..head + body], &mut mark_at);
            lock(arrivals).count(subscription, mark);
            buffer.advance(head + body);
            stream.write_all(ANSWER).await?;
        }
        buffer.reserve(BUFFER_BYTES / 2);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Bytes of the first request's head and of its body; `None`: its head is not all there.
fn frame(buffer: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut at = 0;
    let mut body = 0;
    while let Some(length) = buffer[at..].iter().position(|byte| *byte == b'\n') {
        let line = buffer[at..at + length].trim_ascii_end();
        at += length + 1;
        if line.is_empty() {
            return Ok(Some((at, body)));
        }
        let name = b"content-length:";
        if let Some((start, value)) = line.split_at_checked(name.len())
            && start.eq_ignore_ascii_case(name)
        {
            let value = std::str::from_utf8(value).context("a length is ASCII")?;
            body = value.trim().parse().context("a length is a number")?;
        }
    }
    Ok(None)
}

/// What stands between the first two spaces.
fn path(request: &[u8]) -> &[u8] {
    request.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

/// The number that a path ends with: which subscription it is.
fn last_number(path: &[u8]) -> u64 {
    let digits = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')))
}

impl Arrivals {
    fn count(&mut self, subscription: u64, mark: Option<Mark>) {
        let fan_out = u64::from(self.fan_out);
        let ours = mark.filter(|mark| mark.run == self.run && subscription < fan_out);
        let Some(mark) = ours else {
            self.tally.strays += 1;
            return;
        };
        let delivery = mark.number * fan_out + subscription;
        let word = usize::try_from(delivery / 64).expect("a count fits");
        if self.seen.len() <= word {
            self.seen.resize((word + 1) * 2, 0);
        }
        let bit = 1 << (delivery % 64);
        if self.seen[word] & bit != 0 {
            self.tally.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        let now = payload::now_us();
        self.tally.unique += 1;
        self.tally.last_us = now;
        self.latency.record(now.saturating_sub(mark.time_us));
    }
}
