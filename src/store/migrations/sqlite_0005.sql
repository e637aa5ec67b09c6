-- Keys that values are encrypted with, one or more an organization.
CREATE TABLE data_key (
    id              INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL,
    -- The key-encryption key that it is wrapped by, and the wrapped key. Both are empty
    -- once it is destroyed; the row stays, so that its number keeps its meaning.
    kek_id          TEXT NOT NULL,
    wrapped         BLOB NOT NULL,
    -- Whether it encrypts what is new.
    is_current      INTEGER NOT NULL,
    -- Version of the routing clock at which it was destroyed; 0 before.
    routing_version INTEGER NOT NULL,
    create_time     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX data_key_current ON data_key (organization_id) WHERE is_current;
CREATE INDEX data_key_organization ON data_key (organization_id);
CREATE INDEX data_key_destroyed ON data_key (routing_version) WHERE routing_version <> 0;

-- What the columns `*_key_id` and `*_version` mean: the data key (0: none), and the form
-- of the value (0: plaintext, 1: sealed). See docs/decisions/0021-encryption-at-rest.md.
ALTER TABLE subscription ADD COLUMN headers_key_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscription ADD COLUMN headers_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request_log ADD COLUMN response_key_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request_log ADD COLUMN response_version INTEGER NOT NULL DEFAULT 0;
-- The data key that `content_hash` is a digest under; 0: a plain hash.
ALTER TABLE event_key ADD COLUMN hash_key_id INTEGER NOT NULL DEFAULT 0;
