-- Endpoints that fail: a row from a failure to the next success, and none for the others.
CREATE TABLE failure_streak (
    subscription_key INTEGER PRIMARY KEY,
    -- Version of the subscription whose requests failed; with another one they start anew.
    version          INTEGER NOT NULL,
    -- When it began, ...
    begin_time       INTEGER NOT NULL,
    -- ... the same by the sending clock, and when a delivery was exhausted last.
    began_at         INTEGER NOT NULL,
    failed_at        INTEGER NOT NULL,
    -- Deliveries that have spent their attempts.
    exhausted        INTEGER NOT NULL,
    -- Per cent of the time at which its owner was warned last; 0: never.
    told             INTEGER NOT NULL
) STRICT;

-- One row. Time that this deployment has spent sending: it stands still while nobody does.
CREATE TABLE sending_clock (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    micros    INTEGER NOT NULL,
    -- When it was set to that.
    looked_at INTEGER NOT NULL
) STRICT;
INSERT INTO sending_clock (one, micros, looked_at) VALUES (1, 0, 0);

-- What the service itself has to tell, until it is published. The key makes the event's id:
-- none is used twice.
CREATE TABLE operational_event (
    key             INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    account_id      TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    payload         TEXT NOT NULL,
    occur_time      INTEGER NOT NULL,
    -- Until then somebody is about to publish it.
    taken_until     INTEGER NOT NULL DEFAULT 0
) STRICT;
