-- Schema 3 of registrar.db: accounts, tickets, devices, and the orders that follow from them. The relay reads who is
-- admitted, nothing else.

CREATE TABLE accounts (
    handle      TEXT PRIMARY KEY,
    account     BLOB    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER,
    -- How many devices it may have; NULL for what the configuration says.
    devices_max INTEGER,
    -- What its devices are for: human, service or escrow.
    role        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Roots of personal accounts that hold an invitation. The account id of such an account is its root's hash.
CREATE TABLE personal (
    root        BLOB PRIMARY KEY,
    admitted_at INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

-- Other organisations whose devices the relay lets in, and which are shown the directory.
CREATE TABLE partners (
    root            BLOB PRIMARY KEY,
    domain          TEXT    NOT NULL UNIQUE,
    -- How many connections its devices may hold together.
    connections_max INTEGER NOT NULL,
    added_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Tickets by the hash of their secret. `handle` is NULL for an invitation of a personal account. `spent_by` is the key of
-- the device that redeemed it: a repeated request gets the same answer.
CREATE TABLE tickets (
    secret_hash BLOB PRIMARY KEY,
    handle      TEXT REFERENCES accounts (handle),
    expires_at  INTEGER NOT NULL,
    spent_by    BLOB,
    -- Whether a device of the account has asked for it; of those an account has one at a time.
    by_device   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What a device of a personal account has left for another one, sealed. One at a time for each account.
CREATE TABLE deposits (
    root         BLOB PRIMARY KEY REFERENCES personal (root),
    id           BLOB    NOT NULL UNIQUE,
    sealed       BLOB    NOT NULL,
    expires_at   INTEGER NOT NULL,
    collected_by BLOB
) STRICT, WITHOUT ROWID;

-- Devices of the organisation's accounts, each with its newest certificate.
CREATE TABLE devices (
    device      BLOB PRIMARY KEY,
    handle      TEXT    NOT NULL REFERENCES accounts (handle),
    label       TEXT    NOT NULL DEFAULT '',
    enrolled_at INTEGER NOT NULL,
    issued_at   INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    chain       BLOB    NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_of_account ON devices (handle);

-- What a relay of another process is told, in order. Row 0 says nothing and begins the chain of hashes, which tells this
-- database from an older copy of it that has gone on differently. Kinds: 0 admit, 1 disable, 2 enable, 3 revoke,
-- 4 admit a partner (with a number of connections), 5 end one.
CREATE TABLE orders (
    seq     INTEGER PRIMARY KEY,
    kind    INTEGER,
    subject BLOB,
    number  INTEGER NOT NULL DEFAULT 0,
    hash    BLOB NOT NULL
) STRICT;

-- The organisation's directory: what was certified and taken back, in order, each written with what it tells.
CREATE TABLE directory (
    seq   INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
) STRICT;

-- The newest checkpoint that was signed. It is written before it is shown: no later one may contradict it.
CREATE TABLE directory_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB    NOT NULL,
    note TEXT    NOT NULL
) STRICT;
