-- What is known of endpoints that must consent before the first event: one row for each
-- that was asked. No row: it has not been asked. Apart from `subscription`, since checks
-- are no change of it and must not be undone by one.
CREATE TABLE ownership (
    subscription_key int8 PRIMARY KEY,
    -- SHA-256 of the rule and the URL that were asked about. Under any other nothing is
    -- proven.
    asked            bytea NOT NULL,
    state            int2 NOT NULL,
    failures         int4 NOT NULL,
    reason           text NOT NULL,
    -- When the last check ended.
    check_time       int8 NOT NULL,
    -- When the next one may begin, while it is pending.
    due_time         int8 NOT NULL,
    -- When the last one began.
    start_time       int8 NOT NULL,
    -- Incarnation that checks it now; 0: nobody.
    owner            int8 NOT NULL,
    -- Counts checks; the fence within one incarnation.
    claim            int4 NOT NULL,
    -- When the claim is free again, settled or not.
    lapse_time       int8 NOT NULL,
    -- Of the last change that routing must see.
    routing_version  int8 NOT NULL
);
CREATE INDEX ownership_version ON ownership (routing_version);
