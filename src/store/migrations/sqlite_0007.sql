-- Who published an event; empty: before that was kept.
ALTER TABLE event ADD COLUMN publisher TEXT NOT NULL DEFAULT '';

-- Who did what: one chain of entries for each organization, and one, without a name, for
-- the deployment. Append-only.
CREATE TABLE audit_entry (
    organization_id TEXT NOT NULL,
    -- From 1, without gaps.
    sequence        INTEGER NOT NULL,
    -- Never before that of the entry before.
    time            INTEGER NOT NULL,
    principal       TEXT NOT NULL,
    credential_id   TEXT NOT NULL,
    peer            TEXT NOT NULL,
    method          TEXT NOT NULL,
    -- JSON arrays of texts.
    object_ids      TEXT NOT NULL,
    changed_fields  TEXT NOT NULL,
    code            TEXT NOT NULL,
    reason          TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    payload_read    INTEGER NOT NULL,
    -- How many calls it stands for.
    calls           INTEGER NOT NULL,
    previous_hash   BLOB NOT NULL,
    hash            BLOB NOT NULL,
    PRIMARY KEY (organization_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_entry_time ON audit_entry (organization_id, time, sequence);

-- Where each chain has got to, and where what is left of it begins. Locked by whoever
-- appends to it, as the last thing in its transaction.
CREATE TABLE audit_head (
    organization_id TEXT PRIMARY KEY,
    sequence        INTEGER NOT NULL,
    hash            BLOB NOT NULL,
    -- Of the newest and of the oldest entry; 0: there is none.
    update_time     INTEGER NOT NULL,
    oldest_time     INTEGER NOT NULL,
    -- The last entry that was purged: zeros before the first.
    purged_sequence INTEGER NOT NULL,
    purged_hash     BLOB NOT NULL,
    purged_time     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_entry_is_not_updated BEFORE UPDATE ON audit_entry
BEGIN
    SELECT RAISE(ABORT, 'audit entries are never changed');
END;
CREATE TRIGGER audit_entry_is_not_deleted BEFORE DELETE ON audit_entry
WHEN NOT EXISTS (
    SELECT 1 FROM audit_head
    WHERE organization_id = OLD.organization_id AND OLD.sequence <= purged_sequence)
BEGIN
    SELECT RAISE(ABORT, 'audit entries are purged from the oldest, with an anchor');
END;
