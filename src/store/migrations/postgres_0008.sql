-- Endpoints that fail: a row from a failure to the next success, and none for the others.
CREATE TABLE failure_streak (
    subscription_key int8 PRIMARY KEY,
    -- Version of the subscription whose requests failed; with another one they start anew.
    version          int8 NOT NULL,
    -- When it began, ...
    begin_time       int8 NOT NULL,
    -- ... the same by the sending clock, and when a delivery was exhausted last.
    began_at         int8 NOT NULL,
    failed_at        int8 NOT NULL,
    -- Deliveries that have spent their attempts.
    exhausted        int4 NOT NULL,
    -- Per cent of the time at which its owner was warned last; 0: never.
    told             int2 NOT NULL
);

-- One row. Time that this deployment has spent sending: it stands still while nobody does.
CREATE TABLE sending_clock (
    one       int2 PRIMARY KEY CHECK (one = 1),
    micros    int8 NOT NULL,
    -- When it was set to that.
    looked_at int8 NOT NULL
);
INSERT INTO sending_clock (one, micros, looked_at) VALUES (1, 0, 0);

-- What the service itself has to tell, until it is published. The key makes the event's id.
CREATE TABLE operational_event (
    key             int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL,
    account_id      text NOT NULL,
    event_type      text NOT NULL,
    payload         text NOT NULL,
    occur_time      int8 NOT NULL,
    -- Until then somebody is about to publish it.
    taken_until     int8 NOT NULL DEFAULT 0
);
