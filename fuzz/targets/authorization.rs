//! What callers write into the `authorization` header, at the real server: whoever shows
//! exactly one good credential is served, however often others of the same address have
//! failed, and everybody else is told one and the same.
//!
//! An input is the values of the header, one for each part between `%%`. In them `%k` stands
//! for an API key that is good, `%r` for one that is revoked, and `%t` for a token that is
//! good.
#![no_main]

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookward::domain::api_key::{ApiKeySecret, read_token};
use hookward::domain::audit::{Chain, NewAuditEntry};
use hookward::domain::id::{ApiKeyId, IdCodec};
use hookward::domain::principal::Organizations;
use hookward::domain::scope::Scopes;
use hookward::grpc::pb::ListEventsRequest;
use hookward::grpc::pb::event_service_client::EventServiceClient;
use hookward::store::{NewApiKey, Store};
use hookward_fuzz::{RUNTIME, split};
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// Larger header lists are no question of credentials: above 16 KiB HTTP/2 refuses them
/// with 431, before there is a call.
const BYTES_MAX: usize = 8 << 10;

/// What HTTP/2 counts for a field besides its value: the name, and 32 bytes (RFC 9113,
/// 6.5.2).
const FIELD_BYTES: usize = "authorization".len() + 32;

static SERVER: LazyLock<Server> = LazyLock::new(|| RUNTIME.block_on(Server::start()));

/// The service in this process, and what is good there.
struct Server {
    service: hookward_fuzz::Server,
    key: String,
    revoked: String,
    token: String,
}

impl Server {
    async fn start() -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": x}]});
        fs::write(path("keys.json"), keys.to_string()).expect("the folder is ours");
        let issuer = format!(
            "[[issuer]]\nissuer = \"https://login.example\"\naudience = \"hookward\"\n\
             algorithms = [\"EdDSA\"]\njwks_file = \"{}\"\n",
            path("keys.json")
        );
        fs::write(path("auth.toml"), issuer).expect("the folder is ours");
        let auth_file = format!("--auth-file={}", path("auth.toml"));
        let settings =
            hookward_fuzz::Server::settings(&folder, &["--auth=api-key,jwt", &auth_file]);
        Store::migrate(&settings.database).await.expect("migrates");
        let store = Store::visit(&settings.database).await.expect("opens");
        let (key, revoked) = (make(&store, 1).await, make(&store, 2).await);
        store.revoke_api_key(ApiKeyId(2), &entry()).await.expect("it is there");
        store.close().await;
        // With its lock on the file.
        drop(store);
        let service = hookward_fuzz::Server::run(folder, settings).await;
        Server { service, key, revoked, token: token(&pair) }
    }

    async fn call(&self, values: &[AsciiMetadataValue]) -> Result<(), Status> {
        let organization_id = "clinic".to_owned();
        let list = ListEventsRequest { organization_id, ..ListEventsRequest::default() };
        let mut request = Request::new(list);
        for value in values {
            request.metadata_mut().append("authorization", value.clone());
        }
        EventServiceClient::new(self.service.channel.clone()).list_events(request).await.map(drop)
    }
}

/// An API key for everything.
async fn make(store: &Store, number: i64) -> String {
    let (id, secret) = (ApiKeyId(number), ApiKeySecret::generate());
    let (organizations, scopes) = (Organizations::All, Scopes::all());
    let (label, secret_hash) = ("fuzz".to_owned(), secret.hash());
    let new = NewApiKey { id, label, organizations, scopes, secret_hash, life: None };
    store.create_api_key(new, &entry()).await.expect("it is stored");
    secret.token(&store.ids().api_key(id))
}

/// What the audit log will say of it.
fn entry() -> NewAuditEntry {
    NewAuditEntry::of_service(Chain::Deployment, "fuzz")
}

/// A token for everything that is asked here, as long as a token may live.
fn token(pair: &Ed25519KeyPair) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    let end = (now + Duration::from_hours(24)).as_secs();
    let header = json!({"alg": "EdDSA", "kid": "d"});
    let claims = json!({
        "iss": "https://login.example", "aud": "hookward", "sub": "fuzz", "exp": end,
        "organizations": ["clinic"], "scope": "events:read",
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fuzz_target!(|input: &[u8]| {
    let server = &*SERVER;
    let values: Vec<Vec<u8>> = split(input, b"%%").into_iter().map(written).collect();
    let length: usize = values.iter().map(|value| FIELD_BYTES + value.len()).sum();
    if BYTES_MAX < length {
        return;
    }
    for value in &values {
        reads(value);
    }
    let headers = values.iter().map(|value| AsciiMetadataValue::try_from(value.as_slice()));
    let Ok(headers) = headers.collect::<Result<Vec<_>, _>>() else { return };
    let good = values.len() == 1 && is_good(&values[0]);
    let (answer, known) = RUNTIME.block_on(async {
        let key = format!("Bearer {}", server.key);
        let key = [AsciiMetadataValue::try_from(&key).expect("it is ASCII")];
        (server.call(&headers).await, server.call(&key).await)
    });
    let away = |answer: &Result<(), Status>| {
        answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
    };
    if away(&answer) || away(&known) {
        // This process slept: nobody is known by an API key until the database has answered.
        return;
    }
    known.expect("who is known is served, whatever others do");
    match answer {
        Ok(()) => assert!(good, "{values:?}"),
        Err(status) => {
            assert!(!good, "{status:?}");
            let reason = status.get_details_error_info().expect("every error has one").reason;
            let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
            match status.code() {
                Code::Unauthenticated => assert_eq!((&*reason, wait), ("UNAUTHENTICATED", None)),
                Code::ResourceExhausted => {
                    assert_eq!(reason, "TOO_MANY_FAILURES");
                    assert!(wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{wait:?}");
                }
                _ => panic!("{status:?}"),
            }
        }
    }
});

/// What the fuzzer means.
fn written(text: &[u8]) -> Vec<u8> {
    let value = split(text, b"%k").join(SERVER.key.as_bytes());
    let value = split(&value, b"%r").join(SERVER.revoked.as_bytes());
    split(&value, b"%t").join(SERVER.token.as_bytes())
}

/// The one way to write it (RFC 6750, 2.1; the scheme in any case: RFC 9110, 11.1).
fn is_good(value: &[u8]) -> bool {
    let Some((scheme, credential)) = value.split_at_checked(b"Bearer ".len()) else {
        return false;
    };
    let good = [&SERVER.key, &SERVER.token].map(String::as_bytes);
    scheme.eq_ignore_ascii_case(b"Bearer ") && good.contains(&credential)
}

/// The key in it is read as it was written, or not at all.
fn reads(value: &[u8]) {
    let Ok(text) = std::str::from_utf8(value) else { return };
    let Some((id, _)) = read_token(text) else { return };
    let codec = IdCodec::new([7; 16]);
    if let Some(key) = codec.parse_api_key(id) {
        assert_eq!(codec.api_key(key), id);
    }
    let (_, secret) = text.rsplit_once('_').expect("it has a secret");
    assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret}");
}
