//! Asking the admin port, as a probe or a scraper does.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the metrics page says of one series, labels included as they stand there; `None`
/// when it is not on the page.
pub(crate) async fn metric(address: SocketAddr, series: &str) -> Option<f64> {
    let (_, page) = get(address, "/metrics").await?;
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a number"))
}

/// Status and body of a GET; `None` when there is no answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    get_as(address, path, "*/*").await
}

/// The same for whoever takes only this kind of content.
pub(crate) async fn get_as(address: SocketAddr, path: &str, accept: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let headers = format!("Host: {address}\r\nAccept: {accept}\r\nConnection: close");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
