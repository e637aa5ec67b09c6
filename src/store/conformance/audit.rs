//! The audit log: written with its change or not at all, never changed, purged with an
//! anchor.

use std::convert::Infallible;

use futures_util::future::join_all;
use sea_orm::ConnectionTrait;

use super::on_both_engines;
use super::world::{World, acme, entry, other};
use crate::domain::api_key::ApiKeySecret;
use crate::domain::audit::{AuditEntry, Chain, ChainPoint, Misfit, NewAuditEntry};
use crate::domain::id::{ApiKeyId, OrganizationId};
use crate::domain::principal::Organizations;
use crate::domain::scope::Scopes;
use crate::domain::subscription::{Subscription, SubscriptionState};
use crate::domain::timestamp::Timestamp;
use crate::store::{
    AuditFilter, AuditPlace, Change, ChangeError, DisableCause, FollowedChain, NewApiKey, Store,
    StoreError, SubscriptionFilter,
};

on_both_engines! {
    what_was_written_reads_back_newest_first,
    organizations_have_chains_of_their_own,
    changes_at_once_are_one_chain,
    no_change_happens_without_its_entry,
    what_was_left_as_it_was_says_so,
    the_server_signs_what_it_does_itself,
    entries_cannot_be_changed_or_deleted,
    an_altered_entry_is_found,
    a_missing_entry_is_found,
    a_chain_made_anew_does_not_fit_what_was_noted,
    what_is_purged_leaves_an_anchor,
    time_does_not_go_back_in_a_chain,
    heads_are_told_since_a_time,
}

fn of(organization: OrganizationId) -> Chain {
    Chain::Organization(organization)
}

async fn newest_first(store: &Store, chain: &Chain) -> Vec<AuditEntry> {
    store.audit_entries(chain, AuditFilter::default(), None, 100).await.expect("reads")
}

async fn follow(store: &Store, noted: &[ChainPoint]) -> FollowedChain {
    store.follow_audit_chain(&of(acme()), noted).await.expect("reads")
}

/// Why the chain of `acme` does not fit, and from which entry on.
async fn misfit(store: &Store) -> Option<(i64, Misfit)> {
    follow(store, &[]).await.misfit.map(|(sequence, _, misfit)| (sequence, misfit))
}

/// So many subscriptions, one after the other.
async fn subscribed(store: Store, count: usize) -> World {
    let world = World::new(store).await;
    for _ in 0..count {
        world.subscribe(&acme()).await;
    }
    world
}

/// As somebody could who may do everything to the database.
async fn disarm(world: &World) {
    let statements: &[&str] = if world.store.is_shared() {
        &["ALTER TABLE audit_entry DISABLE TRIGGER USER"]
    } else {
        &["DROP TRIGGER audit_entry_is_not_updated", "DROP TRIGGER audit_entry_is_not_deleted"]
    };
    for sql in statements {
        world.execute(sql, vec![]).await;
    }
}

async fn what_was_written_reads_back_newest_first(store: Store) {
    let told = |number: u32| NewAuditEntry {
        principal: "whk_1".to_owned(),
        credential_id: "whk_1".to_owned(),
        peer: "127.0.0.1:4".to_owned(),
        object_ids: vec!["sub_1".to_owned(), format!("sub_{number}")],
        code: "NOT_FOUND".to_owned(),
        reason: "NOT_FOUND".to_owned(),
        changed_fields: vec!["url".to_owned()],
        request_id: "0123456789abcdef".to_owned(),
        payload_read: true,
        calls: number,
        ..NewAuditEntry::of_service(of(acme()), "hookward.v1.EventService/GetEvent")
    };
    let entries: Vec<_> = (1..=100).map(told).collect();
    store.audit_all(&entries).await.expect("writes");
    let listed = newest_first(&store, &of(acme())).await;
    let read: Vec<_> = listed.iter().rev().map(|one| one.entry.clone()).collect();
    assert_eq!(read, entries);
    assert!(listed.iter().rev().map(|one| one.sequence).eq(1..=100));

    let last = &listed[9];
    let before = Some(AuditPlace { time: last.time, sequence: last.sequence });
    let all = AuditFilter::default();
    let rest = store.audit_entries(&of(acme()), all, before, 5).await.expect("reads");
    assert!(rest.iter().map(|one| one.sequence).eq((86..=90).rev()));
    let to = AuditFilter { to: Some(last.time), ..all };
    assert_eq!(store.audit_entries(&of(acme()), to, None, 5).await.expect("reads"), []);
    let from = AuditFilter { from: Some(last.time), ..all };
    assert_eq!(store.audit_entries(&of(acme()), from, None, 500).await.expect("reads").len(), 100);
}

async fn organizations_have_chains_of_their_own(store: Store) {
    let deployment = NewAuditEntry::of_service(Chain::Deployment, "call");
    let others = NewAuditEntry::of_service(of(other()), "call");
    let mixed = [entry(), deployment.clone(), others, deployment, entry(), entry()];
    store.audit_all(&mixed).await.expect("writes");
    assert_eq!(newest_first(&store, &of(acme())).await.len(), 3);
    assert_eq!(newest_first(&store, &of(other())).await.len(), 1);
    assert_eq!(newest_first(&store, &Chain::Deployment).await.len(), 2);
    let chains = store.audit_chains().await.expect("reads");
    assert_eq!(chains, [Chain::Deployment, of(acme()), of(other())]);
    for chain in chains {
        let followed = store.follow_audit_chain(&chain, &[]).await.expect("reads");
        assert_eq!(followed.misfit, None, "{chain}");
    }
}

async fn changes_at_once_are_one_chain(store: Store) {
    let world = World::new(store).await;
    let (mut chains, acme) = (Vec::new(), acme());
    for _ in 0..4 {
        join_all((0..8).map(|_| world.subscribe(&acme))).await;
        chains.push(follow(&world.store, &[]).await);
    }
    assert_eq!(chains.iter().map(|one| one.entries).collect::<Vec<_>>(), [8, 16, 24, 32]);
    assert!(chains.iter().all(|one| one.misfit.is_none()), "{chains:?}");
}

async fn no_change_happens_without_its_entry(store: Store) {
    let world = subscribed(store, 1).await;
    let store = &world.store;
    let key = only(&world).await.key;
    let before = only(&world).await;
    world.execute("ALTER TABLE audit_entry RENAME TO audit_gone", vec![]).await;

    let is_away = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
    let new = world.new_subscription(&acme());
    let made = store.create_subscription(new, None, &entry(), |_| Vec::new()).await;
    assert!(made.is_err_and(|error| is_away(&error)));
    let pause = |one| Ok::<_, Infallible>(Change::Write(Box::new(paused(one))));
    let changed = store.change_subscription(&acme(), key, None, &entry(), pause).await;
    assert!(matches!(changed, Err(ChangeError::Store(error)) if is_away(&error)));
    let gone = DisableCause::Gone;
    assert!(store.disable(&acme(), key, before.version, gone, None).await.is_err());
    let deleted = store.delete_subscription(&acme(), key, None, &entry()).await;
    assert!(deleted.is_err_and(|error| is_away(&error)));
    assert!(store.create_api_key(api_key(), &entry()).await.is_err());
    assert!(store.audit_alone(&entry()).await.is_err_and(|error| is_away(&error)));

    world.execute("ALTER TABLE audit_gone RENAME TO audit_entry", vec![]).await;
    let after = only(&world).await;
    assert_eq!((after.version, after.state), (before.version, before.state));
    assert!(store.api_keys().await.expect("reads").is_empty());
    assert_eq!(follow(store, &[]).await.entries, 1, "only the first is on record");
    store.delete_subscription(&acme(), key, None, &entry()).await.expect("as before");
    assert_eq!(misfit(store).await, None);
}

async fn what_was_left_as_it_was_says_so(store: Store) {
    let world = subscribed(store, 1).await;
    let store = &world.store;
    let fields = NewAuditEntry { changed_fields: vec!["state".to_owned()], ..entry() };
    let key = only(&world).await.key;
    let keep = |_| Ok::<_, Infallible>(Change::Keep);
    store.change_subscription(&acme(), key, None, &fields, keep).await.expect("keeps");
    let pause = |one| Ok::<_, Infallible>(Change::Write(Box::new(paused(one))));
    store.change_subscription(&acme(), key, None, &fields, pause).await.expect("pauses");
    let ask = |_| Ok::<_, Infallible>(Change::Ask);
    store.change_subscription(&acme(), key, None, &fields, ask).await.expect("asks");
    let ask = |one| Ok::<_, Infallible>(Change::WriteAndAsk(Box::new(one)));
    store.change_subscription(&acme(), key, None, &fields, ask).await.expect("asks and writes");
    let listed = newest_first(store, &of(acme())).await;
    let changed: Vec<_> = listed.iter().map(|one| one.entry.changed_fields.join(" ")).collect();
    assert_eq!(changed, ["state ownership", "ownership", "state", "", ""]);
    assert_eq!(misfit(store).await, None);
}

async fn the_server_signs_what_it_does_itself(store: Store) {
    let world = subscribed(store, 1).await;
    let made = only(&world).await;
    let disable = async || {
        let gone = DisableCause::Gone;
        world.store.disable(&acme(), made.key, made.version, gone, None).await.expect("answers")
    };
    assert!(disable().await);
    let listed = newest_first(&world.store, &of(acme())).await;
    let last = &listed[0].entry;
    assert_eq!((&*last.principal, &*last.method), ("hookward", "disable"));
    assert_eq!(last.object_ids, [world.store.ids().subscription(made.key)]);
    assert!(!disable().await, "it is disabled");
    assert_eq!(newest_first(&world.store, &of(acme())).await.len(), 2, "nothing was done");
}

async fn entries_cannot_be_changed_or_deleted(store: Store) {
    let world = subscribed(store, 2).await;
    for sql in [
        "UPDATE audit_entry SET code = 'OK'",
        "DELETE FROM audit_entry WHERE sequence = 2",
        "DELETE FROM audit_entry",
    ] {
        let statement = world.store.statement(sql, vec![]);
        assert!(world.store.write().execute_raw(statement).await.is_err(), "{sql}");
    }
    assert_eq!(misfit(&world.store).await, None);
}

async fn an_altered_entry_is_found(store: Store) {
    let world = subscribed(store, 4).await;
    disarm(&world).await;
    let edits = [
        ("principal = 'nobody'", "principal = 'hookward'", Misfit::Altered),
        ("object_ids = '[\"sub_2\"]'", "object_ids = '[]'", Misfit::Altered),
        ("object_ids = 'no JSON'", "object_ids = '[]'", Misfit::Altered),
        ("time = time + 1", "time = time - 1", Misfit::Altered),
        ("calls = 2", "calls = 1", Misfit::Altered),
        ("previous_hash = hash", "", Misfit::Unlinked),
    ];
    for (edit, undo, why) in edits {
        let set = |what: &str| format!("UPDATE audit_entry SET {what} WHERE sequence = 3");
        world.execute(&set(edit), vec![]).await;
        assert_eq!(misfit(&world.store).await, Some((3, why)), "{edit}");
        if !undo.is_empty() {
            world.execute(&set(undo), vec![]).await;
            assert_eq!(misfit(&world.store).await, None, "{undo}");
        }
    }
}

async fn a_missing_entry_is_found(store: Store) {
    let world = subscribed(store, 5).await;
    disarm(&world).await;
    world.execute("DELETE FROM audit_entry WHERE sequence = 5", vec![]).await;
    assert_eq!(misfit(&world.store).await, Some((5, Misfit::End)), "the last");
    world.execute("DELETE FROM audit_entry WHERE sequence = 2", vec![]).await;
    assert_eq!(misfit(&world.store).await, Some((3, Misfit::Missing)), "from the middle");
    world.execute("DELETE FROM audit_entry WHERE sequence = 1", vec![]).await;
    assert_eq!(misfit(&world.store).await, Some((3, Misfit::Missing)), "the first");
    world.execute("DELETE FROM audit_entry WHERE sequence > 0", vec![]).await;
    assert_eq!(misfit(&world.store).await, Some((1, Misfit::End)), "all");
    world.subscribe(&acme()).await;
    assert_eq!(misfit(&world.store).await, Some((6, Misfit::Missing)), "and it stays so");
    world.execute("DELETE FROM audit_head", vec![]).await;
    assert_eq!(misfit(&world.store).await, Some((6, Misfit::Missing)), "without a head");
}

async fn a_chain_made_anew_does_not_fit_what_was_noted(store: Store) {
    let world = subscribed(store, 3).await;
    let store = &world.store;
    let noted = follow(store, &[]).await.head.expect("there is one").point;
    assert_eq!(follow(store, &[noted]).await.misfit, None);
    disarm(&world).await;
    for table in ["audit_entry", "audit_head"] {
        world.execute(&format!("DELETE FROM {table}"), vec![]).await;
    }
    let without = follow(store, &[]).await;
    assert_eq!((without.entries, without.misfit), (0, None), "nobody knows of a chain");
    assert_eq!(follow(store, &[noted]).await.misfit, Some((1, None, Misfit::NoHead)));
    let forged = NewAuditEntry { method: "nothing happened".to_owned(), ..entry() };
    let forged = [forged.clone(), forged.clone(), forged.clone(), forged];
    store.audit_all(&forged[..2]).await.expect("writes");
    assert_eq!(follow(store, &[]).await.misfit, None, "it fits itself");
    assert_eq!(follow(store, &[noted]).await.misfit, Some((3, None, Misfit::Noted)), "shorter");
    store.audit_all(&forged[2..]).await.expect("writes");
    let found = follow(store, &[noted]).await.misfit.map(|(sequence, _, why)| (sequence, why));
    assert_eq!(found, Some((3, Misfit::Noted)));
}

async fn what_is_purged_leaves_an_anchor(store: Store) {
    let world = subscribed(store, 6).await;
    let store = &world.store;
    let listed = newest_first(store, &of(acme())).await;
    let newest = listed[0].time;
    assert_eq!(store.purge_audit(Timestamp(1), 100).await.expect("purges"), 0, "none is so old");
    assert_eq!(store.purge_audit(Timestamp(i64::MAX), 2).await.expect("purges"), 2);
    let followed = follow(store, &[listed[2].point()]).await;
    assert_eq!((followed.entries, followed.misfit), (4, None));
    let head = followed.head.expect("there is one");
    assert_eq!(head.purged, listed[4].point());
    assert_eq!(head.purged_time, listed[4].time);

    // The others that are older than the newest, one chain after the other.
    store.audit_alone(&NewAuditEntry::of_service(Chain::Deployment, "call")).await.expect("writes");
    let mut purged = 0;
    loop {
        match store.purge_audit(newest, 3).await.expect("purges") {
            0 => break,
            portion => purged += portion,
        }
    }
    let rest = newest_first(store, &of(acme())).await;
    assert_eq!(purged, 4 - rest.len() as u64);
    assert!(rest.iter().all(|one| newest <= one.time), "{rest:?}");
    world.subscribe(&acme()).await;
    assert_eq!(misfit(store).await, None, "it goes on where it was");

    disarm(&world).await;
    world.execute("DELETE FROM audit_entry WHERE sequence <= 6", vec![]).await;
    assert_eq!(misfit(store).await, Some((7, Misfit::Missing)), "beyond the anchor");
}

async fn time_does_not_go_back_in_a_chain(store: Store) {
    let world = subscribed(store, 1).await;
    let ahead = "UPDATE audit_head SET update_time = update_time + 1000000000";
    world.execute(ahead, vec![]).await;
    world.subscribe(&acme()).await;
    let listed = newest_first(&world.store, &of(acme())).await;
    assert_eq!(listed[0].time, Timestamp(listed[1].time.0 + 1_000_000_000));
    assert_eq!(misfit(&world.store).await, None);
}

async fn heads_are_told_since_a_time(store: Store) {
    for number in 0..5 {
        let chain = Chain::stored(&format!("clinic-{number}"));
        store.audit_alone(&NewAuditEntry::of_service(chain, "call")).await.expect("writes");
    }
    let mut told = Vec::new();
    let (mut time, mut chain) = (Timestamp(0), String::new());
    loop {
        let heads = store.audit_heads((time, &chain), 2).await.expect("reads");
        let Some(last) = heads.last() else { break };
        (time, chain) = (last.update_time, last.chain.key().to_owned());
        told.extend(heads.into_iter().map(|head| head.chain.key().to_owned()));
    }
    assert_eq!(told, ["clinic-0", "clinic-1", "clinic-2", "clinic-3", "clinic-4"]);
    assert_eq!(store.audit_heads((Timestamp(i64::MAX), ""), 2).await.expect("reads"), []);
}

async fn only(world: &World) -> Subscription {
    let all = SubscriptionFilter::default();
    let found = world.store.subscriptions(&acme(), &all, None, 10).await.expect("lists");
    let [one]: [Subscription; 1] = found.try_into().unwrap_or_else(|found: Vec<Subscription>| {
        panic!("there are {}", found.len());
    });
    one
}

fn paused(subscription: Subscription) -> Subscription {
    Subscription { state: SubscriptionState::Paused, ..subscription }
}

fn api_key() -> NewApiKey {
    NewApiKey {
        id: ApiKeyId(1),
        label: "test".to_owned(),
        organizations: Organizations::All,
        scopes: Scopes::all(),
        secret_hash: ApiKeySecret::generate().hash(),
        life: None,
    }
}
