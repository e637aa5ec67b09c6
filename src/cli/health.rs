//! `hookward health`: asks a running process how it is. For images without a shell, and for
//! whoever has no HTTP client at hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{AdminArguments, FileArguments, read_admin_listen};

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// Whom to ask, and what.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    file: FileArguments,
    #[command(flatten)]
    admin: AdminArguments,
    /// Host and port of the admin port, where that is another machine's
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Ask whether it takes calls, not only whether it runs
    #[arg(long)]
    ready: bool,
    /// Port that must take connections, too. Repeatable
    #[arg(long, value_name = "HOST:PORT")]
    reachable: Vec<String>,
}

/// Asks, and prints the answer.
///
/// # Errors
///
/// When it is not well, or does not answer within five seconds.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let address = match arguments.address {
        Some(address) => address,
        None => here(read_admin_listen(&arguments.file, &arguments.admin)?)?.to_string(),
    };
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    let (status, answer) = in_time(&address, get(&address, path)).await?;
    if status != StatusCode::OK {
        bail!("{address}: {}", answer.trim().replace('\n', "; "));
    }
    for address in &arguments.reachable {
        in_time(address, connect(address)).await?;
    }
    super::say(answer.trim())?;
    Ok(())
}

/// Where a process of this machine is asked that listens there.
fn here(listens: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let Some(mut address) = listens else { bail!("there is no admin port to ask") };
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address)
}

async fn in_time<T>(
    address: &str,
    asked: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.with_context(|| format!("{address} does not answer within {PATIENCE:?}"))?
}

async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))
}

async fn get(address: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TokioIo::new(connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|_| anyhow::anyhow!("{address} does not speak as an admin port"))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}
