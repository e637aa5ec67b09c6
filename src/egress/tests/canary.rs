//! The canary's receiver: reached for its own name by its own subscription, and otherwise by
//! nobody.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::domain::attempt::Failure;
use crate::domain::attempt::Fault;
use crate::domain::canary;
use crate::domain::endpoint_url::EndpointUrl;
use crate::domain::id::{OrganizationId, SubscriptionKey};
use crate::egress::Egress;
use crate::egress::Settings;
use crate::egress::Target;

use super::receiver::OK;
use super::receiver::PLENTY;
use super::receiver::Receiver;
use super::receiver::answered;
use super::receiver::failure;
use super::receiver::name_server;
use super::receiver::policy;
use super::receiver::request;

fn target(url: &str, organization: Option<OrganizationId>) -> Arc<Target> {
    let target = Target::new(&EndpointUrl::stored(url).expect("a URL")).expect("a target");
    Arc::new(match organization {
        None => target,
        Some(organization) => target.of(organization),
    })
}

#[tokio::test]
async fn the_canary_alone_reaches_its_receiver_whatever_is_closed() {
    static DOCUMENTATION: [Ipv4Addr; 1] = [Ipv4Addr::new(192, 0, 2, 1)];
    let receiver = Receiver::answering(OK).await;
    let (nameserver, asked) = name_server(&DOCUMENTATION).await;
    let mut settings = Settings::new(policy(&[], &["127.0.0.0/8"]));
    settings.nameservers.push(nameserver);
    // Nobody listens there: who would be asked, is not.
    settings.proxy = Some(("127.0.0.1".to_owned(), 1));
    settings.canary = Some(receiver.address);
    let egress = Egress::new(settings).expect("a room");

    let sent = egress.send(request(&target(canary::URL, Some(canary::organization())), PLENTY));
    assert_eq!(answered(&sent.await).0, 200);
    let host = format!("host: {}\r\n", canary::HOST);
    assert!(receiver.requests()[0].contains(&host), "{:?}", receiver.requests());
    assert!(asked.lock().expect("no panic").is_empty(), "no name server is asked");

    let other = OrganizationId::stored("hookward");
    for (url, organization) in [
        (canary::URL, None),
        (canary::URL, Some(other)),
        ("http://other.hookward.invalid/", Some(canary::organization())),
    ] {
        let mut request = request(&target(url, organization.clone()), PLENTY);
        // The canary's own has its connection.
        request.subscription = SubscriptionKey(2);
        let sent = egress.send(request).await;
        let called = !matches!(failure(&sent), Failure::Dns | Failure::BlockedAddress);
        assert!(!called, "{url} {organization:?}: {sent:?}");
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn where_there_is_no_receiver_it_is_our_own_fault() {
    let egress = Egress::new(Settings::new(policy(&[], &[]))).expect("a room");
    let target = target(canary::URL, Some(canary::organization()));
    let sent = egress.send(request(&target, PLENTY)).await;
    assert_eq!((failure(&sent), sent.fault), (Failure::Connect, Fault::Ours));
}
