//! Daily partitions of the append-only tables on PostgreSQL: made ahead, and dropped once
//! the purge has passed them and left nothing, so that their room is given back.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

use super::{Store, StoreError};

/// Makes the partitions of today and some days after, where they are missing.
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
        FOR ahead IN 0..{ahead} LOOP
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

const COUNT: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass";

/// Drops the partitions of the oldest day that every cursor has passed and of which no
/// event is left, with the attempts of that day. One day at a time: a drop locks the whole
/// table, and everybody waits behind one that waits. So it also gives up soon, and comes
/// again.
const DROP_EMPTY: &str = "
    DO $$
    DECLARE
        day_ms constant int8 := 86400000;
        passed int8;
        day    int8;
        held   bool;
    BEGIN
        SET LOCAL lock_timeout = '100ms';
        SELECT min(metadata_key) INTO passed FROM retention;
        FOR day IN
            SELECT substring(c.relname FROM 7)::int8 FROM pg_inherits i
            JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'event'::regclass AND c.relname ~ '^event_[0-9]+$'
            ORDER BY 1
        LOOP
            EXIT WHEN passed < ((day + 1) * day_ms) << 22;
            EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I ORDER BY key LIMIT 1)',
                format('event_%s', day)) INTO held;
            CONTINUE WHEN held;
            EXECUTE format('DROP TABLE %I', format('event_%s', day));
            EXECUTE format('DROP TABLE IF EXISTS %I', format('attempt_%s', day));
            EXIT;
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'somebody holds the table; the next time';
    END $$";

/// Days after today that a service sees to.
const AHEAD: u32 = 3;
/// And a migration: it may be what makes them, once a day, and at another hour than that at
/// which the next is wanted.
pub(super) const AHEAD_OF_MIGRATION: u32 = AHEAD + 1;

pub(super) async fn make_ahead(connection: &impl ConnectionTrait, ahead: u32) -> Result<(), DbErr> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let epoch = crate::domain::id::EPOCH_MILLIS.to_string();
        let sql = MAKE_AHEAD.replace("{epoch}", &epoch).replace("{ahead}", &ahead.to_string());
        connection.execute_unprepared(&sql).await?;
    }
    Ok(())
}

/// Drops all that are past and empty, one after the other, until somebody holds the table. For
/// a migration: where another role than the service's owns the tables, nobody else can.
pub(super) async fn drop_empty(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut before = i64::MAX;
    loop {
        let count = Statement::from_string(DbBackend::Postgres, COUNT);
        let row = connection.query_one_raw(count).await?;
        let there: i64 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        if before <= there {
            return Ok(());
        }
        before = there;
        connection.execute_unprepared(DROP_EMPTY).await?;
    }
}

impl Store {
    /// Makes partitions for the days to come. Nothing to do on SQLite.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn make_partitions(&self) -> Result<(), StoreError> {
        Ok(make_ahead(self.write(), AHEAD).await?)
    }

    /// Drops partitions that are empty and past. Nothing to do on SQLite, where room is
    /// used again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]: asking again is safe.
    pub async fn drop_partitions(&self) -> Result<(), StoreError> {
        if self.is_shared() {
            self.write().execute_unprepared(DROP_EMPTY).await?;
        }
        Ok(())
    }
}
