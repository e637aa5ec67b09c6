//! Promise: a subscription's certificate is shown to its receiver, its private key to
//! nobody, and only its own authorities vouch for its receiver.

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_attempt::Outcome;

use crate::harness::authority::{AUTHORITY, Authority, Certificate};
use crate::harness::client::draft;
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::Service;

on_both_engines!(
    a_certificate_is_shown_to_the_receiver_and_its_key_to_nobody,
    a_subscriptions_authorities_take_the_place_of_the_servers,
    certificates_and_keys_are_checked_when_they_are_given,
);

async fn a_certificate_is_shown_to_the_receiver_and_its_key_to_nobody(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::over_tls(AUTHORITY.server_asking()).await;
    let client = AUTHORITY.issue(&["client.example"]);
    let (certificate, key) = (client.certificate_pem, client.key_pem);
    let bare = pb::Subscription {
        retry_policy: Some(pb::RetryPolicy::default()),
        ..draft(&receiver, "standard", "bare")
    };
    clinic.create(bare).await;
    let tls = pb::ReceiverTls {
        client_certificate: certificate.clone(),
        client_private_key: key.clone(),
        certificate_authorities: String::new(),
    };
    let mut shown = clinic
        .create(pb::Subscription { tls: Some(tls), ..draft(&receiver, "standard", "known") })
        .await
        .subscription;

    let id = clinic.publish("bare", "{}").await;
    let delivery = clinic.delivery_of(&id).reaches(State::Dead).await;
    let last = delivery.last_attempt.expect("there was one");
    assert!([Outcome::TlsError, Outcome::ProtocolError].contains(&last.outcome()), "{last:?}");
    assert_eq!(receiver.count(), 0, "nothing is taken from a stranger");
    let id = clinic.publish("known", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;

    let told = shown.tls.clone().expect("it is told");
    assert_eq!(told.client_private_key, "***");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&told.client_certificate), lines(&certificate));
    shown.name = "renamed".into();
    let kept = clinic.try_update(shown.clone(), &["name", "tls"]).await.expect("*** keeps the key");
    assert_eq!(kept.tls, shown.tls);
    let id = clinic.publish("known", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;

    // Taken away, it is not shown any more, also not by a connection that is open.
    shown.tls = None;
    shown.retry_policy = Some(pb::RetryPolicy::default());
    shown.etag = String::new();
    clinic.try_update(shown, &["tls", "retry_policy"]).await.expect("it can be taken away");
    eventually("a request without the certificate", async || {
        let id = clinic.publish("known", "{}").await;
        let ended = |delivery: &pb::Delivery| delivery.end_time.is_some();
        let delivery = clinic.delivery_of(&id).is("ended", ended).await;
        (delivery.state() == State::Dead).then_some(())
    })
    .await;
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!service.written().contains(line), "the key is in the log");
    }
}

async fn a_subscriptions_authorities_take_the_place_of_the_servers(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let own = Authority::new();
    let private = Receiver::over_tls(own.server(Certificate::Good)).await;
    let usual = Receiver::over_tls(AUTHORITY.server(Certificate::Good)).await;
    let tls = pb::ReceiverTls { certificate_authorities: own.pem(), ..Default::default() };
    let cases = [
        ("private.trusted", &private, Some(tls.clone()), State::Succeeded),
        ("private.not", &private, None, State::Dead),
        ("usual.trusted", &usual, None, State::Succeeded),
        ("usual.not", &usual, Some(tls), State::Dead),
    ];
    for (event_type, receiver, tls, state) in cases {
        let once = pb::Subscription {
            tls,
            retry_policy: Some(pb::RetryPolicy::default()),
            ..draft(receiver, "standard", event_type)
        };
        clinic.create(once).await;
        let id = clinic.publish(event_type, "{}").await;
        let delivery = clinic.delivery_of(&id).reaches(state).await;
        if state == State::Dead {
            let last = delivery.last_attempt.expect("there was one");
            assert_eq!(last.outcome(), Outcome::TlsError, "{event_type}");
        }
    }
    assert_eq!((private.count(), usual.count()), (1, 1));
}

async fn certificates_and_keys_are_checked_when_they_are_given(engine: Engine) {
    let service = Service::start(engine).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::secure(Certificate::Good, [200]).await;
    let plain = Receiver::answering([200]).await;
    let [client, other] = ["client.example", "other.example"].map(|name| AUTHORITY.issue(&[name]));
    let (certificate, key, other) = (client.certificate_pem, client.key_pem, other.key_pem);
    let both = format!("{certificate}{key}");
    let tls = |certificate: &str, key: &str, authorities: &str| pb::ReceiverTls {
        client_certificate: certificate.to_owned(),
        client_private_key: key.to_owned(),
        certificate_authorities: authorities.to_owned(),
    };
    let cases = [
        (&receiver, tls(&certificate, &other, ""), "client_private_key", "TLS_PRIVATE_KEY"),
        (&receiver, tls(&certificate, "***", ""), "client_private_key", "TLS_PRIVATE_KEY"),
        (&receiver, tls(&certificate, "", ""), "client_private_key", "TLS_PRIVATE_KEY"),
        (&receiver, tls("", &key, ""), "client_certificate", "TLS_CERTIFICATE"),
        (&receiver, tls(&both, &key, ""), "client_certificate", "TLS_CERTIFICATE"),
        (&receiver, tls("", "", "none"), "certificate_authorities", "TLS_AUTHORITIES"),
        (&plain, tls(&certificate, &key, ""), "", "TLS_NEEDS_HTTPS"),
    ];
    for (receiver, tls, field, reason) in cases {
        let draft = pb::Subscription { tls: Some(tls), ..draft(receiver, "standard", "*") };
        let refused = clinic.try_create(draft, "").await.expect_err(reason);
        let field = format!("subscription.tls.{field}");
        let expected = (field.trim_end_matches('.').to_owned(), reason.to_owned());
        assert_eq!(violation(&refused), expected);
        assert!(!format!("{refused:?}").contains(key.lines().nth(1).expect("base64")));
    }
}
