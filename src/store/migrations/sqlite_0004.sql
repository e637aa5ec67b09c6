-- Certificates of a subscription towards its receiver. No row: the deployment's usual.
CREATE TABLE subscription_tls (
    subscription_key INTEGER PRIMARY KEY,
    -- PEM, the client's first; empty: none is shown.
    certificate      TEXT NOT NULL,
    -- Its private key, in PEM; empty where there is none.
    secret           BLOB NOT NULL,
    -- Data key and form of `secret`; version 0 is plaintext.
    secret_key_id    INTEGER NOT NULL DEFAULT 0,
    secret_version   INTEGER NOT NULL DEFAULT 0,
    -- PEM of the only authorities that are trusted; empty: the deployment's.
    authorities      TEXT NOT NULL
) STRICT;
