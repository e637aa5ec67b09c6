-- Who may call: API keys. A key is never deleted, so that its id keeps its meaning.
CREATE TABLE api_key (
    id            INTEGER PRIMARY KEY,
    label         TEXT NOT NULL,
    -- JSON array of organization ids; null: every organization.
    organizations TEXT NOT NULL,
    scopes        INTEGER NOT NULL,
    secret_hash   BLOB NOT NULL,
    create_time   INTEGER NOT NULL,
    -- 0: never.
    expire_time   INTEGER NOT NULL,
    revoke_time   INTEGER NOT NULL,
    last_use_time INTEGER NOT NULL
) STRICT;

-- Raised by every change of them, in its transaction.
CREATE TABLE credential_clock (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL
) STRICT;
INSERT INTO credential_clock VALUES (1, 1);
