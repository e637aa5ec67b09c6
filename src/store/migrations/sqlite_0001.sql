-- Keys are integers, made in the process, ascending with time. Times are
-- microseconds since 1970. Empty text means "none"; 0 in a time or a number does too.

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- One row. Raised in the transaction of every subscription change, so that a
-- version names one state of all subscriptions.
CREATE TABLE routing_clock (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO routing_clock (one, version) VALUES (1, 1);

-- One row for each live process. Writes of a process whose row is gone change nothing.
CREATE TABLE replica (
    number       INTEGER PRIMARY KEY,
    incarnation  INTEGER NOT NULL UNIQUE,
    heartbeat_at INTEGER NOT NULL,
    -- No event of this replica with a smaller key is unsettled without a due row.
    low_key      INTEGER NOT NULL
) STRICT;

CREATE TABLE subscription (
    key                    INTEGER PRIMARY KEY,
    organization_id        TEXT NOT NULL,
    account_id             TEXT NOT NULL,
    name                   TEXT NOT NULL,
    url                    TEXT NOT NULL,
    event_patterns         TEXT NOT NULL,
    profile                TEXT NOT NULL,
    signing_enabled        INTEGER NOT NULL,
    headers                TEXT NOT NULL,
    attributes             TEXT NOT NULL,
    send_organization_code INTEGER NOT NULL,
    retry_waits            TEXT NOT NULL,
    attempt_timeout_ms     INTEGER NOT NULL,
    max_in_flight          INTEGER NOT NULL,
    state                  INTEGER NOT NULL,
    state_reason           TEXT NOT NULL,
    routing_version        INTEGER NOT NULL,
    create_time            INTEGER NOT NULL,
    update_time            INTEGER NOT NULL,
    deleted                INTEGER NOT NULL
) STRICT;
CREATE INDEX subscription_organization ON subscription (organization_id, key);
CREATE INDEX subscription_version ON subscription (routing_version);

CREATE TABLE signing_secret (
    key              INTEGER PRIMARY KEY,
    subscription_key INTEGER NOT NULL,
    secret           BLOB NOT NULL,
    -- Key-encryption key and form of `secret`; version 0 is plaintext.
    secret_key_id    INTEGER NOT NULL DEFAULT 0,
    secret_version   INTEGER NOT NULL DEFAULT 0,
    create_time      INTEGER NOT NULL,
    expire_time      INTEGER NOT NULL
) STRICT;
CREATE INDEX signing_secret_subscription ON signing_secret (subscription_key);

-- Answers to requests that carried a request id, for 24 hours.
CREATE TABLE request_log (
    organization_id TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    request_hash    BLOB NOT NULL,
    response        BLOB NOT NULL,
    secret_key      INTEGER NOT NULL,
    create_time     INTEGER NOT NULL,
    PRIMARY KEY (organization_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_log_time ON request_log (create_time);

-- Ids that publishers chose, for idempotent intake.
CREATE TABLE event_key (
    organization_id TEXT NOT NULL,
    event_id        TEXT NOT NULL,
    event_key       INTEGER NOT NULL,
    content_hash    BLOB NOT NULL,
    delivery_count  INTEGER NOT NULL,
    PRIMARY KEY (organization_id, event_id)
) STRICT, WITHOUT ROWID;

-- Who must receive what: the outcome log's first half. Append-only.
CREATE TABLE event (
    key             INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL,
    account_id      TEXT NOT NULL,
    event_id        TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    occur_time      INTEGER NOT NULL,
    publish_time    INTEGER NOT NULL,
    expire_time     INTEGER NOT NULL,
    content_type    TEXT NOT NULL,
    payload_kind    INTEGER NOT NULL,
    payload_bytes   INTEGER NOT NULL,
    payload         BLOB,
    -- Key-encryption key and form of `payload`; version 0 is plaintext.
    payload_key_id  INTEGER NOT NULL DEFAULT 0,
    payload_version INTEGER NOT NULL DEFAULT 0,
    attributes      TEXT NOT NULL,
    subject         TEXT NOT NULL,
    traceparent     TEXT NOT NULL,
    tracestate      TEXT NOT NULL,
    -- Subscription keys, 8 bytes each, big-endian, ascending.
    targets         BLOB NOT NULL
) STRICT;
CREATE INDEX event_organization ON event (organization_id, key);

-- What happened: the outcome log's second half. Append-only. Ordered by
-- subscription, so that one index serves look-ups by delivery and by subscription.
CREATE TABLE attempt (
    subscription_key INTEGER NOT NULL,
    event_key        INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    result           INTEGER NOT NULL,
    http_status      INTEGER NOT NULL,
    start_time       INTEGER NOT NULL,
    duration_us      INTEGER NOT NULL,
    error            TEXT NOT NULL,
    response_body    BLOB NOT NULL,
    response_key_id  INTEGER NOT NULL DEFAULT 0,
    response_version INTEGER NOT NULL DEFAULT 0,
    trace_id         BLOB NOT NULL,
    PRIMARY KEY (subscription_key, event_key, number)
) STRICT, WITHOUT ROWID;

-- What its first attempt did not settle: retries, held, overflow, taken over.
CREATE TABLE due (
    subscription_key INTEGER NOT NULL,
    event_key        INTEGER NOT NULL,
    due_at           INTEGER NOT NULL,
    -- Incarnation that has claimed it; 0: nobody.
    owner            INTEGER NOT NULL,
    -- Counts claims; the fence within one incarnation.
    claim            INTEGER NOT NULL,
    -- Attempts recorded.
    attempts         INTEGER NOT NULL,
    -- Owners that died with it.
    takeovers        INTEGER NOT NULL,
    -- The next failure is final: asked for by RetryDelivery.
    last_chance      INTEGER NOT NULL,
    PRIMARY KEY (subscription_key, event_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX due_waiting ON due (subscription_key, due_at) WHERE owner = 0;
CREATE INDEX due_owned ON due (owner) WHERE owner <> 0;

-- Deliveries that ended without success: dead letters and cancelled ones.
CREATE TABLE undelivered (
    subscription_key INTEGER NOT NULL,
    event_key        INTEGER NOT NULL,
    organization_id  TEXT NOT NULL,
    state            INTEGER NOT NULL,
    reason           INTEGER NOT NULL,
    end_time         INTEGER NOT NULL,
    PRIMARY KEY (subscription_key, event_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX undelivered_organization ON undelivered (organization_id, event_key);
