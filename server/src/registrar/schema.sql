-- Schema 1 of registrar.db: accounts, tickets and what was issued for them. The relay reads who is admitted, nothing else.

CREATE TABLE accounts (
    handle      TEXT PRIMARY KEY,
    account     BLOB    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

-- Roots of personal accounts that hold an invitation. The account id of such an account is its root's hash.
CREATE TABLE personal (
    root        BLOB PRIMARY KEY,
    admitted_at INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

-- Tickets by the hash of their secret. `handle` is NULL for an invitation of a personal account.
CREATE TABLE tickets (
    secret_hash BLOB PRIMARY KEY,
    handle      TEXT REFERENCES accounts (handle),
    expires_at  INTEGER NOT NULL,
    spent_by    BLOB
) STRICT, WITHOUT ROWID;

-- Certificates that were issued, by the ticket that they were issued for: a repeated request gets the same one.
CREATE TABLE certificates (
    secret_hash BLOB PRIMARY KEY REFERENCES tickets (secret_hash),
    device_key  BLOB    NOT NULL,
    issued_at   INTEGER NOT NULL,
    chain       BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
