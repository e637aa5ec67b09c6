//! Requests beside the deliveries: what is asked, and what is taken from the answer.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use tokio::io::AsyncWriteExt as _;

use crate::domain::attempt::Failure;
use crate::domain::attempt::Outcome;
use crate::domain::attempt::RESPONSE_BODY_BYTES_MAX;
use crate::egress::Egress;
use crate::egress::Inquiry;
use crate::egress::Reply;
use crate::egress::Settings;

use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::SHORT;
use super::receiver::egress;
use super::receiver::eventually;
use super::receiver::policy;
use super::receiver::read_request;
use super::receiver::request;

fn options(receiver: &Receiver) -> Inquiry {
    let origin = HeaderName::from_static("webhook-request-origin");
    Inquiry {
        target: receiver.target(),
        method: Method::OPTIONS,
        headers: vec![(origin, HeaderValue::from_static("hooks.example"))],
        body: Bytes::new(),
        timeout: PLENTY,
    }
}

fn status(reply: &Reply) -> u16 {
    match &reply.outcome {
        Outcome::Responded { status, .. } => *status,
        Outcome::NoResponse(_) | Outcome::NotAsked { .. } => panic!("{reply:?}"),
    }
}

fn failure(reply: &Reply) -> Failure {
    assert!(reply.headers.is_empty() && !reply.detail.is_empty(), "{reply:?}");
    match &reply.outcome {
        Outcome::Responded { .. } | Outcome::NotAsked { .. } => panic!("{reply:?}"),
        Outcome::NoResponse(failure) => *failure,
    }
}

#[tokio::test]
async fn a_question_without_a_body_arrives_as_it_is() {
    let answer = "HTTP/1.1 204 No\r\nwebhook-allowed-origin: *\r\nretry-after: 7\r\n\r\n";
    let receiver = Receiver::answering(answer).await;
    let reply = egress().inquire(options(&receiver)).await;
    assert_eq!(status(&reply), 204);
    assert_eq!(reply.headers["webhook-allowed-origin"], "*");
    assert_eq!(reply.detail, "");
    let expected = format!(
        "OPTIONS /hook?a=b HTTP/1.1\r\nwebhook-request-origin: hooks.example\r\nhost: {}\r\n\
         accept-encoding: identity\r\n\r\n",
        receiver.address
    );
    assert_eq!(receiver.requests(), [expected]);
}

#[tokio::test]
async fn the_start_of_the_answer_is_kept() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 60_000, b'x');
    let receiver = Receiver::answering(answer).await;
    let body = Bytes::from_static(b"{}");
    let asking = Inquiry { method: Method::POST, body, ..options(&receiver) };
    let Outcome::Responded { body, .. } = egress().inquire(asking).await.outcome else {
        panic!("it answers")
    };
    assert_eq!(body, [b'x'; RESPONSE_BODY_BYTES_MAX][..]);
    assert!(receiver.requests()[0].ends_with("content-length: 2\r\n\r\n{}"));
}

#[tokio::test]
async fn its_connection_is_kept_for_nobody() {
    let receiver = Receiver::answering(OK).await;
    let egress = egress();
    assert_eq!(status(&egress.inquire(options(&receiver)).await), 200);
    assert!(!egress.send(request(&receiver.target(), PLENTY)).await.reused);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::answering(OK).await;
    let answer = format!(
        "HTTP/1.1 308 Over there\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    let receiver = Receiver::answering(answer).await;
    assert_eq!(status(&egress().inquire(options(&receiver)).await), 308);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn one_deadline_spans_the_whole_answer() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await.expect("a request");
        let head = b"HTTP/1.1 200 OK\r\nwebhook-allowed-origin: *\r\ncontent-length: 9\r\n\r\n";
        stream.write_all(head).await.expect("a reader");
        std::future::pending::<()>().await;
    })
    .await;
    let asking = Inquiry { timeout: SHORT, ..options(&receiver) };
    assert_eq!(failure(&egress().inquire(asking).await), Failure::Timeout);
    eventually("one connection", || receiver.connections() == 1).await;
}

#[tokio::test]
async fn a_forbidden_address_is_not_asked() {
    let receiver = Receiver::answering(OK).await;
    let egress = Egress::new(Settings::new(policy(&[], &[]))).expect("a room");
    assert_eq!(failure(&egress.inquire(options(&receiver)).await), Failure::BlockedAddress);
    assert_eq!(receiver.connections(), 0);
}
