//! PostgreSQL's own wall between organizations: statements that forget to name theirs get
//! nothing foreign, on every table there is.

use std::collections::BTreeSet;
use std::time::Duration;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbErr};

use super::world::{Draft, World, acme, attempt, entry_of, other, request};
use super::{keyring, on_postgres_with, postgres};
use crate::domain::attempt::AttemptResult;
use crate::domain::audit::{Chain, NewAuditEntry};
use crate::domain::delivery::DeadReason;
use crate::domain::id::{DeliveryKey, OrganizationId};
use crate::domain::ownership::OwnershipRule;
use crate::domain::retention::Kept;
use crate::keyring::Keyring;
use crate::store::link::{Purpose, Transaction};
use crate::store::{Next, RowSecurity, Settings, Store, Target};

/// Tables with what is an organization's, and how its rows are told.
const APART: [(&str, &str); 14] = [
    ("attempt", OF_SUBSCRIPTION),
    ("audit_entry", "organization_id"),
    ("audit_head", "organization_id"),
    ("data_key", "organization_id"),
    ("due", OF_SUBSCRIPTION),
    EVENT,
    ("event_key", "organization_id"),
    ("ownership", OF_SUBSCRIPTION),
    ("request_log", "organization_id"),
    ("retention_visit", "organization_id"),
    ("signing_secret", OF_SUBSCRIPTION),
    ("subscription", "organization_id"),
    ("subscription_tls", OF_SUBSCRIPTION),
    ("undelivered", "organization_id"),
];
/// A table that has a row for everybody, without a name, beside those of organizations.
const RETENTION: (&str, &str) = ("retention", "organization_id");
const EVENT: (&str, &str) = ("event", "organization_id");
const OF_SUBSCRIPTION: &str =
    "(SELECT s.organization_id FROM subscription s WHERE s.key = subscription_key)";
/// Tables that hold nobody's data, of which callers' work needs something.
const SHARED: [&str; 2] = ["replica", "routing_clock"];
/// Tables that callers' work has no business with.
const ENGINES: [&str; 7] = [
    "api_key",
    "credential_clock",
    "failure_streak",
    "operational_event",
    "seaql_migrations",
    "sending_clock",
    "setting",
];

/// Something in every table, of both organizations.
async fn filled(store: Store) -> World {
    let world = World::new(store).await;
    for organization in [acme(), other()] {
        let mut new = world.new_subscription(&organization);
        new.spec.tls.authorities = "authorities".to_owned();
        let subscription = new.key;
        let (request, entry) = (Some(request("1", 7)), entry_of(&organization));
        let made = world.store.create_subscription(new, request, &entry, |_| vec![1]).await;
        made.expect("creates");
        let asked = OwnershipRule::Challenge.fingerprint("https://example.com/hook");
        let second = Duration::from_secs(1);
        let claim = world.store.claim_ownership(world.fence, subscription, asked, second).await;
        claim.expect("claims").expect("nobody has asked");
        let day = Kept { payload: Some(Duration::from_hours(24)), metadata: None };
        world.store.set_retention(Some(&organization), day, &entry).await.expect("sets");
        let of = |draft: Draft| Draft { organization: organization.clone(), ..draft };
        let chosen = Draft { id: Some("chosen"), ..Draft::to(&[subscription]) };
        let event = world.publish(&of(chosen)).await;
        let delivery = DeliveryKey { event, subscription };
        let failed = attempt(1, AttemptResult::HttpStatus);
        world.settle(delivery, failed, Next::RetryIn(Duration::ZERO)).await;
        world.publish(&of(Draft::parked(&[subscription]))).await;
        world
            .settle_due(subscription, AttemptResult::HttpStatus, Next::Dead(DeadReason::Gone))
            .await;
        let purged = world.publish(&of(Draft::parked(&[subscription]))).await;
        let id = world.store.ids().event(purged);
        world.store.purge_event(&organization, &id, &entry).await.expect("purges");
        world.publish(&of(Draft::parked(&[subscription]))).await;
    }
    world
}

async fn bound(world: &World, organization: &OrganizationId) -> Transaction {
    let link = world.store.write();
    link.begin(Purpose::Writing, Some(organization)).await.expect("begins")
}

/// Whose rows a statement over a whole table sees.
async fn owners(
    connection: &impl ConnectionTrait,
    world: &World,
    (table, owner): (&str, &str),
) -> Vec<String> {
    let sql = format!("SELECT DISTINCT {owner} AS owner FROM {table} ORDER BY owner");
    let rows = connection.query_all_raw(world.store.statement(&sql, vec![])).await;
    let rows = rows.unwrap_or_else(|error| panic!("{table}: {error}"));
    rows.iter().map(|row| row.try_get("", "owner").expect("a name")).collect()
}

#[tokio::test]
async fn statements_without_an_organization_see_its_rows_only() {
    on_postgres_with(keyring(), "apart", async |store: Store| {
        assert_eq!(store.row_security(), &RowSecurity::On);
        let world = filled(store).await;
        for table in APART {
            let everybody = owners(world.store.write(), &world, table).await;
            assert_eq!(everybody, ["acme", "other"], "the engine serves both: {}", table.0);
            for organization in [acme(), other()] {
                let own = owners(&bound(&world, &organization).await, &world, table).await;
                assert_eq!(own, [organization.as_str()], "{}", table.0);
            }
            for nobody in ["", "stranger", "' OR true --"] {
                let nobody = OrganizationId::stored(nobody);
                let none = owners(&bound(&world, &nobody).await, &world, table).await;
                assert_eq!(none, [""; 0], "{}", table.0);
            }
        }
        assert_eq!(owners(world.store.write(), &world, RETENTION).await, ["", "acme", "other"]);
        let own = owners(&bound(&world, &acme()).await, &world, RETENTION).await;
        assert_eq!(own, ["", "acme"]);
        let of_deployment = NewAuditEntry::of_service(Chain::Deployment, "test");
        world.store.audit_alone(&of_deployment).await.expect("writes");
        for (name, seen) in [("", vec![]), ("acme", vec!["acme"])] {
            let bound = bound(&world, &OrganizationId::stored(name)).await;
            let found = owners(&bound, &world, ("audit_entry", "organization_id")).await;
            assert_eq!(found, seen, "the deployment's chain is no organization's");
        }
    })
    .await;
}

#[tokio::test]
async fn look_ups_and_snapshots_are_bound_as_changes_are() {
    on_postgres_with(keyring(), "apart_reads", async |store: Store| {
        let world = filled(store).await;
        let snapshot = world.store.snapshot(&acme()).await.expect("begins");
        assert_eq!(owners(&snapshot, &world, EVENT).await, ["acme"]);
        let reading = world.store.reading(&acme()).await.expect("begins");
        assert_eq!(owners(&reading, &world, EVENT).await, ["acme"]);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_for_another_organization() {
    on_postgres_with(keyring(), "apart_writes", async |store: Store| {
        let world = filled(store).await;
        let refused = [
            "INSERT INTO undelivered VALUES (1, 1, 'other', 4, 1, 0)",
            "INSERT INTO request_log VALUES ('other', '2', '', '', 0, 0)",
            "INSERT INTO retention_visit VALUES (1, 1, 'other', 0)",
            "INSERT INTO data_key VALUES (1, 'other', 'a', '', true, 0, 0)",
            "INSERT INTO audit_head VALUES ('other2', 1, '', 0, 0, 0, '', 0)",
            "INSERT INTO due SELECT key, 1, 0, 0, 0, 0, 0, false FROM subscription_of_other",
            "UPDATE subscription SET organization_id = 'other'",
            // Nor what callers' work never does.
            "UPDATE event SET targets = ''",
            "UPDATE attempt SET error = ''",
            "UPDATE retention SET payload_seconds = 1",
            "UPDATE data_key SET wrapped = ''",
            "UPDATE audit_entry SET principal = ''",
            "DELETE FROM audit_entry",
            "DELETE FROM event",
            "DELETE FROM subscription",
            "UPDATE replica SET low_key = 0",
            "TRUNCATE due",
        ];
        let foreign = "SELECT key FROM subscription WHERE organization_id = 'other'";
        let row = world.store.write().query_one_raw(world.store.statement(foreign, vec![])).await;
        let foreign: i64 = row.expect("reads").expect("is there").try_get("", "key").expect("key");
        for sql in refused {
            let of_other = format!("(SELECT {foreign}::int8 AS key) of_other");
            let sql = sql.replace("subscription_of_other", &of_other);
            let error = execute(&world, &sql).await.expect_err(&sql);
            assert_eq!(code(&error), "42501", "{sql}: {error}");
        }
        // What it does not see it does not change either.
        for sql in [
            "UPDATE subscription SET name = 'taken' WHERE organization_id = 'other'",
            "UPDATE signing_secret SET expire_time = 1 WHERE subscription_key = {foreign}",
            "UPDATE event SET payload = NULL WHERE organization_id = 'other'",
            "UPDATE attempt SET response_body = '' WHERE subscription_key = {foreign}",
            "UPDATE audit_head SET sequence = 0 WHERE organization_id = 'other'",
            "UPDATE ownership SET state = 2 WHERE subscription_key = {foreign}",
            "DELETE FROM subscription_tls WHERE subscription_key = {foreign}",
            "DELETE FROM due WHERE subscription_key = {foreign}",
            "DELETE FROM undelivered WHERE organization_id = 'other'",
            "DELETE FROM request_log WHERE organization_id = 'other'",
        ] {
            let sql = sql.replace("{foreign}", &foreign.to_string());
            assert_eq!(execute(&world, &sql).await.expect(&sql), 0, "{sql}");
        }
    })
    .await;
}

/// In a transaction of its own, as acme; how many rows it changed.
async fn execute(world: &World, sql: &str) -> Result<u64, DbErr> {
    let transaction = bound(world, &acme()).await;
    let changed = transaction.execute_raw(world.store.statement(sql, vec![])).await?;
    Ok(changed.rows_affected())
}

fn code(error: &DbErr) -> String {
    let (DbErr::Exec(sea_orm::RuntimeErr::SqlxError(inner))
    | DbErr::Query(sea_orm::RuntimeErr::SqlxError(inner))) = error
    else {
        return String::new();
    };
    let database = inner.as_database_error();
    database.and_then(|error| error.code().map(Into::into)).unwrap_or_default()
}

#[tokio::test]
async fn every_table_is_apart_shared_or_the_engines() {
    on_postgres_with(keyring(), "apart_tables", async |store: Store| {
        let world = filled(store).await;
        let sql = "SELECT relname::text AS name FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
              AND relkind IN ('r', 'p') AND NOT relispartition";
        let rows = world.store.write().query_all_raw(world.store.statement(sql, vec![])).await;
        let rows = rows.expect("reads");
        let found: BTreeSet<String> =
            rows.iter().map(|row| row.try_get("", "name").expect("a name")).collect();
        let of_organizations = APART.into_iter().chain([RETENTION]).map(|(name, _)| name);
        let known = of_organizations.chain(SHARED).chain(ENGINES);
        let known: BTreeSet<String> = known.map(str::to_owned).collect();
        assert_eq!(found, known, "say of each table whose it is, here and in TABLES");
        for table in ENGINES.into_iter().chain(["event_default"]) {
            let error = execute(&world, &format!("SELECT 1 FROM {table}")).await;
            assert_eq!(code(&error.expect_err(table)), "42501", "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn callers_connections_run_nothing_that_is_bound_to_nobody() {
    on_postgres_with(keyring(), "apart_callers", async |store: Store| {
        let world = filled(store).await;
        let callers = world.store.for_callers();
        let statement = || world.store.statement("SELECT 1 FROM event", vec![]);
        assert!(callers.read().query_all_raw(statement()).await.is_err());
        assert!(callers.write().execute_raw(statement()).await.is_err());
        assert!(callers.begin().await.is_err());
        let reading = callers.reading(&acme()).await.expect("begins");
        assert_eq!(reading.query_all_raw(statement()).await.expect("reads").len(), 4);
        let upkeep = world.store.for_upkeep();
        assert_eq!(upkeep.read().query_all_raw(statement()).await.expect("reads").len(), 8);
        upkeep.begin().await.expect("begins");
    })
    .await;
}

/// Connects as another user of the same database.
fn as_user(url: &str, user: &str) -> String {
    url.replacen("postgres@", &format!("{user}@"), 1)
}

async fn connect(url: &str) -> DatabaseConnection {
    Database::connect(url).await.expect("connects")
}

/// As most operators' databases are: their owner may make no roles.
#[tokio::test]
async fn an_owner_that_may_make_no_roles_is_served_and_told_what_to_do() {
    let Some(url) = postgres::database("apart_owner") else { return };
    let name = url.rsplit('/').next().expect("a database").to_owned();
    let owner = format!("{name}_owner");
    let superuser = connect(&url).await;
    let sql = format!("CREATE ROLE {owner} LOGIN; ALTER SCHEMA public OWNER TO {owner}");
    superuser.execute_unprepared(&sql).await.expect("makes a role");
    let target = Target::Postgres(as_user(&url, &owner));
    let settings = Settings { target, connections_max: 4, keyring: keyring() };

    Store::migrate(&settings).await.expect("migrates all the same");
    let store = Store::open(&settings).await.expect("opens");
    let RowSecurity::Off(remedy) = store.row_security().clone() else { panic!("who made it?") };
    let world = World::new(store).await;
    world.subscribe(&acme()).await;
    let listed = world.store.subscriptions(&acme(), &<_>::default(), None, 10).await;
    assert_eq!(listed.expect("lists").len(), 1);
    world.store.close().await;

    let (sql, then) = remedy.rsplit_once(';').expect("two statements, and what then");
    assert_eq!(then, " then migrate, and restart");
    superuser.execute_unprepared(sql).await.expect("does as it says");
    Store::migrate(&settings).await.expect("finds the role");
    let store = Store::open(&settings).await.expect("opens");
    assert_eq!(store.row_security(), &RowSecurity::On);
    let looked = Store::look_at_row_security(&settings).await.expect("looks");
    assert_eq!(looked, RowSecurity::On);
    let world = filled(store).await;
    assert_eq!(owners(&bound(&world, &other()).await, &world, EVENT).await, ["other"]);
    assert_eq!(owners(world.store.write(), &world, EVENT).await, ["acme", "other"]);
    world.store.close().await;
    superuser.close().await.expect("closes");
}

/// The service need not own the tables; then it must not have the rights of the role whose
/// policies would hide everything from it.
#[tokio::test]
async fn a_service_that_owns_nothing_sees_everything_or_does_not_start() {
    let Some(url) = postgres::database("apart_service") else { return };
    let name = url.rsplit('/').next().expect("a database").to_owned();
    let service = format!("{name}_service");
    let target = Target::Postgres(url.clone());
    let settings = Settings { target, connections_max: 4, keyring: Keyring::default() };
    Store::migrate(&settings).await.expect("migrates");
    let superuser = connect(&url).await;
    let sql = format!(
        "CREATE ROLE {service} LOGIN NOINHERIT;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {service};
        GRANT postgres_api TO {service}"
    );
    superuser.execute_unprepared(&sql).await.expect("makes a role");
    let target = Target::Postgres(as_user(&url, &service));
    let settings = Settings { target, connections_max: 4, keyring: keyring() };

    let store = Store::open(&settings).await.expect("opens");
    assert_eq!(store.row_security(), &RowSecurity::On);
    let world = filled(store).await;
    for table in APART {
        assert_eq!(owners(world.store.write(), &world, table).await, ["acme", "other"]);
        assert_eq!(owners(&bound(&world, &acme()).await, &world, table).await, ["acme"]);
    }
    world.store.close().await;

    let inherit = format!(
        "REVOKE postgres_api FROM {service}; ALTER ROLE {service} INHERIT;
        GRANT postgres_api TO {service}"
    );
    superuser.execute_unprepared(&inherit).await.expect("alters");
    let refused = Store::open(&settings).await.expect_err("it would see nothing");
    assert!(refused.to_string().contains("would hide every row"), "{refused}");
    superuser.close().await.expect("closes");
}

#[tokio::test]
async fn policies_and_rights_of_another_release_are_made_anew() {
    let Some(url) = postgres::database("apart_anew") else { return };
    let target = Target::Postgres(url.clone());
    let settings = Settings { target, connections_max: 4, keyring: keyring() };
    Store::migrate(&settings).await.expect("migrates");
    let superuser = connect(&url).await;
    let sql = "
        ALTER POLICY hookward_organization ON event USING (true);
        COMMENT ON POLICY hookward_organization ON event IS 'of another release';
        REVOKE ALL ON event FROM postgres_api";
    superuser.execute_unprepared(sql).await.expect("alters");
    superuser.close().await.expect("closes");

    Store::migrate(&settings).await.expect("migrates again");

    let store = Store::open(&settings).await.expect("opens");
    let world = filled(store).await;
    assert_eq!(owners(&bound(&world, &acme()).await, &world, EVENT).await, ["acme"]);
    world.store.close().await;
}
