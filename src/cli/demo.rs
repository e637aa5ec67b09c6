//! `hookward demo`: the main job in one command. A real service on SQLite, a real
//! receiver with TLS, everything in between over gRPC and HTTPS, and every byte that
//! arrives held against what the platforms document.

mod client;
mod read_back;
mod report;
mod scenario;
mod service;
mod tally;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use time::OffsetDateTime;
use tokio::signal::ctrl_c;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::receiver::Receiver;
use super::receiver::ReceiverSettings;
use super::terminal::Paint;
use client::Client;
use client::Subscribed;
use report::Report;
use scenario::ENDPOINTS;
use scenario::RECOVERING_ANSWERS;
use service::Service;
use tally::Tally;

/// By then every request must have come, the last retry a second after the start.
const REQUESTS_TIME: Duration = Duration::from_secs(6);
/// After the last request, every delivery must be settled within this.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// Show the main job: publish, deliver, sign, retry, read back.
///
/// Starts a service and a receiver of its own on free ports, needs nothing and leaves
/// nothing behind. Exits with 0 only if all of it held.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// No colours, even on a terminal
    #[arg(long, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
}

/// Runs the demo, and tells whether all of it held. Needs nothing but free ports on
/// loopback and a folder for temporary files, and leaves nothing behind.
///
/// # Errors
///
/// When the service or the receiver cannot start, or a gRPC call fails.
pub async fn demo(arguments: Arguments) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut report = Report::new(Paint::for_stdout(arguments.no_color), io::stdout());
    report.title()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut receiver = Receiver::start(receiver_settings()).await?;
    let service = Service::start(folder.path(), &receiver).await?;
    report.started(service.grpc_address(), service.flags(), receiver.url())?;

    let outcome = tokio::select! {
        outcome = run(&service, &mut receiver, &mut report, began) => outcome,
        stopped = ctrl_c() => stopped.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    service.stop().await;
    outcome
}

fn receiver_settings() -> ReceiverSettings {
    let answers = RECOVERING_ANSWERS.parse().expect("a list of statuses");
    ReceiverSettings {
        tls: true,
        answers_at: [("/recovering".to_owned(), answers)].into(),
        ..ReceiverSettings::new((Ipv4Addr::LOCALHOST, 0).into())
    }
}

async fn run<W: io::Write>(
    service: &Service,
    receiver: &mut Receiver,
    report: &mut Report<W>,
    began: Instant,
) -> anyhow::Result<bool> {
    let mut client = Client::connect(service.grpc_address()).await?;
    let mut subscribed = Vec::new();
    for endpoint in &ENDPOINTS {
        subscribed.push(client.subscribe(endpoint, receiver.url()).await?);
    }
    report.subscribed(&subscribed)?;

    let mut tally = new_tally(&subscribed);
    let (published, published_at) = (Instant::now(), OffsetDateTime::now_utc());
    let results = client.publish(scenario::publications()).await?;
    let made = results.iter().map(|result| result.delivery_count).sum();
    report.published(results.len(), made, published.elapsed())?;

    let deadline = published + REQUESTS_TIME;
    while !tally.is_complete() {
        let Ok(request) = timeout_at(deadline, receiver.next()).await else { break };
        let after = (request.at - published_at).unsigned_abs();
        let noted = tally.note(&request);
        report.request(&request, &noted, after)?;
    }

    let deadline = Instant::now() + SETTLING_TIME;
    let (statuses, unlike) =
        read_back::read_back(&mut client, &subscribed, &tally, deadline).await?;
    report.statuses(&statuses)?;
    // All is settled: what still comes now, comes once too often.
    while let Some(request) = receiver.waiting() {
        tally.note(&request);
    }
    let faults = [tally.faults(), unlike].concat();
    report.verdict(&faults, tally.request_count(), statuses.len(), began.elapsed())?;
    Ok(faults.is_empty())
}

fn new_tally(subscribed: &[Subscribed]) -> Tally {
    let secret = |one: &Subscribed| (one.endpoint.path, one.secret.clone());
    Tally::new(scenario::expected(), subscribed.iter().map(secret).collect())
}
