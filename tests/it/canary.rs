//! Promise: where the canary is on, the service notices by itself whether events are delivered,
//! whoever delivers them; nobody else can use what is reserved for it, and nothing of it piles
//! up.

use std::process::{Command, Output};
use std::time::Duration;

use hookward::domain::canary::{ORGANIZATION, URL};
use hookward::grpc::pb;
use pb::delivery::State;
use sea_orm::{ConnectionTrait, Database, TransactionTrait};
use tonic::Code;

use crate::harness::age::pass;
use crate::harness::client::{draft, event};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::{eventually, meanwhile};
use crate::harness::keys::{NEW, OLD, VARIABLE, both};
use crate::harness::proxy::Proxy;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::rpc::{self, Protocol};
use crate::harness::service::{Service, Settings};

on_both_engines!(
    a_probe_is_delivered_and_nobody_notices,
    nobody_else_can_name_what_is_reserved,
    what_was_delivered_is_soon_forgotten,
    where_it_is_off_nothing_is_sent,
    its_secret_outlives_restarts_and_changes_of_keys,
    what_was_changed_in_the_database_is_mended,
);

/// The series of all that a process counts of its probes.
const RESULTS: [&str; 4] = ["delivered", "late", "refused", "failed"];
const LAST_SUCCESS: &str = "hookward_canary_last_success_timestamp_seconds";

/// With a probe each second, none of which may take longer than five.
fn probing(engine: &Engine) -> Settings {
    Settings::new(engine.clone()).flag("--canary-interval", "1s")
}

/// A count, or a time in seconds.
fn whole(value: f64) -> i64 {
    format!("{value:.0}").parse().expect("a whole number")
}

async fn count(service: &Service, result: &str) -> i64 {
    let series = format!("hookward_canary_probes_total{{result=\"{result}\"}}");
    whole(service.metric(&series).await.expect("it is on every page"))
}

/// Waits until this process has counted so many more; how many there are then.
async fn more(service: &Service, result: &str, more: i64) -> i64 {
    let wanted = count(service, result).await + more;
    eventually(&format!("{more} probes that are {result}"), async || {
        let found = count(service, result).await;
        (wanted <= found).then_some(found)
    })
    .await
}

async fn last_success(service: &Service) -> i64 {
    whole(service.metric(LAST_SUCCESS).await.expect("it probes"))
}

/// A number that the database tells.
async fn number(engine: &Engine, sql: &str) -> i64 {
    let database = Database::connect(engine.url()).await.expect("it is there");
    let statement = sea_orm::Statement::from_string(database.get_database_backend(), sql);
    let row = database.query_one_raw(statement).await.expect("it is SQL").expect("one row");
    let number = row.try_get_by_index(0).expect("a number");
    database.close().await.expect("it was open");
    number
}

async fn events(engine: &Engine) -> i64 {
    let sql = format!("SELECT count(*) FROM event WHERE organization_id = '{ORGANIZATION}'");
    number(engine, &sql).await
}

/// A command on the database of `engine`.
fn hookward(engine: &Engine, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookward"));
    let command = command.args(words).args(["--database-url", engine.url()]);
    command.output().expect("the binary was built with the tests")
}

async fn stop(mut service: Service) {
    service.terminate();
    assert!(service.ends().await.success());
}

async fn a_probe_is_delivered_and_nobody_notices(engine: Engine) {
    let service = probing(&engine).start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "standard", "*").await;
    clinic.subscribe(&receiver, "standard", "hookward.*").await;

    more(&service, "delivered", 1).await;
    let changes = service.metric("hookward_routing_changes_total").await;
    let first = last_success(&service).await;
    let delivered = more(&service, "delivered", 2).await;

    let timed = service.metric("hookward_canary_seconds_count").await.expect("some were");
    assert!(delivered <= whole(timed));
    assert!(service.metric("hookward_canary_seconds_sum").await.expect("timed") < 30.0);
    assert!(first < last_success(&service).await, "it goes on");
    for result in ["late", "refused", "failed"] {
        assert_eq!(count(&service, result).await, 0, "{result}");
    }
    assert_eq!(service.metric("hookward_routing_changes_total").await, changes, "made once");
    // What is counted of customers' events is theirs.
    for series in [
        "hookward_events_accepted_total",
        "hookward_deliveries_ended_total{state=\"succeeded\"}",
        "hookward_subscriptions_failing",
    ] {
        assert_eq!(service.metric(series).await, Some(0.0), "{series}");
    }
    for series in
        ["hookward_delivered_delay_seconds_count", "hookward_first_attempt_delay_seconds_count"]
    {
        assert_eq!(service.metric(series).await, None, "{series}");
    }
    assert_eq!(receiver.count(), 0, "nobody else gets it");
    let id = clinic.publish("invoice.paid", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    eventually("the customer's event", async || {
        let ended = service.metric("hookward_deliveries_ended_total{state=\"succeeded\"}").await;
        (ended == Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(service.metric("hookward_events_accepted_total").await, Some(1.0));
}

async fn nobody_else_can_name_what_is_reserved(engine: Engine) {
    let service = probing(&engine).start().await;
    more(&service, "delivered", 1).await;
    let protocol = Protocol::served();
    let mut methods = 0;
    for method in protocol.methods() {
        let fields = protocol.request(method).into_iter();
        for field in fields.filter(|field| field.name == "organization_id" && field.path.len() == 1)
        {
            let message = rpc::set(&[], &field.path, ORGANIZATION);
            let refused = rpc::call(&service.channel(), method, message, None).await;
            let refused = refused.expect_err("it is nobody's");
            assert_eq!(refused.code(), Code::InvalidArgument, "{method}: {refused:?}");
            assert_eq!(violation(&refused).1, "INVALID_ID", "{method}");
            methods += 1;
        }
    }
    assert!(20 < methods, "most methods are about an organization");

    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let secure = URL.replace("http:", "https:");
    for (url, reason) in [(URL, "URL_SCHEME"), (&secure, "URL_BLOCKED_ADDRESS")] {
        let draft = pb::Subscription { url: url.to_owned(), ..draft(&receiver, "standard", "*") };
        let refused = clinic.try_create(draft, "").await.expect_err("it is reserved");
        assert_eq!(violation(&refused).1, reason, "{url}");
    }
    let refused = clinic.try_publish(vec![event("hookward.canary", "{}")]).await;
    assert_eq!(refused.expect_err("it is reserved").code(), Code::InvalidArgument);

    for words in [
        &["retention", "set", "--organization", ORGANIZATION, "--payload", "1h"][..],
        &["retention", "clear", "--organization", ORGANIZATION],
        &["organization", "delete", ORGANIZATION, "--confirm", ORGANIZATION],
        &[
            "api-key",
            "create",
            "--label",
            "x",
            "--organization",
            ORGANIZATION,
            "--scope",
            "events:publish",
        ],
        &["audit", "list", "--organization", ORGANIZATION],
        &["keys", "shred", "--organization", ORGANIZATION],
    ] {
        let refused = hookward(&engine, words);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && told.contains("1 to 64 characters"),
            "{words:?}: {told}"
        );
    }
    let listed = hookward(&engine, &["retention", "list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "*\t7d\t90d\n");
    // Its one change is the deployment's own, and the chain holds.
    assert!(hookward(&engine, &["audit", "verify"]).status.success());
}

async fn what_was_delivered_is_soon_forgotten(engine: Engine) {
    let service = probing(&engine).start().await;
    more(&service, "delivered", 3).await;
    let before = events(&engine).await;
    assert!(3 <= before, "{before} events are there for a while");
    // The next one is not there yet.
    more(&service, "delivered", 1).await;
    stop(service).await;

    pass(&engine, Duration::from_mins(5)).await;
    let _service = Settings::new(engine.clone()).start().await;

    eventually("the purge of all of it", async || (events(&engine).await == 0).then_some(())).await;
    for table in ["event_key", "attempt", "due", "undelivered"] {
        let rows = number(&engine, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(rows, 0, "rows of {table}");
    }
}

async fn where_it_is_off_nothing_is_sent(engine: Engine) {
    let service = probing(&engine).start().await;
    more(&service, "delivered", 1).await;
    stop(service).await;
    let before = events(&engine).await;

    let service = Settings::new(engine.clone()).start().await;
    // In which there were three.
    meanwhile(Duration::from_secs(3)).await;

    assert_eq!(events(&engine).await, before);
    for result in RESULTS {
        assert_eq!(count(&service, result).await, 0, "{result}");
    }
    assert_eq!(service.metric(LAST_SUCCESS).await, None, "there is none to be missed");
}

async fn its_secret_outlives_restarts_and_changes_of_keys(engine: Engine) {
    let secrets = "SELECT count(*) FROM signing_secret WHERE subscription_key = 1";
    let service = probing(&engine).env(VARIABLE, OLD).start().await;
    more(&service, "delivered", 1).await;
    stop(service).await;

    // Before a change of keys would seal it.
    let plain = "SELECT count(*) FROM signing_secret WHERE CAST(secret AS TEXT) LIKE 'whsec%'
        OR CAST(secret AS TEXT) LIKE '%7768736563%'";
    assert_eq!(number(&engine, plain).await, 0, "it is sealed");

    let keys = both("new");
    let service = probing(&engine).env(VARIABLE, &keys).start().await;
    more(&service, "delivered", 1).await;
    stop(service).await;
    let rotated = hookward(&engine, &["keys", "rotate", "--encryption-keys", &keys]);
    assert!(rotated.status.success(), "{rotated:?}");

    let service = probing(&engine).env(VARIABLE, NEW).start().await;
    more(&service, "delivered", 1).await;
    assert_eq!(count(&service, "failed").await, 0);
    assert_eq!(number(&engine, secrets).await, 1, "the first one signs");
}

async fn what_was_changed_in_the_database_is_mended(engine: Engine) {
    let service = probing(&engine).start().await;
    more(&service, "delivered", 1).await;

    let database = Database::connect(engine.url()).await.expect("it is there");
    // Together, as every change is seen.
    let transaction = database.begin().await.expect("it is there");
    for change in [
        "UPDATE routing_clock SET version = version + 1",
        "UPDATE subscription SET state = 4, url = 'https://elsewhere.example/',
             routing_version = (SELECT version FROM routing_clock) WHERE key = 1",
    ] {
        transaction.execute_unprepared(change).await.expect("the tables are there");
    }
    transaction.commit().await.expect("nothing stands against it");
    database.close().await.expect("it was open");

    let mended = format!("SELECT count(*) FROM subscription WHERE state = 1 AND url = '{URL}'");
    eventually("its subscription", async || (number(&engine, &mended).await == 1).then_some(()))
        .await;
    more(&service, "delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_subscription() {
    let Some(engine) = Engine::postgres() else { return };
    let first = probing(&engine).start().await;
    let (second, third) = (first.replica().await, first.replica().await);
    for service in [&first, &second, &third] {
        more(service, "delivered", 1).await;
        assert_eq!(count(service, "failed").await, 0);
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM subscription", 1),
        ("SELECT count(*) FROM signing_secret", 1),
        ("SELECT count(*) FROM audit_entry WHERE method = 'keep_canary'", 1),
    ] {
        assert_eq!(number(&engine, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_delivers_and_without_it_probes_are_late() {
    let Some(engine) = Engine::postgres() else { return };
    let api = probing(&engine).flag("--role", "api").start().await;
    let sends = probing(&engine).flag("--role", "dispatch");
    let mut dispatch = sends.start().await;
    more(&api, "delivered", 2).await;
    assert_eq!(count(&dispatch, "delivered").await, 0, "one that takes no calls makes none");
    assert_eq!(dispatch.metric(LAST_SUCCESS).await, None);

    dispatch.terminate();
    assert!(dispatch.ends().await.success());
    // One may have been delivered and not be counted yet.
    more(&api, "late", 1).await;
    let last = last_success(&api).await;
    let delivered = count(&api, "delivered").await;
    more(&api, "late", 1).await;
    assert_eq!(last_success(&api).await, last, "it stands still");
    assert_eq!(count(&api, "delivered").await, delivered);
    // One is open while it is waited for, and the others were taken back.
    let open = number(&engine, "SELECT count(*) FROM due").await;
    assert!(open <= 1, "{open} are open");

    dispatch.restart().await;
    more(&api, "delivered", 2).await;
    assert!(last < last_success(&api).await);
    let written = api.written();
    assert!(written.contains("a probe of the canary was not delivered"), "{written}");
    assert!(written.contains("probes of the canary are delivered again"), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_no_receiver_fails_them() {
    let Some(engine) = Engine::postgres() else { return };
    let api = probing(&engine).flag("--role", "api").start().await;
    let dispatch = Settings::new(engine.clone()).flag("--role", "dispatch").start().await;
    // As many as would open the circuit of anybody else.
    more(&api, "failed", 12).await;
    assert_eq!(count(&api, "delivered").await, 0);
    // Not a receiver of anybody's that an operator would look for.
    for series in ["hookward_circuits_open", "hookward_subscriptions_failing"] {
        assert_eq!(dispatch.metric(series).await, Some(0.0), "{series}");
    }
    let dead = "hookward_deliveries_ended_total{state=\"dead\"}";
    assert_eq!(dispatch.metric(dead).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_probes_are_refused() {
    let Some(engine) = Engine::postgres() else { return };
    let proxy = Proxy::to(engine.port()).await;
    let service = probing(&engine.at_port(proxy.port())).start().await;
    more(&service, "delivered", 1).await;

    proxy.cut();
    more(&service, "refused", 1).await;
    let last = last_success(&service).await;
    more(&service, "refused", 1).await;
    assert_eq!(last_success(&service).await, last);

    proxy.heal();
    more(&service, "delivered", 2).await;
    assert!(last < last_success(&service).await);
}
