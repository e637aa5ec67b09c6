-- Who published an event; empty: before that was kept.
ALTER TABLE event ADD COLUMN publisher text NOT NULL DEFAULT '';

-- Who did what: one chain of entries for each organization, and one, without a name, for
-- the deployment. Append-only.
CREATE TABLE audit_entry (
    organization_id text NOT NULL,
    -- From 1, without gaps.
    sequence        int8 NOT NULL,
    -- Never before that of the entry before.
    time            int8 NOT NULL,
    principal       text NOT NULL,
    credential_id   text NOT NULL,
    peer            text NOT NULL,
    method          text NOT NULL,
    -- JSON arrays of texts.
    object_ids      text NOT NULL,
    changed_fields  text NOT NULL,
    code            text NOT NULL,
    reason          text NOT NULL,
    request_id      text NOT NULL,
    payload_read    bool NOT NULL,
    -- How many calls it stands for.
    calls           int8 NOT NULL,
    previous_hash   bytea NOT NULL,
    hash            bytea NOT NULL,
    PRIMARY KEY (organization_id, sequence)
);
CREATE INDEX audit_entry_time ON audit_entry (organization_id, time, sequence);

-- Where each chain has got to, and where what is left of it begins. Locked by whoever
-- appends to it, as the last thing in its transaction.
CREATE TABLE audit_head (
    organization_id text PRIMARY KEY,
    sequence        int8 NOT NULL,
    hash            bytea NOT NULL,
    -- Of the newest and of the oldest entry; 0: there is none.
    update_time     int8 NOT NULL,
    oldest_time     int8 NOT NULL,
    -- The last entry that was purged: zeros before the first.
    purged_sequence int8 NOT NULL,
    purged_hash     bytea NOT NULL,
    purged_time     int8 NOT NULL
) WITH (fillfactor = 50);

CREATE FUNCTION audit_entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (
            SELECT 1 FROM audit_head
            WHERE organization_id = OLD.organization_id AND OLD.sequence <= purged_sequence)
        THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit entries are not changed, and purged from the oldest, with an anchor';
END
$$;
CREATE TRIGGER audit_entry_stays BEFORE UPDATE OR DELETE ON audit_entry
    FOR EACH ROW EXECUTE FUNCTION audit_entry_stays();
CREATE TRIGGER audit_entry_is_not_truncated BEFORE TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_stays();
