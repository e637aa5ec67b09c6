//! Promise: settings that are taken up while the service runs count for what begins
//! afterwards; those that cannot be used change nothing and are told; and SIGHUP ends nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hookward::grpc::pb;
use pb::delivery::State;
use pb::delivery_attempt::Outcome;

use crate::harness::admin;
use crate::harness::client::{Organization, draft, waits};
use crate::harness::engine::{Engine, on_both_engines};
use crate::harness::eventually::eventually;
use crate::harness::keys::{self, NEW, OLD, VARIABLE};
use crate::harness::process::Process;
use crate::harness::proxy::Proxy;
use crate::harness::receiver::Receiver;
use crate::harness::refusal::violation;
use crate::harness::service::{Service, Settings, addresses};
use crate::harness::wire::Received;

on_both_engines!(
    keys_that_are_added_encrypt_what_is_new,
    a_profile_that_comes_and_goes_is_followed_without_a_signal,
);

const TAKEN_UP: &str = "hookward_configuration_reloads_total{result=\"ok\"}";
const REFUSED: &str = "hookward_configuration_reloads_total{result=\"refused\"}";
const CURRENT: &str = "hookward_configuration_current";

const OPEN: &str = "egress-allow = ['127.0.0.1/32']\n";
const CLOSED: &str = "egress-allow = []\n";

/// A server that this file of settings tells something.
fn told(engine: &Engine, text: &str) -> Settings {
    tell(engine, text);
    Settings::new(engine.clone()).public_addresses_only().flag("--config", "own.toml")
}

fn tell(engine: &Engine, text: &str) {
    write(&engine.folder().join("own.toml"), text);
}

/// Writes a file anew, as an editor does: there is always a whole one.
fn write(file: &Path, text: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, text).expect("the folder is ours");
    fs::rename(draft, file).expect("the folder is ours");
}

/// Tells it something else, has it look, and waits until it goes by that.
async fn take_up(service: &Service, engine: &Engine, text: &str) {
    let times = || service.written().matches("changed settings are in use").count();
    let before = times();
    tell(engine, text);
    service.hang_up();
    eventually("other settings", async || (before < times()).then_some(())).await;
}

/// Waits for a line of the log, and gives it.
async fn says(service: &Service, text: &str) -> String {
    eventually(&format!("{text:?} in the log"), async || {
        service.written().lines().find(|line| line.contains(text)).map(str::to_owned)
    })
    .await
}

async fn is(service: &Service, series: &str, value: f64) {
    let what = format!("{series} of {value}");
    eventually(&what, async || (service.metric(series).await == Some(value)).then_some(())).await;
}

/// One that is tried twice.
async fn subscribe(clinic: &Organization, receiver: &Receiver, profile: &str) {
    let retry_policy = Some(waits(&[100]));
    clinic.create(pb::Subscription { retry_policy, ..draft(receiver, profile, "*") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tightened_rule_counts_for_the_next_attempt_and_a_loosened_one_too() {
    let engine = Engine::sqlite();
    let service = told(&engine, OPEN).start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    subscribe(&clinic, &receiver, "standard").await;
    for count in [1, 2] {
        clinic.publish("a", "{}").await;
        receiver.received(count).await;
    }
    assert_eq!(receiver.connections(), 1, "the connection is kept");

    take_up(&service, &engine, CLOSED).await;
    let id = clinic.publish("a", "{}").await;
    let dead = clinic.delivery_of(&id).reaches(State::Dead).await;
    for attempt in clinic.attempts(&dead.id).await {
        assert_eq!(attempt.outcome(), Outcome::BlockedAddress);
    }
    assert_eq!((receiver.count(), receiver.connections()), (2, 1));
    let url = receiver.url().replace("http:", "https:");
    let secure = pb::Subscription { url, ..draft(&receiver, "standard", "never") };
    let created = clinic.try_create(secure.clone(), "").await;
    let refused = violation(&created.expect_err("it is not allowed any more"));
    assert_eq!(refused.1, "URL_BLOCKED_ADDRESS");

    take_up(&service, &engine, OPEN).await;
    clinic.publish("a", "{}").await;
    receiver.received(3).await;
    clinic.try_create(secure, "").await.expect("it is allowed again");
    // What is open is not the deployment itself.
    let own = pb::Subscription {
        url: format!("https://{}/", service.grpc_address()),
        ..draft(&receiver, "standard", "*")
    };
    let refused = violation(&clinic.try_create(own, "").await.expect_err("it is its own"));
    assert_eq!(refused.1, "URL_BLOCKED_ADDRESS");
}

/// A profile without a signature, in an edition that its header tells.
fn profile(edition: &str) -> String {
    format!(
        "name = 'own'\ndescription = 'One of the operator'\ncontent_type = 'application/json'\n\
         [headers]\nX-Edition = '{edition}'\n\
         [body]\nkind = 'payload'\npayload = 'json'\n"
    )
}

/// A folder as Kubernetes mounts it: links to what is behind one link, which is exchanged.
struct Mount {
    folder: PathBuf,
    count: usize,
}

impl Mount {
    fn new(folder: &Path, text: &str) -> Mount {
        fs::create_dir(folder).expect("it is ours");
        let mut mount = Mount { folder: folder.to_owned(), count: 0 };
        mount.exchange(text);
        symlink("..data/own.toml", folder.join("own.toml")).expect("it is ours");
        mount
    }

    fn exchange(&mut self, text: &str) {
        self.count += 1;
        let at = |name: &str| self.folder.join(name);
        let real = format!("..{}", self.count);
        fs::create_dir(at(&real)).expect("it is ours");
        fs::write(at(&real).join("own.toml"), text).expect("it is ours");
        symlink(&real, at("..next")).expect("it is ours");
        fs::rename(at("..next"), at("..data")).expect("it is ours");
    }
}

async fn a_profile_that_comes_and_goes_is_followed_without_a_signal(engine: Engine) {
    let folder = engine.folder().join("profiles");
    let other = profile("none").replace("'own'", "'another'");
    let mut mount = Mount::new(&folder, &other);
    let settings = told(&engine, OPEN).flag("--profiles", &folder.display().to_string());
    let service = settings.start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let created = clinic.try_create(draft(&receiver, "own", "*"), "").await;
    let refused = violation(&created.expect_err("there is no such profile"));
    assert_eq!(refused.1, "UNKNOWN_PROFILE");

    mount.exchange(&profile("first"));
    is(&service, TAKEN_UP, 1.0).await;
    subscribe(&clinic, &receiver, "own").await;
    assert_eq!(edition_sent(&clinic, &receiver).await, "first");
    mount.exchange(&profile("second"));
    is(&service, TAKEN_UP, 2.0).await;
    assert_eq!(edition_sent(&clinic, &receiver).await, "second");

    mount.exchange(&other);
    is(&service, TAKEN_UP, 3.0).await;
    let waiting = clinic.publish("a", "{}").await;
    mount.exchange(&profile("third"));
    is(&service, TAKEN_UP, 4.0).await;
    clinic.delivery_of(&waiting).reaches(State::Succeeded).await;
    let editions: Vec<String> = receiver.requests().iter().map(edition).collect();
    assert_eq!(editions, ["first", "second", "third"], "nothing is sent without a profile");
    assert_eq!(service.metric(CURRENT).await, Some(1.0));
}

/// The edition of the profile by which the next event is sent.
async fn edition_sent(clinic: &Organization, receiver: &Receiver) -> String {
    let id = clinic.publish("a", "{}").await;
    clinic.delivery_of(&id).reaches(State::Succeeded).await;
    edition(receiver.requests().last().expect("it came"))
}

fn edition(request: &Received) -> String {
    request.header("X-Edition").expect("the profile has it").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_changes_nothing_and_is_told_without_values() {
    let engine = Engine::sqlite();
    let service = told(&engine, OPEN).start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    subscribe(&clinic, &receiver, "standard").await;
    assert_eq!(service.metric(CURRENT).await, Some(1.0));

    // All or nothing: the first line would be right.
    tell(&engine, "egress-allow = []\nrole = ['s3cret']\nencryption-keys = 'one=s3cret'\n");
    is(&service, CURRENT, 0.0).await;
    is(&service, REFUSED, 1.0).await;
    for why in ["line 2: `role` takes a string", "--encryption-keys: "] {
        let line = says(&service, why).await;
        assert!(line.contains("ERROR") && line.contains("the settings are refused"), "{line}");
    }
    clinic.publish("a", "{}").await;
    receiver.received(1).await;

    tell(&engine, "egress-allow = []\n[s3cret");
    is(&service, REFUSED, 2.0).await;
    fs::remove_file(engine.folder().join("own.toml")).expect("it is there");
    is(&service, REFUSED, 3.0).await;
    says(&service, "cannot read own.toml").await;
    assert!(!service.written().contains("s3cret"), "{}", service.written());
    clinic.publish("a", "{}").await;
    receiver.received(2).await;
    // Not for each look.
    let taken_up = service.metric(TAKEN_UP).await;
    service.hang_up();
    is(&service, REFUSED, 4.0).await;

    tell(&engine, OPEN);
    is(&service, CURRENT, 1.0).await;
    assert!(taken_up < service.metric(TAKEN_UP).await);
    assert_eq!(service.metric(REFUSED).await, Some(4.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_waits() {
    let engine = Engine::sqlite();
    let service = told(&engine, OPEN).start().await;
    tell(&engine, &format!("{OPEN}payload-bytes-max = '1KiB'\nlog = 'debug'\n"));
    is(&service, CURRENT, 0.0).await;
    let waits = says(&service, "changed settings wait for the next start").await;
    assert!(waits.contains("\"payload-bytes-max\""), "{waits}");
    let taken_up = says(&service, "changed settings are in use").await;
    assert!(taken_up.contains("\"config log\""), "{taken_up}");
    let large = format!("\"{}\"", "x".repeat(2000));
    service.organization("clinic").publish("a", &large).await;

    tell(&engine, OPEN);
    is(&service, CURRENT, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_level_shows_and_a_lowered_one_is_silent() {
    let engine = Engine::sqlite();
    let level = |level: &str| format!("{OPEN}log = '{level}'\n");
    let service = told(&engine, &level("warn")).start().await;
    let clinic = service.organization("clinic");
    let id = clinic.publish("a", "{}").await;
    take_up(&service, &engine, &level("debug")).await;
    clinic.read_event(&id).await.expect("it is there");
    says(&service, "GetEvent").await;

    let before = service.metric(TAKEN_UP).await.expect("it is counted");
    tell(&engine, &level("warn"));
    eventually("the lower level", async || {
        (before < service.metric(TAKEN_UP).await?).then_some(())
    })
    .await;
    clinic.deliveries_of(&id).await;
    take_up(&service, &engine, &level("debug")).await;
    clinic.subscribe(&Receiver::answering([200]).await, "standard", "*").await;
    says(&service, "CreateSubscription").await;
    // Lines come in order: what is not there by now does not come.
    for silent in ["PublishEvents", "ListDeliveries"] {
        assert!(!service.written().contains(silent), "{silent}: {}", service.written());
    }
}

async fn keys_that_are_added_encrypt_what_is_new(engine: Engine) {
    let keys = engine.folder().join("keys");
    let give = |text: &str| write(&keys, &text.replace(';', "\n"));
    give(OLD);
    let settings = told(&engine, OPEN);
    let named = settings.flag("--encryption-keys-file", &keys.display().to_string());
    let mut service = named.start().await;
    service.organization("before").publish("a", "{}").await;

    // The key that encrypts what comes cannot go, and nor can one that is in use.
    give(NEW);
    is(&service, REFUSED, 1.0).await;
    says(&service, "the encryption key old is the primary").await;
    give(&keys::both("new"));
    is(&service, TAKEN_UP, 1.0).await;
    service.organization("after").publish("a", "{}").await;
    give(NEW);
    is(&service, REFUSED, 2.0).await;
    says(&service, "the encryption key old is needed and was not given").await;
    assert_eq!(service.metric(CURRENT).await, Some(0.0));
    service.organization("before").publish("a", "{}").await;
    service.terminate();
    assert!(service.ends().await.success());

    // Both are in use now, and so each alone is too little.
    for (given, missing) in [(OLD, "new"), (NEW, "old")] {
        let mut refused = Settings::new(engine.clone()).env(VARIABLE, given).launch();
        assert_eq!(refused.ends().await.code(), Some(78), "{missing}");
        let told = format!("the encryption key {missing} is needed");
        assert!(refused.written().contains(&told), "{}", refused.written());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_finds_nothing_new_ends_nothing() {
    let service = Service::start(Engine::sqlite()).await;
    service.hang_up();
    is(&service, TAKEN_UP, 1.0).await;
    says(&service, "the settings are those in use").await;
    service.organization("clinic").publish("a", "{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_no_start_that_waits_for_the_database() {
    let Some(engine) = Engine::postgres() else { return };
    let proxy = Proxy::to(engine.port()).await;
    proxy.refuse();
    let engine = engine.at_port(proxy.port());
    let flags = ["--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let arguments = [&["serve", "--database-url", engine.url()][..], &flags].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let mut process = Process::start(&arguments, &[], engine.folder());
    eventually("a word about what it waits for", async || {
        process.written().contains("waiting for the database").then_some(())
    })
    .await;
    process.hang_up();
    proxy.accept();
    let (_, admin) = addresses(&mut process).await;
    eventually("the look that it was asked for", async || {
        (admin::metric(admin, TAKEN_UP).await == Some(1.0)).then_some(())
    })
    .await;
}
