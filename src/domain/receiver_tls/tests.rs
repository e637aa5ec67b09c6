//! What is taken for a certificate or a key, what is kept of it, and what is not.

use proptest::prelude::*;

use super::*;

struct Issued {
    certificate: String,
    key: String,
}

fn issued(name: &str) -> Issued {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    Issued { certificate, key: key.serialize_pem() }
}

fn input(certificate: &str, key: &str, authorities: &str) -> TlsInput {
    TlsInput {
        client_certificate: certificate.to_owned(),
        client_private_key: SentKey(key.to_owned()),
        certificate_authorities: authorities.to_owned(),
    }
}

fn reason(input: &TlsInput, stored: &ReceiverTls) -> (String, &'static str) {
    let invalid = input.check(stored).expect_err("it breaks a rule");
    (invalid.field, invalid.reason)
}

#[test]
fn a_certificate_with_its_key_is_taken_and_written_anew() {
    let ours = issued("a.example");
    let noisy = format!("Bag Attributes\n  x: y\n{}", ours.certificate.replace('\n', "\r\n"));
    let nothing = ReceiverTls::default();
    let tls = input(&noisy, &ours.key, &noisy).check(&nothing).expect("valid");
    let client = tls.client.as_ref().expect("there is one");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&client.chain), lines(&ours.certificate));
    assert_eq!(lines(client.key.pem().expect("readable")), lines(&ours.key));
    assert_eq!(tls.authorities, client.chain);
    let parts = tls.parts().expect("usable");
    assert!(parts.client.is_some() && parts.authorities.is_some());
    assert_eq!(input("", "", "").check(&tls), Ok(nothing));
}

#[test]
fn the_key_is_kept_by_three_stars_as_long_as_it_belongs() {
    let (ours, other) = (issued("a.example"), issued("b.example"));
    let stored = input(&ours.certificate, &ours.key, "").check(&ReceiverTls::default());
    let stored = stored.expect("valid");
    assert_eq!(stored.to_input().check(&stored), Ok(stored.clone()));
    let mismatch = input(&other.certificate, HIDDEN, "");
    assert_eq!(reason(&mismatch, &stored).1, "TLS_PRIVATE_KEY");
    let nothing = ReceiverTls::default();
    assert_eq!(reason(&stored.to_input(), &nothing).1, "TLS_PRIVATE_KEY");
}

#[test]
fn a_stored_key_that_cannot_be_read_stays_and_serves_for_nothing() {
    let ours = issued("a.example");
    let stored = input(&ours.certificate, &ours.key, "").check(&ReceiverTls::default());
    let mut stored = stored.expect("valid");
    stored.client.as_mut().expect("there is one").key = PrivateKey::unreadable();
    assert_eq!(stored.parts().expect_err("unreadable").reason, "TLS_PRIVATE_KEY");
    assert_eq!(stored.to_input().check(&stored), Ok(stored.clone()));
    let more = TlsInput { certificate_authorities: ours.certificate, ..stored.to_input() };
    assert_eq!(reason(&more, &stored).1, "TLS_PRIVATE_KEY");
}

#[test]
fn what_is_no_certificate_or_key_is_refused_with_the_field() {
    let (ours, other) = (issued("a.example"), issued("b.example"));
    let (certificate, key) = (ours.certificate.as_str(), ours.key.as_str());
    let both = format!("{certificate}{key}");
    let many = certificate.repeat(9);
    let broken = certificate.replacen("MII", "M!I", 1);
    let cut = &certificate[..certificate.len() - 30];
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    let not_x509 = section("CERTIFICATE", b"not a certificate");
    for certificate in ["a", key, &both, &many, &broken, cut, &long, &not_x509] {
        let expected = (CERTIFICATE.to_owned(), "TLS_CERTIFICATE");
        assert_eq!(reason(&input(certificate, key, ""), &<_>::default()), expected);
        let expected = (AUTHORITIES.to_owned(), "TLS_AUTHORITIES");
        assert_eq!(reason(&input("", "", certificate), &<_>::default()), expected);
    }
    let two = key.repeat(2);
    let not_a_key = section("PRIVATE KEY", b"not a key");
    for key in ["a", certificate, &other.key, &encrypted, &two, &long, &not_a_key, ""] {
        let expected = (PRIVATE_KEY.to_owned(), "TLS_PRIVATE_KEY");
        assert_eq!(reason(&input(certificate, key, ""), &<_>::default()), expected);
    }
    assert_eq!(reason(&input("", key, ""), &<_>::default()).1, "TLS_CERTIFICATE");
}

#[test]
fn keys_are_not_printed_and_differences_are_told() {
    let (ours, other) = (issued("a.example"), issued("a.example"));
    let of = |one: &Issued, authorities: &str| {
        let input = input(&one.certificate, &one.key, authorities);
        let tls = input.check(&ReceiverTls::default()).expect("valid");
        let body = one.key.lines().nth(1).expect("base64");
        assert!(!format!("{input:?}{tls:?}").contains(body), "{tls:?}");
        tls.parts().expect("usable").fingerprint
    };
    assert_eq!(of(&ours, ""), of(&ours, ""));
    assert_ne!(of(&ours, ""), of(&other, ""));
    assert_ne!(of(&ours, ""), of(&ours, &other.certificate));
}

proptest! {
    #[test]
    fn no_text_and_no_der_panics(
        text in "\\PC{0,60}",
        der in prop::collection::vec(any::<u8>(), 0..120),
        label in "CERTIFICATE|PRIVATE KEY|EC PRIVATE KEY|RSA PRIVATE KEY|X509 CRL|Y",
    ) {
        let wrapped = section(&label, &der);
        for text in [&text, &wrapped] {
            for input in [input(text, HIDDEN, ""), input("", "", text), input(text, text, text)] {
                drop(input.check(&ReceiverTls::default()));
            }
        }
    }
}
