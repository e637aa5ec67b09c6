-- How much of an event the receiver gets: 1 all of it, 2 its id, 3 all but what is masked.
ALTER TABLE subscription ADD COLUMN payload_mode INTEGER NOT NULL DEFAULT 1;
-- JSON array of the pointers (RFC 6901) to what is masked.
ALTER TABLE subscription ADD COLUMN masked_pointers TEXT NOT NULL DEFAULT '';

-- When the payload was purged, with the attributes, the subject and what receivers
-- answered; 0: not yet.
ALTER TABLE event ADD COLUMN purge_time INTEGER NOT NULL DEFAULT 0;

-- How long things are kept, and how far the purges have come. The row without an
-- organization is for all that have none of their own; 0 seconds mean the same as there.
CREATE TABLE retention (
    organization_id  TEXT PRIMARY KEY,
    payload_seconds  INTEGER NOT NULL,
    metadata_seconds INTEGER NOT NULL,
    -- Every event up to this key is purged, or in retention_visit.
    payload_key      INTEGER NOT NULL,
    metadata_key     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO retention (organization_id, payload_seconds, metadata_seconds, payload_key, metadata_key)
VALUES ('', 604800, 7776000, 0, 0);

-- Events that a purge has passed and left, since they were not over for long enough.
CREATE TABLE retention_visit (
    -- 1: payloads, 2: metadata.
    stage           INTEGER NOT NULL,
    event_key       INTEGER NOT NULL,
    organization_id TEXT NOT NULL,
    -- From when on the time counts for which they are kept.
    since           INTEGER NOT NULL,
    PRIMARY KEY (stage, event_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX retention_visit_since ON retention_visit (stage, organization_id, since);
