//! Events: found by id, listed newest first.

use std::time::Duration;

use bytes::Bytes;

use super::on_both_engines;
use super::world::{Draft, NOON, World, acme, other};
use crate::domain::event::Payload;
use crate::domain::id::{AccountId, EventKey};
use crate::domain::pattern::EventPattern;
use crate::store::{EventFilter, Store, StoreError};

on_both_engines! {
    an_event_is_found_by_its_one_id,
    an_event_reads_back_as_it_was_published,
    pages_are_newest_first_and_filtered,
    a_page_holds_two_mebibytes,
    a_long_scan_comes_back_short,
}

async fn an_event_is_found_by_its_one_id(store: Store) {
    let world = World::new(store).await;
    let made = world.publish(&Draft::to(&[])).await;
    let chosen = world.publish(&Draft { id: Some("order-1"), ..Draft::to(&[]) }).await;
    let find = async |organization, id: &str| world.store.event_key_of(&organization, id).await;
    let id = world.store.ids().event(made);
    assert_eq!(find(acme(), &id).await.expect("is there"), made);
    assert_eq!(find(acme(), "order-1").await.expect("is there"), chosen);
    let hidden = world.store.ids().event(chosen);
    for (organization, id) in [
        (other(), id.as_str()),
        (other(), "order-1"),
        (acme(), hidden.as_str()),
        (acme(), "order-2"),
    ] {
        assert!(matches!(find(organization.clone(), id).await, Err(StoreError::NotFound)), "{id}");
        let event = world.store.event_by_id(&organization, id, true).await;
        assert!(matches!(event, Err(StoreError::NotFound)), "{id}");
    }
}

async fn an_event_reads_back_as_it_was_published(store: Store) {
    let world = World::new(store).await;
    let payloads = [
        Payload::None,
        Payload::Json(Bytes::from_static(b"{\"b\": 1.0}")),
        Payload::Raw(Bytes::from_static(b"\x00\xff")),
    ];
    for payload in payloads {
        let account = Some(AccountId::stored("account-1"));
        let row = world.row(&Draft { account, payload, ..Draft::to(&[]) });
        world.commit(std::slice::from_ref(&row)).await.expect("commits");
        let id = &row.event.summary.id;
        let read = world.store.event_by_id(&acme(), id, true).await.expect("is there");
        assert_eq!(read.payload, row.event.payload);
        assert_eq!(format!("{:?}", read.summary), format!("{:?}", row.event.summary));
        let bare = world.store.event_by_id(&acme(), id, false).await.expect("is there");
        assert!(bare.payload.bytes().is_empty());
        assert_eq!(bare.summary.payload_bytes, row.event.summary.payload_bytes);
    }
}

async fn pages_are_newest_first_and_filtered(store: Store) {
    let world = World::new(store).await;
    let mut keys = Vec::new();
    for second in 0..6_u64 {
        let event_type = if second % 2 == 0 { "notes.create" } else { "labs.create" };
        let account = (second < 3).then(|| AccountId::stored("account-1"));
        let at = NOON.plus(Duration::from_mins(second));
        keys.push(world.publish(&Draft { account, event_type, at, ..Draft::to(&[]) }).await);
        world.publish(&Draft { organization: other(), at, ..Draft::to(&[]) }).await;
    }
    let pick = |numbers: &[usize]| numbers.iter().map(|at| keys[*at]).collect::<Vec<_>>();
    let all = EventFilter::default;
    assert_eq!(walk(&world, &all()).await, pick(&[5, 4, 3, 2, 1, 0]));
    let pattern = EventPattern::parse("notes.*", false).expect("a pattern");
    let notes = EventFilter { pattern: Some(pattern), ..all() };
    assert_eq!(walk(&world, &notes).await, pick(&[4, 2, 0]));
    let account = EventFilter { account: Some(AccountId::stored("account-1")), ..all() };
    assert_eq!(walk(&world, &account).await, pick(&[2, 1, 0]));
    let from = Some(NOON.plus(Duration::from_mins(1)));
    let to = Some(NOON.plus(Duration::from_mins(4)));
    assert_eq!(walk(&world, &EventFilter { from, to, ..all() }).await, pick(&[3, 2, 1]));
}

async fn a_page_holds_two_mebibytes(store: Store) {
    let world = World::new(store).await;
    // A little less than that many, for what else an event weighs.
    let payload = |mebibytes: usize| Payload::Raw(vec![b'x'; (mebibytes << 20) - 100].into());
    for mebibytes in [1, 1, 1, 3] {
        world.publish(&Draft { payload: payload(mebibytes), ..Draft::to(&[]) }).await;
    }
    let mut sizes = Vec::new();
    let mut before = None;
    loop {
        let filter = EventFilter::default();
        let page = world.store.events(&acme(), &filter, before, 10, true).await.expect("lists");
        let size = page.events.iter().map(|event| event.payload.bytes().len().div_ceil(1 << 20));
        sizes.push(size.collect::<Vec<_>>());
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [vec![3], vec![1, 1], vec![1]]);
    let filter = EventFilter::default();
    let page = world.store.events(&acme(), &filter, None, 10, false).await.expect("lists");
    assert_eq!(page.events.len(), 4, "without payloads their size does not count");
}

async fn a_long_scan_comes_back_short(store: Store) {
    let world = World::new(store).await;
    let rare = world.publish(&Draft { event_type: "rare", ..Draft::to(&[]) }).await;
    let common = Draft { payload: Payload::None, ..Draft::to(&[]) };
    let rows: Vec<_> = (0..10_500).map(|_| world.row(&common)).collect();
    world.commit(&rows).await.expect("commits");
    let pattern = EventPattern::parse("rare", false).expect("a pattern");
    let filter = EventFilter { pattern: Some(pattern), ..EventFilter::default() };
    let first = world.store.events(&acme(), &filter, None, 10, false).await.expect("lists");
    assert!(first.events.is_empty());
    assert!(first.next.is_some(), "there may be more");
    let rest = world.store.events(&acme(), &filter, first.next, 10, false).await.expect("lists");
    assert_eq!(rest.events[0].summary.key, rare);
    assert_eq!(rest.next, None);
}

/// All of a list, two at a time.
async fn walk(world: &World, filter: &EventFilter) -> Vec<EventKey> {
    let (mut keys, mut before) = (Vec::new(), None);
    loop {
        let page = world.store.events(&acme(), filter, before, 2, false).await.expect("lists");
        assert!(page.events.len() <= 2);
        keys.extend(page.events.iter().map(|event| event.summary.key));
        before = page.next;
        if before.is_none() {
            return keys;
        }
    }
}
