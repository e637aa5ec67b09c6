//! One measurement: from the first publish to the last arrival, everything counted.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

use crate::cpu::Watched;
use crate::options::Options;
use crate::options::Role;
use crate::pause;
use crate::protocol::Order;
use crate::protocol::Publishing;
use crate::protocol::Quantiles;
use crate::protocol::Sent;
use crate::protocol::Style;
use crate::protocol::Tally;
use crate::service::Service;
use crate::worker::Worker;

/// How often the receiver is asked whether all has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Nothing new for this long: what is missing is lost.
const STALL: Duration = Duration::from_secs(30);
/// For the last settlements to be written, so that their CPU time is counted.
const SETTLE: Duration = Duration::from_millis(300);
const WARM_UP_SECONDS: f64 = 2.0;

/// What one measurement found.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// From the first publish to the last arrival.
    pub(crate) delivered_per_s: f64,
    /// While there was publishing.
    pub(crate) published_per_s: f64,
    /// From publish to arrival.
    pub(crate) arrival: Quantiles,
    /// From publish to OK.
    pub(crate) answer: Quantiles,
    /// Microseconds per delivery, by process.
    pub(crate) cpu_us: Vec<(&'static str, f64)>,
    /// Deliveries that arrived, each counted once.
    pub(crate) delivered: u64,
    /// Accepted and never seen.
    pub(crate) lost: u64,
    /// Seen again.
    pub(crate) duplicates: u64,
    /// Calls turned away and made again.
    pub(crate) refused: u64,
}

/// The receiver, and what is asked of it.
pub(crate) struct Bench {
    /// As on the command line.
    pub(crate) options: Options,
    receiver: Worker,
    run: u32,
}

impl Bench {
    /// Starts the receiver.
    pub(crate) fn new(options: Options) -> anyhow::Result<Bench> {
        Ok(Bench { options, receiver: Worker::start(Role::Receiver, &[])?, run: 0 })
    }

    /// A load generator for `service`, whose events go to the receiver.
    pub(crate) fn load(&self, service: &Service) -> anyhow::Result<Worker> {
        let connections = self.options.grpc_connections.to_string();
        let arguments = ["--service", &service.address, "--grpc-connections", &connections];
        let mut load = Worker::start(Role::Load, &arguments)?;
        load.tell(&Order::Subscribe { url: self.url()? })?;
        Ok(load)
    }

    /// The client alone, warmed up first.
    pub(crate) fn bare(&mut self) -> anyhow::Result<Figures> {
        let mut client = Worker::start(Role::Bare, &[])?;
        let own = Watched { name: "client", pid: client.pid(), family: false };
        let (url, payload_bytes) = (self.url()?, self.options.payload_bytes);
        for seconds in [WARM_UP_SECONDS / 2.0, self.options.seconds] {
            let run = self.begin()?;
            let order = Order::Post { url: url.clone(), run, seconds, payload_bytes };
            let found = self.measure(&mut client, &order, vec![own.clone()])?;
            if seconds >= self.options.seconds {
                return Ok(found);
            }
        }
        bail!("measurements are longer than the warm-up: more --seconds, please");
    }

    /// Lets the service run without counting.
    pub(crate) fn warm_up(
        &mut self,
        service: &Service,
        load: &mut Worker,
        style: Style,
    ) -> anyhow::Result<()> {
        self.publish(service, load, style, Some(WARM_UP_SECONDS), None).map(drop)
    }

    /// Publishes for a time or for a number of events, and waits until all arrived.
    pub(crate) fn publish(
        &mut self,
        service: &Service,
        load: &mut Worker,
        style: Style,
        seconds: Option<f64>,
        events: Option<u64>,
    ) -> anyhow::Result<Figures> {
        let run = self.begin()?;
        let Options { payload_bytes, own_ids, .. } = self.options;
        let publishing = Publishing { run, style, seconds, events, payload_bytes, own_ids };
        let mut watched = service.watched();
        watched.push(Watched { name: "load", pid: load.pid(), family: false });
        service.database.settle()?;
        self.measure(load, &Order::Publish(publishing), watched)
    }

    fn measure(
        &mut self,
        sender: &mut Worker,
        order: &Order,
        mut watched: Vec<Watched>,
    ) -> anyhow::Result<Figures> {
        watched.push(Watched { name: "receiver", pid: self.receiver.pid(), family: false });
        let before: Vec<Duration> = watched.iter().map(Watched::used).collect();
        let sent = sender.send(order)?;
        let tally = self.all_arrived(&sent)?;
        pause(SETTLE);
        let used = watched.iter().zip(before);
        let used = used.map(|(watched, before)| {
            let used = watched.used().saturating_sub(before);
            (watched.name, used.as_secs_f64() * 1e6 / float(tally.unique.max(1)))
        });
        figures(&sent, &tally, used.collect())
    }

    /// Waits until as many have arrived as were accepted, or nothing comes any more.
    fn all_arrived(&mut self, sent: &Sent) -> anyhow::Result<Tally> {
        let mut tally = self.receiver.tally()?;
        let mut progress = Instant::now();
        while tally.unique < sent.accepted && progress.elapsed() < STALL {
            pause(LOOK_EVERY);
            let later = self.receiver.tally()?;
            if tally.unique < later.unique {
                progress = Instant::now();
            }
            tally = later;
        }
        // What comes now are duplicates.
        pause(LOOK_EVERY);
        self.receiver.tally()
    }

    fn begin(&mut self) -> anyhow::Result<u32> {
        self.run += 1;
        self.receiver.tell(&Order::Begin { run: self.run })?;
        Ok(self.run)
    }

    fn url(&self) -> anyhow::Result<String> {
        let address = self.receiver.address.context("a receiver has an address")?;
        Ok(format!("http://{address}/hook"))
    }
}

fn figures(
    sent: &Sent,
    tally: &Tally,
    cpu_us: Vec<(&'static str, f64)>,
) -> anyhow::Result<Figures> {
    if 0 < sent.failed {
        bail!("{} events failed: {}", sent.failed, sent.trouble);
    }
    if tally.unique == 0 {
        bail!("nothing arrived");
    }
    let per_second = |count: u64, until: u64| {
        float(count) * 1e6 / float(until.saturating_sub(sent.first_us).max(1))
    };
    Ok(Figures {
        delivered_per_s: per_second(tally.unique, tally.last_us),
        published_per_s: per_second(sent.accepted, sent.last_us),
        arrival: tally.latency,
        answer: sent.latency,
        cpu_us,
        delivered: tally.unique,
        lost: sent.accepted.saturating_sub(tally.unique),
        duplicates: tally.duplicates,
        refused: sent.refused,
    })
}

/// Counts and microseconds as numbers to divide.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
