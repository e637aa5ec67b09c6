//! What an organization has open.

use super::on_both_engines;
use super::world::{Draft, World, acme, other};
use crate::store::{OpenDeliveries, Store};

on_both_engines!(what_is_open_is_counted_over_all_subscriptions_of_an_organization);

async fn what_is_open_is_counted_over_all_subscriptions_of_an_organization(store: Store) {
    let world = World::new(store).await;
    let count = async |least| world.store.open_deliveries(least).await.expect("counts");
    assert_eq!(count(1).await, []);
    let [one, two] = [world.subscribe(&acme()).await.key, world.subscribe(&acme()).await.key];
    let foreign = world.subscribe(&other()).await.key;
    for _ in 0..3 {
        world.publish(&Draft::parked(&[one, two])).await;
    }
    let parked = Draft { organization: other(), ..Draft::parked(&[foreign]) };
    world.publish(&parked).await;
    // Claimed by its commit, and sent at once: it is nobody's backlog.
    world.publish(&Draft::to(&[one])).await;

    let whole = || OpenDeliveries { organization: acme(), count: 6 };
    assert_eq!(count(6).await, [whole()]);
    assert_eq!(count(7).await, []);
    let mut both = count(1).await;
    both.sort_by_key(|one| one.count);
    assert_eq!(both, [OpenDeliveries { organization: other(), count: 1 }, whole()]);
    assert_eq!(count(u64::MAX).await, []);
}
