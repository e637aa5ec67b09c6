//! What the benchmark and its child processes say to each other: one JSON text a
//! line, orders on standard input, answers on standard output.
//!
//! A child ends when its input does, so that none outlives the benchmark.

use std::io::Write as _;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Receiver: forget everything, count this run from now on, in which each event
    /// comes once by each of so many subscriptions.
    Begin { run: u32, fan_out: u32 },
    /// Receiver and collector: say what has arrived.
    Tally,
    /// Load: make a subscription for each URL.
    Subscribe(Subscribing),
    /// Load: publish events.
    Publish(Publishing),
    /// Bare: post signed bodies to this URL.
    Post { url: String, run: u32, seconds: f64, payload_bytes: usize },
}

/// What a child has done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It waits for orders, and here for requests.
    Ready(Doors),
    /// Nothing to tell.
    Done,
    /// Of the receiver; of the collector, spans.
    Tally(Tally),
    /// Of the load generator and of the bare client.
    Sent(Sent),
    /// It could not, and why.
    Failed(String),
}

/// Where a child listens, if it does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Doors {
    /// In the clear.
    pub(crate) plain: Option<SocketAddr>,
    /// With TLS.
    pub(crate) secure: Option<SocketAddr>,
    /// Who vouches for the secure one: a certificate as PEM.
    pub(crate) authority: String,
}

/// Subscriptions that differ in nothing but their URLs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Subscribing {
    /// Whose.
    pub(crate) organization: String,
    /// Which events.
    pub(crate) event_pattern: String,
    /// One for each of them.
    pub(crate) urls: Vec<String>,
}

/// One stretch of publishing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Publishing {
    /// Marks the payloads, so that stragglers of another run are told apart.
    pub(crate) run: u32,
    /// Whose events.
    pub(crate) organization: String,
    /// What happened.
    pub(crate) event_type: String,
    /// Deliveries that each event must make.
    pub(crate) fan_out: u32,
    /// In which calls.
    pub(crate) style: Style,
    /// No call starts later than this; `None`: until `events` are published.
    pub(crate) seconds: Option<f64>,
    /// No more events than this; `None`: as many as the time allows.
    pub(crate) events: Option<u64>,
    /// Size of a payload.
    pub(crate) payload_bytes: usize,
    /// Whether events carry ids of the publisher's own.
    pub(crate) own_ids: bool,
}

/// How events are put into calls.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Style {
    /// So many callers, each with one call of `batch` events after the other.
    Closed { callers: u32, batch: u32 },
    /// One event a call, so many calls a second, whether answers come or not.
    Open { per_second: u32 },
}

/// What arrived at the receiver in this run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Requests whose delivery had not been seen.
    pub(crate) unique: u64,
    /// Requests whose delivery had been seen.
    pub(crate) duplicates: u64,
    /// Requests of another run, or that could not be read.
    pub(crate) strays: u64,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// When the last unique one arrived, in microseconds of the wall clock.
    pub(crate) last_us: u64,
    /// From publish to arrival.
    pub(crate) latency: Quantiles,
}

/// What was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// Events that were answered with OK (posts: with 200).
    pub(crate) accepted: u64,
    /// Calls that were answered with `RESOURCE_EXHAUSTED` and made again.
    pub(crate) refused: u64,
    /// Events whose call failed otherwise; it is not known whether they are stored.
    pub(crate) failed: u64,
    /// When the first was sent, in microseconds of the wall clock.
    pub(crate) first_us: u64,
    /// When the last answer came.
    pub(crate) last_us: u64,
    /// From call to answer.
    pub(crate) latency: Quantiles,
    /// What the first failure said.
    pub(crate) trouble: String,
}

/// Of a latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// Half are at most this.
    pub(crate) p50: u64,
    /// 99 of 100 are at most this.
    pub(crate) p99: u64,
    /// All are at most this.
    pub(crate) max: u64,
}

/// Orders as they come in. A thread reads them, so that the runtime stays free.
pub(crate) fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (orders, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let order = serde_json::from_str(&line).expect("the benchmark writes orders");
            if orders.send(order).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Answers the benchmark.
pub(crate) fn answer(answer: &Answer) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, answer)?;
    output.write_all(b"\n")?;
    output.flush()?;
    Ok(())
}
