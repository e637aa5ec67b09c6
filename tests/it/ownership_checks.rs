//! Promise: the question whether an endpoint wants events keeps every rule of a delivery:
//! addresses, certificates, redirects, deadlines, pauses; and one that is lost is asked
//! again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::ownership::State as Ownership;

use crate::harness::authority::Certificate;
use crate::harness::client::{draft, duration};
use crate::harness::consent::{Endpoint, fails, reaches, settings};
use crate::harness::engine::Engine;
use crate::harness::eventually::{meanwhile, within};
use crate::harness::nameserver::Nameserver;
use crate::harness::receiver::{Answer, Receiver};

/// A subscription whose endpoint must answer within a second.
fn hasty(receiver: &Receiver) -> pb::Subscription {
    let attempt_timeout = Some(duration(Duration::from_secs(1)));
    pb::Subscription { attempt_timeout, ..draft(receiver, "handshake", "*") }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_consent_are_none() {
    let service = settings(Engine::sqlite()).start().await;
    let clinic = service.organization("clinic");
    let elsewhere = Receiver::answering([Answer::with(200, "WebHook-Allowed-Origin", "*")]).await;
    let allowed = ("WebHook-Allowed-Origin".to_owned(), "*".to_owned());
    let location = ("Location".to_owned(), elsewhere.url());
    for (answer, why) in [
        (Answer::Full(307, vec![allowed.clone(), location], Vec::new()), "with status 307."),
        (Answer::Full(500, vec![allowed], Vec::new()), "with status 500."),
        (Answer::with(200, "WebHook-Allowed-Origin", "other.example"), "does not allow"),
        (Answer::Hang, "did not answer in time."),
        (Answer::Drip, "did not answer in time."),
        (Answer::Close, " before "),
        (Answer::CutBody, "broke off."),
    ] {
        let endpoint = Endpoint::reluctant(false, answer).await;
        let id = clinic.create(hasty(&endpoint.receiver)).await.id;
        let begin = Instant::now();
        clinic.publish("invoice.paid", "{}").await;

        let refused = fails(&clinic, &id, 1).await;

        assert!(refused.reason.contains(why), "{why}: {}", refused.reason);
        assert!(begin.elapsed() < Duration::from_secs(8), "{why}: one deadline");
        assert!(endpoint.events().is_empty(), "{why}");
        clinic.delete(&id).await.expect("it is there");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_permitted_addresses_with_good_certificates_are_asked() {
    let nameserver = Nameserver::answering(|name, _| match name.split('.').next() {
        Some("good") => vec![Ipv4Addr::LOCALHOST],
        Some("mixed") => vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)],
        _ => vec![Ipv4Addr::new(127, 0, 0, 2)],
    })
    .await;
    let settings = settings(Engine::sqlite()).flag("--egress-nameserver", &nameserver.address());
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::new(true).await;
    let trap = Receiver::trap(&format!("127.0.0.2:{}", endpoint.receiver.port())).await;
    let named = |host: &str| pb::Subscription {
        url: format!("https://{host}.receiver.example:{}/hook", endpoint.receiver.port()),
        ..hasty(&endpoint.receiver)
    };
    for host in ["bad", "mixed"] {
        let id = clinic.create(named(host)).await.id;
        let refused = fails(&clinic, &id, 1).await;
        assert_eq!(refused.reason, "The address may not be called.", "{host}");
    }
    assert_eq!((trap.connections(), endpoint.receiver.connections()), (0, 0));
    for kind in [Certificate::SelfSigned, Certificate::WrongName, Certificate::Expired] {
        let answer = Answer::with(200, "WebHook-Allowed-Origin", "*");
        let receiver = Receiver::secure(kind, [answer]).await;
        let id = clinic.create(hasty(&receiver)).await.id;
        let refused = fails(&clinic, &id, 1).await;
        assert!(refused.reason.contains("certificate"), "{kind:?}: {}", refused.reason);
        assert_eq!(receiver.count(), 0, "{kind:?}");
    }
    let id = clinic.create(named("good")).await.id;
    reaches(&clinic, &id, Ownership::Proven).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_a_subscription_that_is_not_active() {
    let service = settings(Engine::sqlite()).start().await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::new(false).await;
    let state = pb::subscription::State::Inactive.into();
    let draft = pb::Subscription { state, ..draft(&endpoint.receiver, "handshake", "*") };
    let id = clinic.create(draft).await.id;
    meanwhile(Duration::from_secs(2)).await;
    assert!(endpoint.checks().is_empty());
    clinic.activate(&id).await.expect("it is inactive");
    fails(&clinic, &id, 1).await;

    clinic.pause(&id).await.expect("it is active");
    meanwhile(Duration::from_secs(8)).await;
    assert_eq!(endpoint.checks().len(), 1, "the second one was due after five seconds");
    endpoint.consent();
    clinic.resume(&id).await.expect("it is paused");
    reaches(&clinic, &id, Ownership::Proven).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_endpoints_hold_up_the_checks_of_their_own_organization_only() {
    let service = settings(Engine::sqlite()).start().await;
    let noisy = service.organization("noisy");
    let silent = Endpoint::reluctant(false, Answer::Hang).await;
    for number in 0..80 {
        let url = silent.receiver.url_at(&format!("/{number}"));
        let draft = pb::Subscription { url, ..draft(&silent.receiver, "handshake", "*") };
        noisy.create(draft).await;
    }
    silent.asked(8).await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::new(true).await;
    let id = clinic.subscribe(&endpoint.receiver, "handshake", "*").await.id;
    within(Duration::from_secs(8), "a consent beside silent endpoints", async || {
        let ownership = clinic.get(&id).await.expect("it is there").ownership;
        ownership.filter(|ownership| ownership.state() == Ownership::Proven)
    })
    .await;
    assert!(silent.checks().len() < 64, "eight at once, each of which takes 15 seconds");
}

/// A stopped process gives its checks back; a killed one loses them when they lapse.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_was_cut_off_is_made_again() {
    let engine = Engine::sqlite();
    let mut service = settings(engine).start().await;
    let clinic = service.organization("clinic");
    let endpoint = Endpoint::reluctant(false, Answer::Hang).await;
    let slow = Some(duration(Duration::from_secs(30)));
    let patient =
        pb::Subscription { attempt_timeout: slow, ..draft(&endpoint.receiver, "handshake", "*") };
    let id = clinic.create(patient).await.id;
    endpoint.asked(1).await;
    service.terminate();
    service.ends().await;
    service.restart().await;
    within(Duration::from_secs(20), "the check that was given back", async || {
        (2 <= endpoint.checks().len()).then_some(())
    })
    .await;
    let clinic = service.organization("clinic");
    clinic.delete(&id).await.expect("it is there");

    let endpoint = Endpoint::reluctant(false, Answer::Hang).await;
    let id = clinic.create(hasty(&endpoint.receiver)).await.id;
    endpoint.asked(1).await;
    service.kill();
    service.ends().await;
    endpoint.consent();
    service.restart().await;
    reaches(&service.organization("clinic"), &id, Ownership::Proven).await;
}
