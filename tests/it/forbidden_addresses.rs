//! Promise: no forbidden address is ever called, by any spelling, redirect or DNS answer.
//!
//! Receivers stand on 127.0.0.1, which the server is told to allow; the traps stand on
//! 127.0.0.2, which it is not. The policy is on in every test.

use std::net::Ipv4Addr;

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_attempt::Outcome;

use crate::harness::authority::Certificate;
use crate::harness::client::{Organization, draft};
use crate::harness::engine::Engine;
use crate::harness::eventually::eventually;
use crate::harness::nameserver::Nameserver;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::refusal::violation;
use crate::harness::service::{Service, Settings};

const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Addresses that must be refused, and controls that must not.
const CORPUS: &str = include_str!("../data/ssrf-corpus.txt");

#[tokio::test]
async fn a_forbidden_address_in_a_url_is_refused_and_a_public_one_is_not() {
    let settings = Settings::new(Engine::sqlite()).public_addresses_only();
    // The system's own may be one of the corpus' public addresses, and is refused then.
    let service = settings.flag("--egress-nameserver", "192.0.2.53").start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let mut refused = 0;
    for line in CORPUS.lines().filter(|line| !line.starts_with('#')) {
        let (address, what) = line.split_once('|').expect("address and reason");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let url = format!("https://{host}/hook");
        let draft = pb::Subscription { url, ..draft(&receiver, "standard", "*") };
        let answer = clinic.try_create(draft, "").await;
        if what.starts_with("PUBLIC") {
            answer.expect(address);
            continue;
        }
        let status = answer.expect_err(address);
        let expected = ("subscription.url".to_owned(), "URL_BLOCKED_ADDRESS".to_owned());
        assert_eq!(violation(&status), expected, "{address}: {what}");
        refused += 1;
    }
    assert!(40 <= refused, "the corpus was read: {refused}");
}

#[tokio::test]
async fn every_spelling_of_a_forbidden_host_is_refused() {
    let settings = Settings::new(Engine::sqlite()).public_addresses_only();
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let spellings = [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://１２７.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://metadata.google.internal/",
        "https://metadata.goog/",
        "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "https://l%6fcalhost/",
        "https://127。0。0。1/",
        "https://kubernetes.default.svc/",
        "https://kubernetes.default.svc.cluster.local/",
        "https://kubernetes/",
        "https:\\\\127.0.0.1/",
        "https:127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com@127.0.0.1/",
    ];
    for url in spellings {
        let draft = pb::Subscription { url: url.to_owned(), ..draft(&receiver, "standard", "*") };
        let refused = clinic.try_create(draft, "").await.expect_err(url);
        assert_eq!(violation(&refused).0, "subscription.url", "{url}");
    }
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let trap = Receiver::answering([200]).await;
    let mut settings = Settings::new(Engine::sqlite());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        settings = settings.env(name, &trap.url()).env(&name.to_lowercase(), &trap.url());
    }
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    for receiver in
        [Receiver::answering([200]).await, Receiver::secure(Certificate::Good, [200]).await]
    {
        clinic.subscribe(&receiver, "standard", "*").await;
        clinic.publish("a", "{}").await;
        receiver.received(1).await;
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let service = Service::start(Engine::sqlite()).await;
    let clinic = service.organization("clinic");
    let elsewhere = Receiver::answering([200]).await;
    for status in [301, 302, 303, 307, 308] {
        let receiver =
            Receiver::answering([Answer::with(status, "Location", &elsewhere.url())]).await;
        let event_type = format!("redirect.{status}");
        let once = pb::Subscription {
            retry_policy: Some(pb::RetryPolicy::default()),
            ..draft(&receiver, "standard", &event_type)
        };
        clinic.create(once).await;

        let id = clinic.publish(&event_type, "{}").await;

        let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
        let last = delivery.last_attempt.expect("there was one");
        assert_eq!(last.outcome(), Outcome::HttpStatus);
        assert_eq!(last.http_status, Some(u32::from(status)));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_part_of_the_deployment_is_not_called_although_its_address_is_allowed() {
    let nameserver = Nameserver::answering(|_, _| vec![ALLOWED]).await;
    let settings = Settings::new(Engine::sqlite())
        .flag("--egress-nameserver", &nameserver.address())
        .env("KUBERNETES_SERVICE_HOST", "8.8.4.4")
        .env("KUBERNETES_SERVICE_PORT", "6443");
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let admin = service.admin_address();
    let urls = [
        format!("https://{admin}/metrics"),
        format!("https://{}/", nameserver.address()),
        "https://8.8.4.4/".to_owned(),
    ];
    for url in urls {
        let draft = pb::Subscription { url: url.clone(), ..draft(&receiver, "standard", "*") };
        let refused = clinic.try_create(draft, "").await.expect_err(&url);
        assert_eq!(violation(&refused).1, "URL_BLOCKED_ADDRESS", "{url}");
    }

    // By name, it is noticed when the connection would be made.
    let once = pb::Subscription {
        url: format!("https://admin.receiver.example:{}/metrics", admin.port()),
        retry_policy: Some(pb::RetryPolicy::default()),
        ..draft(&receiver, "standard", "*")
    };
    clinic.create(once).await;
    let id = clinic.publish("a", "{}").await;
    let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
    let last = delivery.last_attempt.expect("there was one");
    assert_eq!(last.outcome(), Outcome::BlockedAddress);
}

/// A server with a nameserver of the test's, a TLS receiver on the allowed address and a
/// trap at the same port of the forbidden one.
struct Stage {
    _service: Service,
    clinic: Organization,
    receiver: Receiver,
    trap: Receiver,
}

impl Stage {
    async fn new(resolve: impl FnMut(&str, usize) -> Vec<Ipv4Addr> + Send + 'static) -> Stage {
        let nameserver = Nameserver::answering(resolve).await;
        let settings = Settings::new(Engine::sqlite());
        let settings = settings.flag("--egress-nameserver", &nameserver.address());
        let service = settings.start().await;
        let clinic = service.organization("clinic");
        let receiver = Receiver::secure(Certificate::Good, [200]).await;
        let trap = Receiver::trap(&format!("{FORBIDDEN}:{}", receiver.port())).await;
        Stage { _service: service, clinic, receiver, trap }
    }

    /// Sends one event to a name, once, and gives the finished delivery.
    async fn send_to(&self, host: &str, state: State) -> pb::Delivery {
        let url = format!("https://{host}:{}/hook", self.receiver.port());
        let once = pb::Subscription {
            url,
            retry_policy: Some(pb::RetryPolicy::default()),
            ..draft(&self.receiver, "standard", host)
        };
        self.clinic.create(once).await;
        let id = self.clinic.publish(host, "{}").await;
        self.clinic.delivery_of(&id).reaches(state).await
    }
}

#[tokio::test]
async fn a_name_is_called_only_if_every_address_it_resolves_to_may_be() {
    let stage = Stage::new(|name, _| match name.split('.').next() {
        Some("good") => vec![ALLOWED],
        Some("bad") => vec![FORBIDDEN],
        Some("mixed") => vec![ALLOWED, FORBIDDEN],
        Some("private") => vec![Ipv4Addr::new(10, 0, 0, 1)],
        Some("metadata") => vec![Ipv4Addr::new(169, 254, 169, 254)],
        _ => Vec::new(),
    })
    .await;

    stage.send_to("good.receiver.example", State::Succeeded).await;
    for name in ["bad", "mixed", "private", "metadata"] {
        let host = format!("{name}.receiver.example");
        let delivery = stage.send_to(&host, State::Dead).await;
        let last = delivery.last_attempt.expect("there was one");
        assert_eq!(last.outcome(), Outcome::BlockedAddress, "{name}");
        for told in ["127.", "10.0", "169.254"] {
            assert!(!last.error_message.contains(told), "{}", last.error_message);
        }
    }
    let missing = stage.send_to("missing.receiver.example", State::Dead).await;
    let last = missing.last_attempt.expect("there was one");
    assert_eq!(last.outcome(), Outcome::DnsError);

    assert_eq!(stage.trap.connections(), 0);
    assert_eq!(stage.receiver.count(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_address_at_every_question_never_leads_into_the_trap() {
    let flips =
        |_: &str, number: usize| vec![if number.is_multiple_of(2) { ALLOWED } else { FORBIDDEN }];
    let stage = Stage::new(flips).await;
    let receiver = &stage.receiver;
    for number in 0..50 {
        let host = format!("flip{number}.receiver.example");
        let url = format!("https://{host}:{}/hook", receiver.port());
        let draft = pb::Subscription { url, ..draft(receiver, "standard", "*") };
        stage.clinic.create(draft).await;
    }

    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stage.clinic.publish("flip", "{}").await);
    }

    let open = [State::Pending.into(), State::InFlight.into()];
    eventually("the end of all deliveries", async || {
        let filter = pb::ListDeliveriesRequest { states: open.to_vec(), ..Default::default() };
        stage.clinic.list(filter).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(stage.trap.connections(), 0);
    assert!(0 < receiver.count(), "some questions had a good answer");
}
