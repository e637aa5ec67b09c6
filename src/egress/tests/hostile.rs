//! Receivers that drip, flood, break off or never end.

use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::domain::attempt::Failure;
use crate::domain::attempt::RESPONSE_BODY_BYTES_MAX;
use crate::egress::Sent;

use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::SHORT;
use super::receiver::answered;
use super::receiver::egress;
use super::receiver::failure;
use super::receiver::read_request;
use super::receiver::request;

/// Sends to a receiver that reads the request and then writes `start` once and
/// `more` for ever.
async fn send_to_flood(start: &'static [u8], more: &'static [u8], slowly: bool) -> (Sent, usize) {
    let (end, mut written) = mpsc::unbounded_channel();
    let receiver = Receiver::scripted(move |mut stream, _| {
        let end = end.clone();
        async move {
            read_request(&mut stream).await.expect("a request");
            end.send(flood(stream, start, more, slowly).await).expect("a listener");
        }
    })
    .await;
    let timeout = if slowly { SHORT } else { PLENTY };
    let sent = egress().send(request(&receiver.target(), timeout)).await;
    let written = tokio::time::timeout(PLENTY, written.recv()).await;
    (sent, written.expect("the connection is closed").expect("a receiver"))
}

/// Bytes written until the other side closed.
async fn flood(mut stream: TcpStream, start: &[u8], more: &[u8], slowly: bool) -> usize {
    let mut written = start.len();
    if stream.write_all(start).await.is_err() {
        return written;
    }
    while stream.write_all(more).await.is_ok() {
        written += more.len();
        if slowly {
            tokio::time::sleep(SHORT / 30).await;
        }
    }
    written
}

#[tokio::test]
async fn a_dripping_body_ends_at_the_deadline() {
    let begun = Instant::now();
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let (sent, _) = send_to_flood(head, b"x", true).await;
    assert_eq!(failure(&sent), Failure::Timeout, "an unfinished answer is none");
    assert!(begun.elapsed() < 2 * SHORT + PLENTY / 10);
    assert!(sent.timing.first_byte.is_some());
}

#[tokio::test]
async fn a_dripping_head_ends_at_the_deadline() {
    let (sent, _) = send_to_flood(b"HTTP/1.1 200 OK\r\n", b"x", true).await;
    assert_eq!(failure(&sent), Failure::Timeout);
}

#[tokio::test]
async fn informational_answers_without_end_stop_at_the_deadline() {
    let (sent, _) = send_to_flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n", true).await;
    assert_eq!(failure(&sent), Failure::Timeout);
    assert!(sent.timing.first_byte.is_none());
}

#[tokio::test]
async fn a_flood_of_informational_answers_stops_at_the_deadline() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await.expect("a request");
        let many = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
        while stream.write_all(&many).await.is_ok() {}
    })
    .await;
    let begun = Instant::now();
    let sent = egress().send(request(&receiver.target(), SHORT)).await;
    assert_eq!(failure(&sent), Failure::Timeout);
    assert!(begun.elapsed() < 2 * SHORT + PLENTY / 10);
}

#[tokio::test]
async fn a_receiver_that_never_answers_ends_at_the_deadline() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let sent = egress().send(request(&receiver.target(), SHORT)).await;
    assert_eq!(failure(&sent), Failure::Timeout);
}

#[tokio::test]
async fn a_body_without_end_is_cut_and_its_status_counts() {
    const KILOBYTES: &[u8] = &[b'x'; 16 * 1024];
    for head in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"[..],
        &b"HTTP/1.1 503 Gone Mad\r\n\r\n"[..],
    ] {
        let (sent, written) = send_to_flood(head, KILOBYTES, false).await;
        let expected = if head.contains(&b'5') { 503 } else { 200 };
        assert_eq!(answered(&sent), (expected, &[b'x'; RESPONSE_BODY_BYTES_MAX][..]));
        // What was read, and what fits the socket buffers of both sides.
        assert!(written < 16 * 1024 * 1024, "{written} bytes were taken");
    }
}

#[tokio::test]
async fn a_flood_of_header_bytes_is_refused() {
    let (sent, written) = send_to_flood(b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; 16 * 1024], false).await;
    assert_eq!(failure(&sent), Failure::Protocol);
    assert!(written < 16 * 1024 * 1024, "{written} bytes were taken");
}

#[tokio::test]
async fn a_head_over_our_limits_is_refused_and_one_within_is_not() {
    let head = |count: usize, bytes: usize| {
        let value = "y".repeat(bytes);
        let lines: Vec<_> = (0..count).map(|number| format!("x-{number}: {value}")).collect();
        format!("HTTP/1.1 200 OK\r\n{}\r\ncontent-length: 0\r\n\r\n", lines.join("\r\n"))
    };
    for (answer, fits) in [
        (head(63, 1), true),
        (head(64, 1), false),
        (head(1, 16 * 1024 - 100), true),
        (head(1, 16 * 1024), false),
    ] {
        let receiver = Receiver::answering(answer).await;
        let sent = egress().send(request(&receiver.target(), PLENTY)).await;
        if fits {
            assert_eq!(answered(&sent).0, 200);
        } else {
            assert_eq!(failure(&sent), Failure::Protocol);
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_not_http_is_a_protocol_failure() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"<html>HTTP/0.9</html>",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 20 Short\r\n\r\n",
    ] {
        let receiver = Receiver::scripted(move |mut stream, _| async move {
            read_request(&mut stream).await.expect("a request");
            stream.write_all(answer).await.expect("a reader");
        })
        .await;
        let sent = egress().send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(failure(&sent), Failure::Protocol, "{}", String::from_utf8_lossy(answer));
        assert_eq!(receiver.connections(), 1, "a request that was written is not repeated");
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_dropped() {
    let receiver = Receiver::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    )
    .await;
    let egress = egress();
    for _ in 0..2 {
        let sent = egress.send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(answered(&sent).0, 101);
        assert!(!sent.reused);
    }
}

#[tokio::test]
async fn a_connection_whose_request_was_not_read_ends_with_the_attempt() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let (go_on, told) = watch::channel(false);
    let (end, mut ended) = mpsc::unbounded_channel();
    let receiver = Receiver::scripted(move |mut stream, _| {
        let (mut told, end) = (told.clone(), end.clone());
        async move {
            stream.write_all(OK).await.expect("a reader");
            told.wait_for(|told| *told).await.expect("the test goes on");
            let read = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            end.send(read.unwrap_or_default()).expect("a listener");
        }
    })
    .await;
    let mut large = request(&receiver.target(), PLENTY);
    large.body = vec![b'x'; LENGTH].into();
    let egress = egress();
    let sent = egress.send(large).await;
    assert_eq!(answered(&sent), (200, &b"ok"[..]));
    go_on.send(true).expect("a receiver");
    let read = tokio::time::timeout(PLENTY, ended.recv()).await;
    let read = read.expect("the connection is closed").expect("a receiver");
    assert!(read < LENGTH as u64 / 2, "{read} bytes were still sent");
}
