//! HTTP/1.1 as it stands on the wire: header names in the order and case in which they
//! came, bodies byte for byte. Written out here, so that no library tidies up what the
//! tests look at.

use std::time::Instant;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, Result};

/// One request, as a receiver got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// In order and case as received.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// When the request line and headers were read.
    pub(crate) arrival: Instant,
    /// Number of the connection that brought it, from 0.
    pub(crate) connection: usize,
}

impl Received {
    /// The one value of a header; `None` when there is none. Panics when there are
    /// several: nothing here may be sent twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = found.next()?;
        assert!(found.next().is_none(), "{name} was sent more than once");
        Some(&first.1)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Reads one request; `None` when the connection ends instead.
pub(crate) async fn read_request(
    stream: &mut (impl AsyncBufRead + Unpin),
    connection: usize,
) -> Result<Option<Received>> {
    let Some(start) = read_line(stream).await? else { return Ok(None) };
    let mut parts = start.split(' ');
    let method = parts.next().unwrap_or_default().to_owned();
    let target = parts.next().unwrap_or_default().to_owned();
    assert_eq!(parts.next(), Some("HTTP/1.1"), "a request line: {start:?}");

    let mut headers = Vec::new();
    while let Some(line) = read_line(stream).await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header has a colon");
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let arrival = Instant::now();
    let mut request = Received { method, target, headers, body: Vec::new(), arrival, connection };
    assert_eq!(request.header("transfer-encoding"), None, "bodies come with their length");
    let length = request.header("content-length").unwrap_or("0");
    request.body = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut request.body).await?;
    Ok(Some(request))
}

/// Writes a whole response.
pub(crate) async fn write_response(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<()> {
    // A 204 has neither a body nor a length (RFC 9110, 8.6).
    let length = (status != 204).then(|| ("Content-Length".to_owned(), body.len().to_string()));
    let lines = length.iter().chain(headers).map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines: Vec<String> = lines.collect();
    let head = format!("HTTP/1.1 {status} Scripted\r\n{}\r\n", lines.concat());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8(line).expect("a request head is ASCII");
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}
