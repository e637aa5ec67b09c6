//! Names, addresses that may not be called, and certificates.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::domain::attempt::Failure;
use crate::domain::attempt::Fault;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::id::OrganizationId;
use crate::egress::Egress;
use crate::egress::MixedAnswers;
use crate::egress::Sent;
use crate::egress::Settings;
use crate::egress::Target;

use super::receiver::Authority;
use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::SHORT;
use super::receiver::answered;
use super::receiver::egress;
use super::receiver::failure;
use super::receiver::loopback;
use super::receiver::name_server;
use super::receiver::policy;
use super::receiver::request;
use super::receiver::target;

fn asking(mut settings: Settings, nameserver: SocketAddr) -> Egress {
    settings.nameservers.push(nameserver);
    Egress::new(settings).expect("a room")
}

#[tokio::test]
async fn a_name_is_asked_for_fully_qualified_and_its_address_called() {
    let receiver = Receiver::answering(OK).await;
    let (nameserver, asked) = name_server(&[Ipv4Addr::LOCALHOST]).await;
    let egress = asking(loopback(), nameserver);
    let target = receiver.named("http", "hooks.example");
    let sent = egress.send(request(&target, PLENTY)).await;
    assert_eq!(answered(&sent).0, 200);
    assert!(sent.timing.dns.is_some());
    let host = format!("host: hooks.example:{}\r\n", receiver.address.port());
    assert!(receiver.requests()[0].contains(&host));
    // The answer is kept: another connection asks nothing more.
    let mut another = request(&target, PLENTY);
    another.subscription = crate::domain::id::SubscriptionKey(2);
    assert!(!egress.send(another).await.reused);
    let asked = asked.lock().expect("no panic").clone();
    assert_eq!(asked, ["hooks.example."; 2], "one for A, one for AAAA");
}

#[tokio::test]
async fn a_name_nobody_knows_is_a_dns_failure() {
    let (nameserver, _) = name_server(&[]).await;
    let egress = asking(loopback(), nameserver);
    for name in ["nobody.example", "hooks.example"] {
        let sent = egress.send(request(&target(&format!("https://{name}/")), PLENTY)).await;
        assert_eq!(failure(&sent), Failure::Dns, "{name}");
        assert_eq!(sent.fault, Fault::Receiver, "{name}: the name server has said so");
        assert!(!sent.detail.contains(name));
    }
}

#[tokio::test]
async fn a_name_of_which_not_all_is_known_says_nothing_of_the_receiver() {
    let (nameserver, _) = name_server(&[]).await;
    let egress = asking(loopback(), nameserver);
    for name in ["broken.example", "half.example"] {
        let sent = egress.send(request(&target(&format!("https://{name}/")), PLENTY)).await;
        assert_eq!((failure(&sent), sent.fault), (Failure::Dns, Fault::Ours), "{name}");
    }
}

#[tokio::test]
async fn a_silent_name_server_is_a_dns_failure_within_its_budget() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let egress = asking(loopback(), silent.local_addr().expect("its address"));
    let begun = std::time::Instant::now();
    let sent = egress.send(request(&target("https://hooks.example/"), 2 * PLENTY)).await;
    assert_eq!((failure(&sent), sent.fault), (Failure::Dns, Fault::Ours));
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_forbidden_address_is_not_called_in_any_guise() {
    static MIXED: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1)];
    let trap = Receiver::answering(OK).await;
    let (nameserver, _) = name_server(&MIXED).await;
    let refusing = asking(Settings::new(policy(&["0.0.0.0/0"], &["127.0.0.0/8"])), nameserver);
    // One of the two is allowed here, which must not help.
    let half = asking(loopback(), nameserver);
    for (egress, host) in [
        (&refusing, "127.0.0.1"),
        (&refusing, "[::ffff:127.0.0.1]"),
        (&refusing, "localhost"),
        (&refusing, "sub.localhost"),
        (&refusing, "hooks.example"),
        (&half, "hooks.example"),
    ] {
        for scheme in ["https", "http"] {
            let sent = egress.send(request(&trap.named(scheme, host), PLENTY)).await;
            assert_eq!(failure(&sent), Failure::BlockedAddress, "{host}");
            assert_eq!(sent.detail, "The address may not be called.");
        }
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn of_a_mixed_answer_the_good_addresses_are_called_where_the_operator_says_so() {
    static MIXED: [Ipv4Addr; 3] =
        [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    static BAD: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let receiver = Receiver::answering(OK).await;
    let trap = TcpListener::bind(("127.0.0.2", receiver.address.port())).await;
    let trap = trap.expect("the same port");
    for (addresses, called) in [(&MIXED[..], true), (&BAD[..], false)] {
        let (nameserver, _) = name_server(addresses).await;
        let settings = Settings { mixed_answers: MixedAnswers::Filter, ..loopback() };
        let egress = asking(settings, nameserver);
        let sent = egress.send(request(&receiver.named("http", "hooks.example"), PLENTY)).await;
        if called {
            assert_eq!(answered(&sent).0, 200);
            assert_eq!(sent.peer, Some(receiver.address));
        } else {
            assert_eq!(failure(&sent), Failure::BlockedAddress);
        }
    }
    let knocked = tokio::time::timeout(Duration::from_millis(1), trap.accept()).await;
    assert!(knocked.is_err(), "nobody was at the trap");
}

#[tokio::test]
async fn an_address_opened_for_one_organization_is_closed_to_others() {
    let receiver = Receiver::answering(OK).await;
    let egress = Egress::new(Settings::new(policy(&["127.0.0.1@clinic-7"], &[])));
    let egress = egress.expect("a room");
    for (organization, opened) in [(None, false), (Some("other"), false), (Some("clinic-7"), true)]
    {
        let url = format!("http://{}/hook", receiver.address);
        let target = Target::new(&EndpointUrl::stored(&url).expect("a URL")).expect("a target");
        let target = match organization {
            None => target,
            Some(name) => target.of(OrganizationId::stored(name)),
        };
        let sent = egress.send(request(&Arc::new(target), PLENTY)).await;
        if opened {
            assert_eq!(answered(&sent).0, 200);
        } else {
            assert_eq!(failure(&sent), Failure::BlockedAddress, "{organization:?}");
        }
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn port_and_scheme_are_judged_too() {
    let receiver = Receiver::answering(OK).await;
    let egress = Egress::new(Settings::new(policy(&["127.0.0.1:1"], &[]))).expect("a room");
    for url in [&receiver.target(), &target("http://93.184.216.34:443/")] {
        let sent = egress.send(request(url, PLENTY)).await;
        assert_eq!(failure(&sent), Failure::BlockedAddress);
        assert!(sent.timing.connect.is_none());
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let sent = egress().send(request(&target(&format!("http://{address}/")), PLENTY)).await;
    assert_eq!((failure(&sent), sent.fault), (Failure::Connect, Fault::Receiver));
}

#[tokio::test]
async fn what_ends_before_the_name_is_known_says_nothing_of_the_receiver() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let egress = asking(loopback(), silent.local_addr().expect("its address"));
    let sent = egress.send(request(&target("https://hooks.example/"), SHORT)).await;
    assert_eq!((failure(&sent), sent.fault), (Failure::Timeout, Fault::Ours));
}

/// Calls a TLS receiver under `called`, trusting `trusted`.
async fn call(receiver: &Receiver, trusted: &Authority, called: &str) -> Sent {
    let mut settings = loopback();
    settings.ca_files_pem.push(trusted.pem.clone());
    let egress = Egress::new(settings).expect("a room");
    let mut sent = egress.send(request(&receiver.named("https", called), PLENTY)).await;
    if matches!(sent.outcome, crate::domain::attempt::Outcome::Responded { .. }) {
        sent = egress.send(request(&receiver.named("https", called), PLENTY)).await;
        assert!(sent.reused);
    }
    sent
}

#[tokio::test]
async fn a_trusted_certificate_for_the_right_name_is_enough() {
    let authority = Authority::new("ours");
    let receiver = Receiver::answering_tls(authority.server("localhost", false)).await;
    let sent = call(&receiver, &authority, "localhost").await;
    assert_eq!(answered(&sent), (200, &b"ok"[..]));
    assert_eq!(receiver.requests().len(), 2);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_address_can_be_certified_too() {
    let authority = Authority::new("ours");
    let receiver = Receiver::answering_tls(authority.server("127.0.0.1", false)).await;
    let mut settings = loopback();
    settings.ca_files_pem.push(authority.pem);
    let egress = Egress::new(settings).expect("a room");
    let sent = egress.send(request(&receiver.named("https", "127.0.0.1"), PLENTY)).await;
    assert_eq!(answered(&sent).0, 200);
    assert!(sent.timing.tls.is_some());
}

#[tokio::test]
async fn nothing_is_sent_to_a_receiver_whose_certificate_does_not_hold() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    for (acceptor, trusted, detail) in [
        (authority.server("localhost", false), &stranger, "unknown authority"),
        (authority.server("other.example", false), &authority, "another name"),
        (authority.server("localhost", true), &authority, "expired"),
    ] {
        let receiver = Receiver::answering_tls(acceptor).await;
        let sent = call(&receiver, trusted, "localhost").await;
        assert_eq!(failure(&sent), Failure::Tls);
        assert!(sent.detail.contains(detail), "{}", sent.detail);
        assert_eq!(receiver.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls_gets_nothing() {
    let closing = Receiver::scripted(|mut stream, _| async move {
        drop(stream.read_u8().await);
    })
    .await;
    let plain = Receiver::scripted(|mut stream, _| async move {
        stream.write_all(OK).await.expect("a reader");
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let silent = Receiver::answering(OK).await;
    for (receiver, expected) in
        [(closing, Failure::Tls), (plain, Failure::Tls), (silent, Failure::Timeout)]
    {
        let sent = egress().send(request(&receiver.named("https", "localhost"), SHORT)).await;
        assert_eq!(failure(&sent), expected);
        assert!(sent.timing.connect.is_some() && sent.timing.tls.is_none());
        assert_eq!(receiver.requests().len(), 0);
    }
}
