//! The receiver: counts every event once and how long it took to arrive.
//!
//! HTTP/1.1 by hand on one thread, only as much of it as our own client speaks, so
//! that it costs the machine as little as it can: requests with a `content-length`,
//! connections that stay open, always `200` without a body.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context as _;
use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::histogram::Histogram;
use crate::payload;
use crate::payload::Mark;
use crate::protocol;
use crate::protocol::Answer;
use crate::protocol::Order;
use crate::protocol::Tally;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUFFER_BYTES: usize = 64 * 1024;

/// What arrived so far.
#[derive(Default)]
struct Arrivals {
    run: u32,
    seen: Vec<u64>,
    latency: Histogram,
    tally: Tally,
}

type Shared = Arc<Mutex<Arrivals>>;

/// Serves on a free port until the orders end.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let arrivals = Shared::default();
    protocol::answer(&Answer::Ready { address: Some(listener.local_addr()?) })?;
    tokio::spawn(accept(listener, Arc::clone(&arrivals)));
    let mut orders = protocol::orders();
    while let Some(order) = orders.recv().await {
        let said = {
            let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            obey(&mut arrivals, &order)
        };
        protocol::answer(&said)?;
    }
    Ok(())
}

fn obey(arrivals: &mut Arrivals, order: &Order) -> Answer {
    match order {
        Order::Begin { run } => {
            *arrivals = Arrivals { run: *run, ..Arrivals::default() };
            Answer::Done
        }
        Order::Tally => {
            arrivals.tally.latency = arrivals.latency.quantiles();
            Answer::Tally(arrivals.tally.clone())
        }
        Order::Subscribe { .. } | Order::Publish(_) | Order::Post { .. } => {
            Answer::Failed("this is the receiver".into())
        }
    }
}

async fn accept(listener: TcpListener, arrivals: Shared) {
    while let Ok((stream, _peer)) = listener.accept().await {
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).tally.connections += 1;
        let arrivals = Arc::clone(&arrivals);
        tokio::spawn(async move {
            match serve(stream, &arrivals).await {
                // Senders that end are killed: no close is too rude.
                Err(error) if !error.is::<std::io::Error>() => eprintln!("receiver: {error:#}"),
                Ok(()) | Err(_) => {}
            }
        });
    }
}

async fn serve(mut stream: TcpStream, arrivals: &Shared) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    let mut mark_at = 0;
    loop {
        while let Some((head, body)) = frame(&buffer)? {
            if buffer.len() < head + body {
                break;
            }
            let mark = payload::read(&buffer[head..head + body], &mut mark_at);
            arrivals.lock().unwrap_or_else(PoisonError::into_inner).count(mark);
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

impl Arrivals {
    fn count(&mut self, mark: Option<Mark>) {
        let Some(mark) = mark.filter(|mark| mark.run == self.run) else {
            self.tally.strays += 1;
            return;
        };
        let word = usize::try_from(mark.number / 64).expect("a count fits");
        if self.seen.len() <= word {
            self.seen.resize((word + 1) * 2, 0);
        }
        let bit = 1 << (mark.number % 64);
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
