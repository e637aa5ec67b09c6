//! Daily partitions of the append-only tables on PostgreSQL, made ahead, so that
//! retention can drop a day instead of deleting rows.

use sea_orm::{ConnectionTrait, DbBackend};

use super::{Store, StoreError};

/// Makes the partitions of today and the three days after, where they are missing.
/// A key's day is that of its 41 upper bits (see `domain::id`); what comes earlier
/// or later lies in the default partition. A day that already has rows there is
/// left to it.
const MAKE_AHEAD: &str = "
    DO $$
    DECLARE
        day_ms  constant int8 := 86400000;
        today   constant int8 := (extract(epoch FROM now()) * 1000)::int8 - {epoch};
        started int8;
        parent  text;
        held    bool;
    BEGIN
        FOR ahead IN 0..3 LOOP
            started := ((today / day_ms) + ahead) * day_ms;
            FOREACH parent IN ARRAY ARRAY['event', 'attempt'] LOOP
                CONTINUE WHEN to_regclass(format('%s_%s', parent, started / day_ms)) IS NOT NULL;
                EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I WHERE %I >= %s AND %I < %s)',
                    parent || '_default', CASE parent WHEN 'event' THEN 'key' ELSE 'event_key' END,
                    started << 22, CASE parent WHEN 'event' THEN 'key' ELSE 'event_key' END,
                    (started + day_ms) << 22) INTO held;
                CONTINUE WHEN held;
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                    format('%s_%s', parent, started / day_ms), parent,
                    started << 22, (started + day_ms) << 22);
            END LOOP;
        END LOOP;
    END $$";

pub(super) async fn make_ahead(connection: &impl ConnectionTrait) -> Result<(), StoreError> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let epoch = crate::domain::id::EPOCH_MILLIS.to_string();
        connection.execute_unprepared(&MAKE_AHEAD.replace("{epoch}", &epoch)).await?;
    }
    Ok(())
}

impl Store {
    /// Makes partitions for the days to come. Nothing to do on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn make_partitions(&self) -> Result<(), StoreError> {
        make_ahead(self.write()).await
    }
}
