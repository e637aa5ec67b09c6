//! Promise: a version goes on while the next one widens the database under it, and it can be
//! gone back to afterwards.

use std::collections::BTreeSet;

use crate::harness::engine::Engine;
use crate::harness::fleet::{Fleet, Flow, PER_SECOND, name};
use crate::harness::postgres::Cluster;
use crate::harness::receiver::Receiver;
use crate::harness::service::Settings;

const ORGANIZATIONS: usize = 2;

/// What the next version's migration could do at most: a column more in every table, each with
/// a default, and a table and an index more.
const WIDEN: [&str; 4] = [
    "DO $$
    DECLARE
        wide text;
    BEGIN
        FOR wide IN
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                AND NOT c.relispartition AND c.relname <> 'seaql_migrations'
        LOOP
            -- No two locks at once.
            COMMIT;
            EXECUTE format('ALTER TABLE %I ADD COLUMN later text NOT NULL DEFAULT ''new''', wide);
        END LOOP;
    END $$",
    "CREATE TABLE later (key int8 PRIMARY KEY)",
    "CREATE INDEX later_attempt ON attempt (later)",
    "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 0)",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_version_serves_what_the_next_one_has_widened() {
    let Some(cluster) = Cluster::own("") else { return };
    let receiver = Receiver::answering([200]).await;
    let settings = Settings::new(Engine::postgres_on(&cluster));
    let mut fleet = Fleet::start(&settings, 2).await;
    for number in 0..ORGANIZATIONS {
        fleet.organization(&name(number)).subscribe(&receiver, "azodha", "*").await;
    }
    let flow = Flow::start(&fleet, ORGANIZATIONS);
    flow.goes_on(PER_SECOND).await;

    for statement in WIDEN {
        cluster.sql("hookward", statement);
    }
    flow.goes_on(PER_SECOND).await;
    // Gone back to: a start of this version on the wider database.
    fleet.replace(&settings).await;
    fleet.replace(&settings).await;
    let clinic = fleet.organization(&name(0));
    clinic.subscribe(&receiver, "standard", "never").await;
    flow.goes_on(PER_SECOND).await;

    let published = flow.end().await;
    receiver.received(published.len()).await;
    let bodies: BTreeSet<Vec<u8>> =
        receiver.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), published.len(), "each came");
    assert_eq!(receiver.count(), published.len(), "once");
    // It looks at what it has logged, too: no error.
    fleet.stop().await;
}
