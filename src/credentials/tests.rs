//! Who is known by an API key, and from when on nobody is.

use tempfile::TempDir;

use super::*;
use crate::domain::api_key::ApiKeySecret;
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::principal::Organizations;
use crate::domain::scope::Scopes;
use crate::keyring::Keyring;
use crate::store::{NewApiKey, Settings, Target};

/// Before this a key with a life of its own is good.
const LIFE: Duration = Duration::from_hours(1);

struct World {
    _folder: TempDir,
    store: Store,
    credentials: Credentials,
}

impl World {
    async fn new() -> World {
        let folder = TempDir::new().expect("there is room");
        let target = Target::Sqlite(folder.path().join("hookward.db"));
        let settings = Settings { target, connections_max: 4, keyring: Keyring::default() };
        let store = Store::open(&settings).await.expect("a fresh file opens");
        let credentials = Credentials::load(store.clone()).await.expect("there are none");
        World { _folder: folder, store, credentials }
    }

    /// Makes a key and gives what its caller shows. It is known with the next refresh.
    async fn key(&self, number: i64, life: Option<Duration>) -> String {
        let (id, secret) = (ApiKeyId(number), ApiKeySecret::generate());
        let new = NewApiKey {
            id,
            label: format!("key {number}"),
            organizations: Organizations::All,
            scopes: Scopes::all(),
            secret_hash: secret.hash(),
            life,
        };
        self.store.create_api_key(new, &entry()).await.expect("it is new");
        secret.token(&self.store.ids().api_key(id))
    }

    fn caller(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, Refused> {
        self.credentials.caller(token, now)
    }

    fn used(&self, number: i64) -> i64 {
        let keys = self.credentials.inner.keys.load();
        keys.known[&ApiKeyId(number)].used.load(Ordering::Relaxed)
    }
}

fn entry() -> NewAuditEntry {
    NewAuditEntry::of_service(Chain::Deployment, "test")
}

#[tokio::test]
async fn whoever_shows_a_good_key_is_known_and_nobody_else() {
    let world = World::new().await;
    assert!(world.credentials.is_empty());
    let (good, gone) = (world.key(1, None).await, world.key(2, None).await);
    world.store.revoke_api_key(ApiKeyId(2), &entry()).await.expect("it is there");
    let now = Timestamp(1_750_000_000_000_000);
    assert_eq!(world.caller(&good, now), Err(Refused::Unknown), "not before it was read");
    world.credentials.refresh(false).await.expect("reads");
    assert!(!world.credentials.is_empty());

    let known = world.caller(&good, now).expect("it is good");
    assert_eq!(known.name, world.store.ids().api_key(ApiKeyId(1)));
    assert_eq!(world.caller(&gone, now), Err(Refused::Revoked));
    let (id, _) = good.rsplit_once('_').expect("id and secret");
    let other = ApiKeySecret::generate().token(id);
    assert_eq!(world.caller(&other, now), Err(Refused::Secret));
    let stranger = ApiKeySecret::generate().token(&world.store.ids().api_key(ApiKeyId(3)));
    assert_eq!(world.caller(&stranger, now), Err(Refused::Unknown));
    for wrong in ["", "whk_", &good[1..], "whk_0000000000000_x"] {
        assert_eq!(world.caller(wrong, now), Err(Refused::Form), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_key_with_a_life_of_its_own_ends_with_it() {
    let world = World::new().await;
    let token = world.key(1, Some(LIFE)).await;
    world.credentials.refresh(false).await.expect("reads");
    let keys = world.store.api_keys().await.expect("reads");
    let end = keys[0].expire_time.expect("it has one");
    assert!(world.caller(&token, Timestamp(end.0 - 1)).is_ok());
    assert_eq!(world.caller(&token, end), Err(Refused::Expired));
}

#[tokio::test]
async fn the_first_use_since_the_last_note_is_what_is_noted() {
    let world = World::new().await;
    let token = world.key(1, None).await;
    world.credentials.refresh(false).await.expect("reads");
    let minute = 60_000_000;
    let first = Timestamp(1_750_000_000_000_000);
    for later in 0..3 {
        world.caller(&token, Timestamp(first.0 + later * minute)).expect("it is good");
        assert_eq!(world.used(1), first.0);
    }
    world.credentials.note_use().await;
    assert_eq!(world.used(1), 0);
    let noted = world.store.api_keys().await.expect("reads");
    assert_eq!(noted[0].last_use_time, Some(first));
    world.caller(&token, Timestamp(first.0 + 9 * minute)).expect("it is good");
    assert_eq!(world.used(1), first.0 + 9 * minute);
}

#[tokio::test]
async fn nobody_is_known_by_what_was_read_too_long_ago() {
    let world = World::new().await;
    let token = world.key(1, None).await;
    world.credentials.refresh(false).await.expect("reads");
    let now = Timestamp(1_750_000_000_000_000);
    assert!(world.caller(&token, now).is_ok());
    let began = Instant::now().checked_sub(2 * FRESH).expect("the machine runs for longer");
    let inner = Inner {
        store: world.store.clone(),
        keys: ArcSwap::new(world.credentials.inner.keys.load_full()),
        began,
        looked: AtomicU64::new(0),
    };
    let old = Credentials { inner: Arc::new(inner) };
    assert_eq!(old.caller(&token, now), Err(Refused::Stale));
    assert_eq!(old.caller("not a key", now), Err(Refused::Form), "that much is known");
    old.refresh(false).await.expect("reads");
    assert!(old.caller(&token, now).is_ok());
}
