//! Certificates of one subscription: shown to its receiver, and trusted for it alone.

use std::sync::Arc;

use crate::domain::attempt::Failure;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::receiver_tls::PrivateKey;
use crate::domain::receiver_tls::ReceiverTls;
use crate::egress::Egress;
use crate::egress::Sent;
use crate::egress::Target;

use super::receiver::Authority;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::answered;
use super::receiver::failure;
use super::receiver::loopback;
use super::receiver::request;

/// The receiver as a subscription with these certificates calls it.
fn target(receiver: &Receiver, tls: &ReceiverTls) -> Arc<Target> {
    let url = format!("https://localhost:{}/hook", receiver.address.port());
    let target = Target::new(&EndpointUrl::stored(&url).expect("a URL")).expect("a target");
    Arc::new(target.with_tls(tls).expect("usable"))
}

/// A room that trusts these authorities for every subscription.
fn trusting(authorities: &[&Authority]) -> Egress {
    let mut settings = loopback();
    settings.ca_files_pem = authorities.iter().map(|authority| authority.pem.clone()).collect();
    Egress::new(settings).expect("a room")
}

fn only(authority: &Authority) -> ReceiverTls {
    let authorities = String::from_utf8(authority.pem.clone()).expect("PEM");
    ReceiverTls { client: None, authorities }
}

/// A receiver may judge a certificate after the request was begun, and its alert may be
/// lost with the connection.
fn is_refused(sent: &Sent) -> bool {
    [Failure::Tls, Failure::Protocol].contains(&failure(sent))
}

#[tokio::test]
async fn a_receiver_that_asks_is_shown_the_subscriptions_certificate() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let acceptor = servers.server_asking("localhost", &clients);
    let receiver = Receiver::answering_tls(acceptor).await;
    let egress = trusting(&[&servers]);

    let usual = target(&receiver, &ReceiverTls::default());
    let sent = egress.send(request(&usual, PLENTY)).await;
    assert!(is_refused(&sent), "{sent:?}");
    assert_eq!(receiver.requests().len(), 0);

    let known = target(&receiver, &clients.client());
    let sent = egress.send(request(&known, PLENTY)).await;
    assert_eq!(answered(&sent).0, 200);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_made_under_one_certificate_is_not_used_under_another() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let acceptor = servers.server_asking("localhost", &clients);
    let receiver = Receiver::answering_tls(acceptor).await;
    let egress = trusting(&[&servers]);
    let tls = clients.client();

    // The same certificate, read anew as after another change of the subscription.
    for reused in [false, true] {
        let sent = egress.send(request(&target(&receiver, &tls), PLENTY)).await;
        assert_eq!((answered(&sent).0, sent.reused), (200, reused));
    }
    let renewed = clients.client();
    let sent = egress.send(request(&target(&receiver, &renewed), PLENTY)).await;
    assert_eq!((answered(&sent).0, sent.reused), (200, false));
    for unknown in [Authority::new("others").client(), ReceiverTls::default()] {
        let sent = egress.send(request(&target(&receiver, &unknown), PLENTY)).await;
        assert!(!sent.reused && is_refused(&sent), "{sent:?}");
    }
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test]
async fn a_subscriptions_authorities_take_the_place_of_all_others() {
    let (usual, own) = (Authority::new("usual"), Authority::new("own"));
    let ordinary = Receiver::answering_tls(usual.server("localhost", false)).await;
    let private = Receiver::answering_tls(own.server("localhost", false)).await;
    let egress = trusting(&[&usual]);
    for (receiver, tls, trusted) in [
        (&ordinary, ReceiverTls::default(), true),
        (&ordinary, only(&own), false),
        (&private, ReceiverTls::default(), false),
        (&private, only(&own), true),
    ] {
        let sent = egress.send(request(&target(receiver, &tls), PLENTY)).await;
        if trusted {
            assert_eq!(answered(&sent).0, 200);
        } else {
            assert_eq!(failure(&sent), Failure::Tls);
            assert!(sent.detail.contains("unknown authority"), "{}", sent.detail);
        }
    }
    // Names and dates count as ever.
    for (name, expired, told) in
        [("other.example", false, "another name"), ("localhost", true, "expired")]
    {
        let receiver = Receiver::answering_tls(own.server(name, expired)).await;
        let sent = egress.send(request(&target(&receiver, &only(&own)), PLENTY)).await;
        assert_eq!(failure(&sent), Failure::Tls);
        assert!(sent.detail.contains(told), "{}", sent.detail);
        assert_eq!(receiver.requests().len(), 0);
    }
}

#[test]
fn a_key_that_cannot_be_read_makes_no_target() {
    let url = EndpointUrl::stored("https://receiver.example/").expect("a URL");
    let mut tls = Authority::new("clients").client();
    assert!(Target::new(&url).expect("a target").with_tls(&tls).is_ok());
    tls.client.as_mut().expect("there is one").key = PrivateKey::unreadable();
    assert!(Target::new(&url).expect("a target").with_tls(&tls).is_err());
}
