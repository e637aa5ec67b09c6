//! When connections are used again, and when a request is sent again.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::domain::attempt::Failure;
use crate::domain::id::SubscriptionKey;
use crate::egress::Egress;
use crate::egress::Settings;

use super::receiver::Authority;
use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::answered;
use super::receiver::egress;
use super::receiver::eventually;
use super::receiver::failure;
use super::receiver::loopback;
use super::receiver::policy;
use super::receiver::read_request;
use super::receiver::request;

#[tokio::test]
async fn requests_in_a_row_share_a_connection() {
    let receiver = Receiver::answering(OK).await;
    let (egress, target) = (egress(), receiver.target());
    for number in 0..20 {
        let sent = egress.send(request(&target, PLENTY)).await;
        assert_eq!(answered(&sent).0, 200);
        assert_eq!(sent.reused, number > 0);
        assert_eq!(sent.peer, Some(receiver.address));
    }
    assert_eq!(receiver.connections(), 1);
    assert_eq!(receiver.requests().len(), 20);
}

#[tokio::test]
async fn a_room_that_becomes_another_uses_no_connection_from_before() {
    let receiver = Receiver::answering(OK).await;
    let (egress, target) = (egress(), receiver.target());
    let clone = egress.clone();
    assert_eq!(answered(&egress.send(request(&target, PLENTY)).await).0, 200);

    egress.become_another(&Egress::new(Settings::new(policy(&[], &[]))).expect("a room"));
    let sent = clone.send(request(&target, PLENTY)).await;
    assert_eq!(failure(&sent), Failure::BlockedAddress);
    assert!(!clone.policy().rules(None).permits(receiver.address.ip(), receiver.address.port()));
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 1));

    clone.become_another(&Egress::new(loopback()).expect("a room"));
    let sent = egress.send(request(&target, PLENTY)).await;
    assert!(answered(&sent).0 == 200 && !sent.reused);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_few_connections_on_two_threads() {
    let authority = Authority::new("ours");
    let receiver = Receiver::answering_tls(authority.server("localhost", false)).await;
    let mut settings = loopback();
    settings.ca_files_pem.push(authority.pem);
    let egress = Egress::new(settings).expect("a room");
    let target = receiver.named("https", "localhost");
    let lanes: Vec<_> = (0..8)
        .map(|_| {
            let (egress, target) = (egress.clone(), target.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(answered(&egress.send(request(&target, PLENTY)).await).0, 200);
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.expect("no panic");
    }
    assert_eq!(receiver.requests().len(), 400);
    assert!(receiver.connections() <= 40, "{} connections", receiver.connections());
}

#[tokio::test]
async fn subscriptions_do_not_share_connections_and_a_new_url_gets_its_own() {
    let receiver = Receiver::answering(OK).await;
    let (egress, target) = (egress(), receiver.target());
    egress.send(request(&target, PLENTY)).await;
    let mut other = request(&target, PLENTY);
    other.subscription = SubscriptionKey(2);
    assert!(!egress.send(other).await.reused);
    let moved = receiver.named("http", "localhost");
    assert!(!egress.send(request(&moved, PLENTY)).await.reused);
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn where_too_many_wait_those_that_have_waited_longer_make_room() {
    let receiver = Receiver::answering(OK).await;
    let target = receiver.target();
    let mut settings = loopback();
    settings.idle_in_all_max = 2;
    settings.idle_max = Duration::from_secs(8);
    let egress = Egress::new(settings).expect("a room");
    let of = |key| {
        let mut request = request(&target, PLENTY);
        request.subscription = SubscriptionKey(key);
        egress.send(request)
    };
    of(1).await;
    of(2).await;
    of(3).await;
    assert!(of(1).await.reused && of(2).await.reused, "there was no room for a third");
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !of(3).await.reused {
        assert!(tokio::time::Instant::now() < end, "it is kept once the others have waited");
    }
    // Of the two, it has waited longer; the other may not have waited long enough.
    assert!(!of(1).await.reused, "it has made room");
}

#[tokio::test]
async fn a_connection_that_waited_too_long_is_closed_without_traffic() {
    let ended = Arc::new(Mutex::new(0));
    let count = ended.clone();
    let receiver = Receiver::scripted(move |mut stream, _| {
        let count = count.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(OK).await.expect("a reader");
            }
            *count.lock().expect("no panic") += 1;
        }
    })
    .await;
    let mut settings = loopback();
    settings.idle_max = Duration::from_millis(20);
    let egress = Egress::new(settings).expect("a room");
    for round in 1..=2 {
        assert!(!egress.send(request(&receiver.target(), PLENTY)).await.reused);
        eventually("the sweep closes it", || *ended.lock().expect("no panic") == round).await;
    }
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_its_life() {
    let receiver = Receiver::answering(OK).await;
    let mut settings = loopback();
    settings.life_max = Duration::ZERO;
    let egress = Egress::new(settings).expect("a room");
    for _ in 0..2 {
        assert!(!egress.send(request(&receiver.target(), PLENTY)).await.reused);
    }
}

/// A receiver that does `afterwards` to each connection once its request is
/// answered, and tells when that is done.
async fn then(afterwards: &'static [u8], close: bool) -> (Receiver, mpsc::UnboundedReceiver<()>) {
    let (done, told) = mpsc::unbounded_channel();
    let receiver = Receiver::scripted(move |mut stream, number| {
        let done = done.clone();
        async move {
            let request = read_request(&mut stream).await.expect("a request");
            assert!(request.ends_with("{\"a\":1}"));
            let status = 200 + number;
            let answer = format!("HTTP/1.1 {status} OK\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("a reader");
            // The client must have read the answer apart from what follows.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(afterwards).await.expect("a reader");
            if close {
                drop(stream);
                done.send(()).expect("a listener");
            } else {
                done.send(()).expect("a listener");
                assert_eq!(read_request(&mut stream).await, None, "nothing more may come");
            }
        }
    })
    .await;
    (receiver, told)
}

/// Three requests, each sent as soon as the receiver has done what it does
/// afterwards. As a task of its own, so that it runs on before the runtime asks the
/// kernel what has come in: without a look at the socket these tests fail.
async fn send_three(receiver: Receiver, mut told: mpsc::UnboundedReceiver<()>) {
    let sending = async move {
        let egress = egress();
        for expected in [200, 201, 202] {
            let sent = egress.send(request(&receiver.target(), PLENTY)).await;
            assert_eq!(answered(&sent).0, expected, "each is delivered once, by itself");
            told.recv().await.expect("a receiver");
        }
        assert_eq!(receiver.connections(), 3);
    };
    tokio::spawn(sending).await.expect("no panic");
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_attempt() {
    let (receiver, told) = then(b"", true).await;
    send_three(receiver, told).await;
}

#[tokio::test]
async fn a_second_answer_on_an_idle_connection_is_never_believed() {
    let forged = b"HTTP/1.1 299 Forged\r\ncontent-length: 0\r\n\r\n";
    let (receiver, told) = then(forged, false).await;
    send_three(receiver, told).await;
}

#[tokio::test]
async fn a_second_answer_right_behind_the_first_is_never_believed() {
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let forged = "HTTP/1.1 299 Forged\r\ncontent-length: 0\r\n\r\n";
        let receiver = Receiver::answering(format!("{first}{forged}")).await;
        let egress = egress();
        for _ in 0..3 {
            let sent = egress.send(request(&receiver.target(), PLENTY)).await;
            assert_ne!(answered(&sent).0, 299);
            assert!(!sent.reused);
        }
        assert_eq!(receiver.connections(), 3);
    }
}

#[tokio::test]
async fn a_request_that_was_read_is_not_sent_again() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await.expect("a request");
        stream.write_all(OK).await.expect("a reader");
        // Reads the second one and closes without an answer.
        stream.read_u8().await.expect("a second request");
    })
    .await;
    let egress = egress();
    assert_eq!(answered(&egress.send(request(&receiver.target(), PLENTY)).await).0, 200);
    let sent = egress.send(request(&receiver.target(), PLENTY)).await;
    assert!(sent.reused);
    assert_eq!(failure(&sent), Failure::Protocol);
    assert_eq!(receiver.connections(), 1);
}
