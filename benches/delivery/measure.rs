//! One measurement: from the first publish to the last arrival, everything counted.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

use crate::audience::Audience;
use crate::audience::ONE;
use crate::cpu::Watched;
use crate::memory;
use crate::memory::Resident;
use crate::options::Options;
use crate::options::Role;
use crate::pause;
use crate::protocol::Order;
use crate::protocol::Publishing;
use crate::protocol::Quantiles;
use crate::protocol::Sent;
use crate::protocol::Style;
use crate::protocol::Tally;
use crate::stage::Stage;
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
    /// Microseconds per delivery, by process; per event where none makes a delivery.
    pub(crate) cpu_us: Vec<(&'static str, f64)>,
    /// Of the service, where there is one.
    pub(crate) resident: Option<Resident>,
    /// Deliveries that arrived, each counted once.
    pub(crate) delivered: u64,
    /// Accepted and never seen.
    pub(crate) lost: u64,
    /// Seen again.
    pub(crate) duplicates: u64,
    /// Calls turned away and made again.
    pub(crate) refused: u64,
}

/// How much is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// No call starts later than this.
    Seconds(f64),
    /// So many events.
    Events(u64),
}

/// What is counted beside what is sent.
struct Watching {
    processes: Vec<Watched>,
    /// Whose memory.
    service: Option<u32>,
    /// Deliveries of each event.
    fan_out: u32,
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

    /// The client alone, warmed up first.
    pub(crate) fn bare(&mut self) -> anyhow::Result<Figures> {
        let mut client = Worker::start(Role::Bare, &[])?;
        let own = Watched { name: "client", pid: client.pid(), family: false };
        let url = ONE.at("http", self.door()?).urls.swap_remove(0);
        let payload_bytes = self.options.payload_bytes;
        for seconds in [WARM_UP_SECONDS / 2.0, self.options.seconds] {
            let run = self.begin(ONE.fan_out)?;
            let order = Order::Post { url: url.clone(), run, seconds, payload_bytes };
            let watching = Watching { processes: vec![own.clone()], service: None, fan_out: 1 };
            let found = self.measure(&mut client, &order, watching)?;
            if seconds >= self.options.seconds {
                return Ok(found);
            }
        }
        bail!("measurements are longer than the warm-up: more --seconds, please");
    }

    /// Lets the service run without counting.
    pub(crate) fn warm_up(
        &mut self,
        stage: &mut Stage,
        audience: Audience,
        style: Style,
    ) -> anyhow::Result<()> {
        self.publish(stage, audience, style, Extent::Seconds(WARM_UP_SECONDS)).map(drop)
    }

    /// Publishes, and waits until all arrived.
    pub(crate) fn publish(
        &mut self,
        stage: &mut Stage,
        audience: Audience,
        style: Style,
        extent: Extent,
    ) -> anyhow::Result<Figures> {
        let run = self.begin(audience.fan_out)?;
        let order = self.order(run, audience, style, extent);
        let service = Some(stage.service.pid());
        let mut watching =
            Watching { processes: stage.service.watched(), service, fan_out: audience.fan_out };
        watching.processes.push(watched("load", &stage.load));
        stage.service.database.settle()?;
        self.measure(&mut stage.load, &order, watching)
    }

    /// Publishes what never arrives, or when nobody waits for it.
    pub(crate) fn publish_only(
        &mut self,
        stage: &mut Stage,
        audience: Audience,
        style: Style,
        extent: Extent,
    ) -> anyhow::Result<Sent> {
        let run = self.begin(audience.fan_out)?;
        let sent = stage.load.send(&self.order(run, audience, style, extent))?;
        accepted(&sent)?;
        Ok(sent)
    }

    /// Publishes to the handler that does nothing.
    pub(crate) fn call_empty(
        &mut self,
        server: &Worker,
        load: &mut Worker,
        audience: Audience,
        style: Style,
    ) -> anyhow::Result<Figures> {
        let run = self.begin(audience.fan_out)?;
        let order = self.order(run, audience, style, Extent::Seconds(self.options.seconds));
        let processes = vec![watched("empty", server), watched("load", load)];
        let watching = Watching { processes, service: None, fan_out: audience.fan_out };
        self.measure(load, &order, watching)
    }

    /// Where the receiver listens in the clear.
    pub(crate) fn door(&self) -> anyhow::Result<SocketAddr> {
        self.receiver.doors.plain.context("a receiver has an address")
    }

    /// Where it listens with TLS.
    pub(crate) fn secure_door(&self) -> anyhow::Result<SocketAddr> {
        self.receiver.doors.secure.context("a receiver has an address with TLS")
    }

    /// Whose certificate the receiver shows, as PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.receiver.doors.authority
    }

    fn order(&self, run: u32, audience: Audience, style: Style, extent: Extent) -> Order {
        let Options { payload_bytes, own_ids, .. } = self.options;
        let (seconds, events) = match extent {
            Extent::Seconds(seconds) => (Some(seconds), None),
            Extent::Events(events) => (None, Some(events)),
        };
        Order::Publish(Publishing {
            run,
            organization: audience.organization.to_owned(),
            event_type: audience.event_type.to_owned(),
            fan_out: audience.fan_out,
            style,
            seconds,
            events,
            payload_bytes,
            own_ids,
        })
    }

    fn measure(
        &mut self,
        sender: &mut Worker,
        order: &Order,
        watching: Watching,
    ) -> anyhow::Result<Figures> {
        let Watching { mut processes, service, fan_out } = watching;
        processes.push(watched("receiver", &self.receiver));
        service.map(memory::forget_peak).transpose()?;
        let before: Vec<Duration> = processes.iter().map(Watched::used).collect();
        let sent = sender.send(order)?;
        let expected = sent.accepted * u64::from(fan_out);
        let tally = self.all_arrived(expected)?;
        pause(SETTLE);
        let counted = if fan_out == 0 { sent.accepted } else { tally.unique };
        let used = processes.iter().zip(before);
        let used = used.map(|(watched, before)| {
            let used = watched.used().saturating_sub(before);
            (watched.name, used.as_secs_f64() * 1e6 / float(counted.max(1)))
        });
        let resident = service.map(memory::resident).transpose()?;
        figures(&sent, &tally, expected, used.collect(), resident)
    }

    /// Waits until as many have arrived as must, or nothing comes any more.
    fn all_arrived(&mut self, expected: u64) -> anyhow::Result<Tally> {
        let mut tally = self.receiver.tally()?;
        let mut progress = Instant::now();
        while tally.unique < expected && progress.elapsed() < STALL {
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

    fn begin(&mut self, fan_out: u32) -> anyhow::Result<u32> {
        self.run += 1;
        self.receiver.tell(&Order::Begin { run: self.run, fan_out })?;
        Ok(self.run)
    }
}

fn watched(name: &'static str, worker: &Worker) -> Watched {
    Watched { name, pid: worker.pid(), family: false }
}

fn accepted(sent: &Sent) -> anyhow::Result<()> {
    if 0 < sent.failed {
        bail!("{} events failed: {}", sent.failed, sent.trouble);
    }
    Ok(())
}

fn figures(
    sent: &Sent,
    tally: &Tally,
    expected: u64,
    cpu_us: Vec<(&'static str, f64)>,
    resident: Option<Resident>,
) -> anyhow::Result<Figures> {
    accepted(sent)?;
    if sent.accepted == 0 || (tally.unique == 0 && 0 < expected) {
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
        resident,
        delivered: tally.unique,
        lost: expected.saturating_sub(tally.unique),
        duplicates: tally.duplicates,
        refused: sent.refused,
    })
}

/// Counts and microseconds as numbers to divide.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
