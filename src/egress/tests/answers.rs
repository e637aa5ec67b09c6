//! What is sent, and what is taken from an answer.

use std::time::Duration;

use http::HeaderValue;
use http::header;
use tokio::io::AsyncWriteExt as _;

use crate::domain::attempt::Outcome;
use crate::domain::attempt::RESPONSE_BODY_BYTES_MAX;

use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::answered;
use super::receiver::egress;
use super::receiver::read_request;
use super::receiver::request;

#[tokio::test]
async fn a_request_arrives_whole_with_the_room_s_own_headers() {
    let receiver = Receiver::answering(OK).await;
    let target = receiver.target();
    let mut sending = request(&target, PLENTY);
    for (name, value) in [
        (header::CONTENT_LENGTH, "3"),
        (header::HOST, "elsewhere.example"),
        (header::ACCEPT_ENCODING, "gzip"),
        (header::CONNECTION, "close"),
    ] {
        sending.headers.push((name, HeaderValue::from_static(value)));
    }
    let sent = egress().send(sending).await;
    assert_eq!(answered(&sent), (200, &b"ok"[..]));
    assert_eq!(sent.peer, Some(receiver.address));
    assert_eq!(sent.detail, "");
    assert!(sent.timing.connect.is_some() && sent.timing.first_byte.is_some());
    assert!(sent.timing.dns.is_none() && sent.timing.tls.is_none());
    let expected = format!(
        "POST /hook?a=b HTTP/1.1\r\nwebhook-id: dlv_1\r\nhost: {}\r\n\
         accept-encoding: identity\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}",
        receiver.address
    );
    assert_eq!(receiver.requests(), [expected]);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Receiver::answering(OK).await;
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    let receiver = Receiver::answering(answer).await;
    let sent = egress().send(request(&receiver.target(), PLENTY)).await;
    assert_eq!(answered(&sent), (307, &b""[..]));
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_encoded_body_is_kept_as_bytes() {
    const GZIP: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut answer =
        b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n".to_vec();
    answer.extend_from_slice(GZIP);
    let receiver = Receiver::answering(answer).await;
    let sent = egress().send(request(&receiver.target(), PLENTY)).await;
    assert_eq!(answered(&sent), (500, GZIP));
}

#[tokio::test]
async fn retry_after_is_passed_on_and_nonsense_ignored() {
    for (value, expected) in [("7", Some(Duration::from_secs(7))), ("1e300", None)] {
        let answer =
            format!("HTTP/1.1 429 Slow Down\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        let receiver = Receiver::answering(answer).await;
        let sent = egress().send(request(&receiver.target(), PLENTY)).await;
        let Outcome::Responded { status: 429, retry_after, .. } = sent.outcome else {
            panic!("{:?}", sent.outcome);
        };
        assert_eq!(retry_after, expected);
    }
}

#[tokio::test]
async fn the_start_of_a_long_body_is_kept_and_the_rest_drained() {
    let mut answer = b"HTTP/1.1 500 No\r\ncontent-length: 60000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 60_000, b'x');
    let receiver = Receiver::answering(answer).await;
    let egress = egress();
    for reused in [false, true] {
        let sent = egress.send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(answered(&sent), (500, &[b'x'; RESPONSE_BODY_BYTES_MAX][..]));
        assert_eq!(sent.reused, reused);
    }
}

#[tokio::test]
async fn unusual_statuses_are_recorded_as_they_are() {
    for (status, end) in [
        (204, ""),
        (304, ""),
        (599, "content-length: 0\r\n"),
        (999, "connection: close\r\ncontent-length: 0\r\n"),
    ] {
        let receiver = Receiver::answering(format!("HTTP/1.1 {status} X\r\n{end}\r\n")).await;
        let sent = egress().send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(answered(&sent), (status, &b""[..]));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_an_answer() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await.expect("a request");
        stream.write_all(b"HTTP/1.0 500 No\r\n\r\nwhole").await.expect("a reader");
    })
    .await;
    let egress = egress();
    for _ in 0..2 {
        let sent = egress.send(request(&receiver.target(), PLENTY)).await;
        assert_eq!(answered(&sent), (500, &b"whole"[..]));
        assert!(!sent.reused);
    }
}
