//! Promise: a database that is away, cut off, restarted, only reads or has no connection
//! left costs its own outage and little more: calls are refused soon and never hang,
//! what was acknowledged stays, and all goes on by itself.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookward::grpc::pb;
use pb::delivery::State;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::admin;
use crate::harness::client::{Organization, draft, event, event_with_id};
use crate::harness::engine::Engine;
use crate::harness::eventually::{eventually, meanwhile, within};
use crate::harness::locks::lock;
use crate::harness::postgres::Cluster;
use crate::harness::proxy::Proxy;
use crate::harness::receiver::Receiver;
use crate::harness::service::{Service, Settings};

/// What a call may take that the database does not answer; half a second of it is for a
/// machine that runs many tests at once.
const REFUSED: Duration = Duration::from_millis(2500);

/// Ends whoever [`lock`] has started.
const END_LOCKS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'";

/// A server whose database is behind a network that can fail, and that database.
async fn behind_a_proxy() -> Option<(Service, Proxy, Engine)> {
    let engine = Engine::postgres()?;
    let proxy = Proxy::to(engine.port()).await;
    let service = Service::start(engine.at_port(proxy.port())).await;
    Some((service, proxy, engine))
}

/// What a call that finds the database away must answer, and how soon.
fn expect_refused<T: std::fmt::Debug>(answer: Result<T, Status>, since: Instant) {
    let took = since.elapsed();
    let refused = answer.expect_err("the database is away");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    assert!(took <= REFUSED, "refused after {took:?}: {refused:?}");
}

/// Publishes until it is acknowledged; how long that took. Others than OK and
/// UNAVAILABLE are not answered.
async fn published(clinic: &Organization, id: &str) -> Duration {
    let begun = Instant::now();
    within(Duration::from_mins(1), "an acknowledged publish", async || {
        match clinic.try_publish(vec![event_with_id(id, "noted", "{}")]).await {
            Ok(_) => Some(begun.elapsed()),
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                None
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_off_refuses_stops_sending_and_comes_back() {
    let Some((service, proxy, _)) = behind_a_proxy().await else { return };
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscription = clinic
        .create(pb::Subscription { max_in_flight: 1, ..draft(&receiver, "azodha", "*") })
        .await;
    let events = (0..1000).map(|number| event_with_id(&format!("n-{number}"), "noted", "{}"));
    clinic.try_publish(events.collect()).await.expect("the database is there");

    proxy.cut();
    let cut = Instant::now();
    let publish = async {
        let answer = clinic.try_publish(vec![event("noted", "{}")]).await;
        expect_refused(answer, cut);
    };
    let read = async { expect_refused(clinic.get(&subscription.id).await, cut) };
    let write = async { expect_refused(clinic.pause(&subscription.id).await, cut) };
    tokio::join!(publish, read, write);
    for _ in 0..3 {
        let begun = Instant::now();
        expect_refused(clinic.try_publish(vec![event("noted", "{}")]).await, begun);
        expect_refused(clinic.get(&subscription.id).await, begun);
    }
    within(Duration::from_secs(5), "that it is not ready", async || {
        let (status, _) = admin::get(service.admin_address(), "/readyz").await?;
        (status == 503).then_some(())
    })
    .await;
    // By now it cannot know whether the subscription is paused.
    let sent = receiver.count();
    meanwhile(Duration::from_secs(2)).await;
    assert_eq!(receiver.count(), sent, "nothing is sent");

    proxy.heal();
    let took = published(&clinic, "healed").await;
    assert!(took <= Duration::from_secs(3), "back after {took:?}");
    for id in ["n-0", "n-999", "healed"] {
        clinic.delivery_of(id).reaches(State::Succeeded).await;
    }
}

/// Nobody waits for one commit that is not answered, and then for another that finds no
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn events_in_line_behind_a_commit_are_refused_with_it() {
    let Some((service, proxy, _)) = behind_a_proxy().await else { return };
    let clinic = service.organization("clinic");
    for round in 0..3 {
        // What is open then is what these few commits needed.
        proxy.reset();
        published(&clinic, &format!("before-{round}")).await;

        proxy.cut();
        let call = async |after: u64, events: usize| {
            meanwhile(Duration::from_millis(after)).await;
            let begun = Instant::now();
            let events = (0..events).map(|_| event("noted", "{}")).collect();
            (clinic.try_publish(events).await, begun.elapsed())
        };
        // The first is committed at once. The second waits for more, which come late.
        let answers = tokio::join!(call(0, 1), call(20, 1), call(1150, 40));
        for (answer, took) in [answers.0, answers.1, answers.2] {
            let refused = answer.expect_err("the database is away");
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
            assert!(took <= Duration::from_millis(1900), "refused after {took:?}: {refused:?}");
        }
        proxy.heal();
        published(&clinic, &format!("after-{round}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_cost_a_moment() {
    let Some((service, proxy, _)) = behind_a_proxy().await else { return };
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    for number in 0..20 {
        published(&clinic, &format!("before-{number}")).await;
    }

    proxy.forget();
    let forgotten = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let begun = Instant::now();
        let events = vec![event_with_id(&format!("after-{number}"), "noted", "{}")];
        if let Err(refused) = clinic.try_publish(events).await {
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
            assert!(forgotten.elapsed() <= Duration::from_secs(10), "not healthy: {refused:?}");
        }
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest <= REFUSED, "one took {slowest:?}");
    published(&clinic, "last").await;
    clinic.delivery_of("last").reaches(State::Succeeded).await;
}

/// The server still works on what came through before the network fell silent; its answer
/// would be lost as well, and its caller is not kept for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_at_work_is_given_up_when_others_fall_silent() {
    let Some(cluster) = Cluster::own("") else { return };
    let engine = Engine::postgres_on(&cluster);
    let proxy = Proxy::to(engine.port()).await;
    let service = Service::start(engine.at_port(proxy.port())).await;
    let clinic = service.organization("clinic");
    published(&clinic, "before").await;

    let mut locking = lock(&cluster, "event_key", 8).await;
    let publish = async {
        let answer = clinic.try_publish(vec![event_with_id("locked", "noted", "{}")]).await;
        (answer, Instant::now())
    };
    let forget = async {
        eventually("a commit in line for the lock", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            (cluster.sql("hookward", waiting).trim() == "1").then_some(())
        })
        .await;
        proxy.forget();
        Instant::now()
    };
    let ((answer, answered), forgotten) = tokio::join!(publish, forget);
    let refused = answer.expect_err("nothing comes through");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let took = answered.duration_since(forgotten);
    assert!(took <= REFUSED, "refused after {took:?}");
    cluster.sql("hookward", END_LOCKS);
    locking.wait().expect("it is our child");
    published(&clinic, "locked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_replaced_at_once() {
    let Some((service, proxy, _)) = behind_a_proxy().await else { return };
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    for round in 0..5 {
        published(&clinic, &format!("before-{round}")).await;
        proxy.reset();
        let took = published(&clinic, &format!("after-{round}")).await;
        assert!(took <= Duration::from_secs(2), "served again after {took:?}");
        clinic.delivery_of(&format!("after-{round}")).reaches(State::Succeeded).await;
    }
}

/// The commit hangs on its way; its caller is told that nobody knows. Then everything
/// goes on without it, and only then it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_late_stores_nothing() {
    let Some((service, proxy, _)) = behind_a_proxy().await else { return };
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    // So that the server knows the statement, and needs nothing but its values.
    for number in 0..30 {
        published(&clinic, &format!("before-{number}")).await;
    }
    receiver.received(30).await;

    proxy.hold();
    let begun = Instant::now();
    let late = || vec![event_with_id("late", "noted", "{}")];
    expect_refused(clinic.try_publish(late()).await, begun);
    published(&clinic, "meanwhile").await;
    proxy.release();
    // What was held back is executed by now.
    meanwhile(Duration::from_secs(1)).await;

    let results = clinic.try_publish(late()).await.expect("the database is there");
    assert!(!results[0].duplicate, "it was not stored: {results:?}");
    clinic.delivery_of("late").reaches(State::Succeeded).await;
    assert_eq!(receiver.count(), 32, "each is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_are_served_again_soon_after_a_crash_of_the_database() {
    let Some(cluster) = Cluster::own("") else { return };
    let service = Service::start(Engine::postgres_on(&cluster)).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    clinic.subscribe(&receiver, "azodha", "*").await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (clinic, acknowledged, stop) =
            (clinic.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                let id = format!("steady-{number}");
                let begun = Instant::now();
                match clinic.try_publish(vec![event_with_id(&id, "noted", "{}")]).await {
                    Ok(_) => drop(acknowledged.lock().expect("nobody panics").insert(id)),
                    refused => expect_refused(refused, begun),
                }
                number += 1;
                meanwhile(Duration::from_millis(5)).await;
            }
        })
    };
    let cluster = Arc::new(cluster);
    for round in 0..3 {
        meanwhile(Duration::from_millis(300)).await;
        let crashing = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || crashing.crash_and_restart()).await.expect("it runs");
        let accepts = Instant::now();
        let id = format!("round-{round}");
        let took = published(&clinic, &id).await;
        assert!(took <= Duration::from_secs(2), "acknowledged after {took:?}");
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
        let took = accepts.elapsed();
        assert!(took <= Duration::from_secs(3), "delivered after {took:?}");
    }
    stop.store(true, Ordering::SeqCst);
    publisher.await.expect("it does not panic");
    let acknowledged = acknowledged.lock().expect("nobody panics").clone();
    assert!(!acknowledged.is_empty());
    for id in acknowledged {
        clinic.delivery_of(&id).reaches(State::Succeeded).await;
    }
}

/// As after a failover, when the address leads to what has become a standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_is_left_until_it_writes() {
    let Some(cluster) = Cluster::own("") else { return };
    let service = Service::start(Engine::postgres_on(&cluster)).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscription = clinic.subscribe(&receiver, "azodha", "*").await;
    published(&clinic, "before").await;
    let turn = |read_only: &str| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
        cluster.sql("postgres", &sql);
        cluster.sql("postgres", "SELECT pg_reload_conf()");
    };

    turn("on");
    let begun = Instant::now();
    eventually("that it is noticed", async || {
        clinic.try_publish(vec![event("noted", "{}")]).await.err()
    })
    .await;
    assert!(begun.elapsed() <= Duration::from_secs(2), "noticed after {:?}", begun.elapsed());
    within(Duration::from_secs(10), "that no connection is kept", async || {
        // Those of the listener is no statement's.
        let kept = cluster.sql(
            "hookward",
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hookward'
             AND query NOT LIKE 'LISTEN%'",
        );
        (kept.trim() == "0").then_some(())
    })
    .await;
    let begun = Instant::now();
    expect_refused(clinic.get(&subscription.id).await, begun);

    turn("off");
    let took = published(&clinic, "after").await;
    assert!(took <= Duration::from_secs(5), "writes go on after {took:?}");
    clinic.delivery_of("after").reaches(State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_find_no_connection_are_refused_and_the_engine_goes_on() {
    let Some(cluster) = Cluster::own("") else { return };
    let settings = Settings::new(Engine::postgres_on(&cluster));
    let service = settings.flag("--database-connections", "8").start().await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscription = clinic.subscribe(&receiver, "azodha", "*").await;
    published(&clinic, "before").await;
    clinic.delivery_of("before").reaches(State::Succeeded).await;

    // Whoever reads subscriptions waits for this.
    let mut locking = lock(&cluster, "subscription", 6).await;
    let begun = Instant::now();
    let stuck = (0..30).map(|_| {
        let (clinic, id) = (clinic.clone(), subscription.id.clone());
        tokio::spawn(async move { (clinic.get(&id).await, begun.elapsed()) })
    });
    let stuck: Vec<_> = stuck.collect();
    for number in 0..20 {
        let took = published(&clinic, &format!("meanwhile-{number}")).await;
        assert!(took <= Duration::from_secs(1), "acknowledged after {took:?}");
    }
    receiver.received(21).await;
    assert!(locking.try_wait().expect("it is our child").is_none(), "the lock was held");
    let mut refused = 0;
    for call in stuck {
        let (answer, took) = call.await.expect("it does not panic");
        let Err(status) = answer else { continue };
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.get_details_retry_info().is_some(), "{status:?}");
        refused += usize::from(took <= Duration::from_millis(1500));
    }
    assert!(20 <= refused, "{refused} were told within about a second");
    cluster.sql("hookward", END_LOCKS);
    locking.wait().expect("it is our child");
    clinic.delivery_of("meanwhile-19").reaches(State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_server_refuses_calls_and_nothing_else() {
    let Some(cluster) = Cluster::own("max_connections = 16\n") else { return };
    let service = Service::start(Engine::postgres_on(&cluster)).await;
    let clinic = service.organization("clinic");
    let receiver = Receiver::answering([200]).await;
    let subscription = clinic.subscribe(&receiver, "azodha", "*").await;
    published(&clinic, "before").await;

    let mut others: Vec<_> = (0..16)
        .map(|_| {
            let mut other = cluster.psql("postgres", "SELECT pg_sleep(60)");
            other.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql is there")
        })
        .collect();
    eventually("that some find no place", async || {
        others.iter_mut().any(|other| other.try_wait().is_ok_and(|end| end.is_some())).then_some(())
    })
    .await;
    let begun = Instant::now();
    let calls = (0..40).map(|_| {
        let (clinic, id) = (clinic.clone(), subscription.id.clone());
        tokio::spawn(async move { (clinic.get(&id).await, begun.elapsed()) })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        let (answer, took) = call.await.expect("it does not panic");
        assert!(took <= REFUSED, "answered after {took:?}");
        if let Err(refused) = answer {
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        }
    }
    // A few share the connections that there are.
    let few = (0..4).map(|_| {
        let (clinic, id) = (clinic.clone(), subscription.id.clone());
        tokio::spawn(async move {
            for _ in 0..25 {
                clinic.get(&id).await.expect("it waits for a connection");
            }
        })
    });
    for one in few.collect::<Vec<_>>() {
        one.await.expect("each was answered");
    }
    let took = published(&clinic, "meanwhile").await;
    assert!(took <= Duration::from_secs(1), "acknowledged after {took:?}");
    for other in &mut others {
        // It may have found no place and have ended.
        let _ = other.kill();
        let _ = other.wait();
    }
    clinic.delivery_of("meanwhile").reaches(State::Succeeded).await;
}
