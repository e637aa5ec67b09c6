-- Who may call: API keys. A key is never deleted, so that its id keeps its meaning.
CREATE TABLE api_key (
    id            int8 PRIMARY KEY,
    label         text NOT NULL,
    -- JSON array of organization ids; null: every organization.
    organizations text NOT NULL,
    scopes        int4 NOT NULL,
    secret_hash   bytea NOT NULL,
    create_time   int8 NOT NULL,
    -- 0: never.
    expire_time   int8 NOT NULL,
    revoke_time   int8 NOT NULL,
    last_use_time int8 NOT NULL
);

-- Raised by every change of them, in its transaction.
CREATE TABLE credential_clock (
    only_row int4 PRIMARY KEY CHECK (only_row = 1),
    version  int8 NOT NULL
);
INSERT INTO credential_clock VALUES (1, 1);
