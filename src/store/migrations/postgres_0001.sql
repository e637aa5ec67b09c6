-- Keys are int8, made in the process, ascending with time. Times are int8
-- microseconds since 1970. Empty text means "none"; 0 in a time or a number does too.

CREATE TABLE setting (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- One row. Raised in the transaction of every subscription change, so that a
-- version names one state of all subscriptions.
CREATE TABLE routing_clock (
    one     int2 PRIMARY KEY CHECK (one = 1),
    version int8 NOT NULL
);
INSERT INTO routing_clock (one, version) VALUES (1, 1);

-- One row for each live process. Writes of a process whose row is gone change nothing.
CREATE TABLE replica (
    number       int2 PRIMARY KEY,
    incarnation  int8 NOT NULL UNIQUE,
    heartbeat_at int8 NOT NULL,
    -- No event of this replica with a smaller key is unsettled without a due row.
    low_key      int8 NOT NULL
);

CREATE TABLE subscription (
    key                    int8 PRIMARY KEY,
    organization_id        text NOT NULL,
    account_id             text NOT NULL,
    name                   text NOT NULL,
    url                    text NOT NULL,
    event_patterns         text NOT NULL,
    profile                text NOT NULL,
    signing_enabled        bool NOT NULL,
    headers                text NOT NULL,
    attributes             text NOT NULL,
    send_organization_code bool NOT NULL,
    retry_waits            text NOT NULL,
    attempt_timeout_ms     int4 NOT NULL,
    max_in_flight          int4 NOT NULL,
    state                  int2 NOT NULL,
    state_reason           text NOT NULL,
    routing_version        int8 NOT NULL,
    create_time            int8 NOT NULL,
    update_time            int8 NOT NULL,
    deleted                bool NOT NULL
);
CREATE INDEX subscription_organization ON subscription (organization_id, key);
CREATE INDEX subscription_version ON subscription (routing_version);

CREATE TABLE signing_secret (
    key              int8 PRIMARY KEY,
    subscription_key int8 NOT NULL,
    secret           bytea NOT NULL,
    -- Key-encryption key and form of `secret`; version 0 is plaintext.
    secret_key_id    int4 NOT NULL DEFAULT 0,
    secret_version   int2 NOT NULL DEFAULT 0,
    create_time      int8 NOT NULL,
    expire_time      int8 NOT NULL
);
CREATE INDEX signing_secret_subscription ON signing_secret (subscription_key);

-- Answers to requests that carried a request id, for 24 hours.
CREATE TABLE request_log (
    organization_id text NOT NULL,
    request_id      text NOT NULL,
    request_hash    bytea NOT NULL,
    response        bytea NOT NULL,
    secret_key      int8 NOT NULL,
    create_time     int8 NOT NULL,
    PRIMARY KEY (organization_id, request_id)
);
CREATE INDEX request_log_time ON request_log (create_time);

-- Ids that publishers chose, for idempotent intake.
CREATE TABLE event_key (
    organization_id text NOT NULL,
    event_id        text NOT NULL,
    event_key       int8 NOT NULL,
    content_hash    bytea NOT NULL,
    delivery_count  int4 NOT NULL,
    PRIMARY KEY (organization_id, event_id)
);

-- Who must receive what: the outcome log's first half. Append-only.
CREATE TABLE event (
    key             int8 NOT NULL,
    organization_id text NOT NULL,
    account_id      text NOT NULL,
    event_id        text NOT NULL,
    event_type      text NOT NULL,
    occur_time      int8 NOT NULL,
    publish_time    int8 NOT NULL,
    expire_time     int8 NOT NULL,
    content_type    text NOT NULL,
    payload_kind    int2 NOT NULL,
    payload_bytes   int4 NOT NULL,
    payload         bytea,
    -- Key-encryption key and form of `payload`; version 0 is plaintext.
    payload_key_id  int4 NOT NULL DEFAULT 0,
    payload_version int2 NOT NULL DEFAULT 0,
    attributes      text NOT NULL,
    subject         text NOT NULL,
    traceparent     text NOT NULL,
    tracestate      text NOT NULL,
    -- Subscription keys, 8 bytes each, big-endian, ascending.
    targets         bytea NOT NULL,
    PRIMARY KEY (key)
) PARTITION BY RANGE (key);
ALTER TABLE event ALTER payload SET COMPRESSION lz4;
CREATE TABLE event_default PARTITION OF event DEFAULT;
CREATE INDEX event_organization ON event (organization_id, key);

-- What happened: the outcome log's second half. Append-only. Ordered by
-- subscription, so that one index serves look-ups by delivery and by subscription.
CREATE TABLE attempt (
    subscription_key int8 NOT NULL,
    event_key        int8 NOT NULL,
    number           int2 NOT NULL,
    result           int2 NOT NULL,
    http_status      int2 NOT NULL,
    start_time       int8 NOT NULL,
    duration_us      int8 NOT NULL,
    error            text NOT NULL,
    response_body    bytea NOT NULL,
    response_key_id  int4 NOT NULL DEFAULT 0,
    response_version int2 NOT NULL DEFAULT 0,
    trace_id         bytea NOT NULL,
    PRIMARY KEY (subscription_key, event_key, number)
) PARTITION BY RANGE (event_key);
CREATE TABLE attempt_default PARTITION OF attempt DEFAULT;

-- What its first attempt did not settle: retries, held, overflow, taken over.
CREATE TABLE due (
    subscription_key int8 NOT NULL,
    event_key        int8 NOT NULL,
    due_at           int8 NOT NULL,
    -- Incarnation that has claimed it; 0: nobody.
    owner            int8 NOT NULL,
    -- Counts claims; the fence within one incarnation.
    claim            int4 NOT NULL,
    -- Attempts recorded.
    attempts         int2 NOT NULL,
    -- Owners that died with it.
    takeovers        int2 NOT NULL,
    -- The next failure is final: asked for by RetryDelivery.
    last_chance      bool NOT NULL,
    PRIMARY KEY (subscription_key, event_key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX due_waiting ON due (subscription_key, due_at) WHERE owner = 0;
CREATE INDEX due_owned ON due (owner) WHERE owner <> 0;

-- Deliveries that ended without success: dead letters and cancelled ones.
CREATE TABLE undelivered (
    subscription_key int8 NOT NULL,
    event_key        int8 NOT NULL,
    organization_id  text NOT NULL,
    state            int2 NOT NULL,
    reason           int2 NOT NULL,
    end_time         int8 NOT NULL,
    PRIMARY KEY (subscription_key, event_key)
);
CREATE INDEX undelivered_organization ON undelivered (organization_id, event_key);
