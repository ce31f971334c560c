-- Schema 3 of relay.db: what a relay keeps. `user_version` carries the number; a newer one is refused.
--
-- The relay keeps no roster (spec/relay.md): a row that ties a device or an account to a moment carries no group. The tables from
-- `devices` on have no group column, and their times are rounded down to the hour, so that they do not join the entries
-- by their moment either.

-- `first_seq` is the first entry that is left. `founder` tells groups that a personal account founded from others, by a keyed
-- hash; the key is not in the database.
CREATE TABLE groups (
    group_no      INTEGER PRIMARY KEY,
    group_id      BLOB    NOT NULL UNIQUE,
    head_seq      INTEGER NOT NULL,
    head_hash     BLOB    NOT NULL,
    received_at   INTEGER NOT NULL,
    newest_commit INTEGER NOT NULL,
    first_seq     INTEGER NOT NULL,
    founder       BLOB    NOT NULL
) STRICT;

-- Access tokens by their hash, oldest first: the token with which the commit was appended that began the epoch, the heads
-- at that commit and at the last one that was made with this token. `committer` and `committer_kind` are keyed hashes,
-- too; they go when the token is confirmed or gets a deadline. No `ends_at`: no deadline.
CREATE TABLE tokens (
    token_no         INTEGER PRIMARY KEY,
    group_no         INTEGER NOT NULL,
    hash             BLOB    NOT NULL,
    parent           BLOB,
    made_seq         INTEGER NOT NULL,
    made_hash        BLOB    NOT NULL,
    last_commit_seq  INTEGER,
    last_commit_hash BLOB,
    committer        BLOB,
    committer_kind   BLOB,
    ends_at          INTEGER,
    UNIQUE (group_no, hash)
) STRICT;
CREATE INDEX tokens_by_group ON tokens (group_no);

-- Entries in the order of their arrival, all groups together, so that appends are sequential on disk. The durable
-- (group_no, seq) index is what costs at hundreds of thousands of appends a second; at what one SQLite file serves with
-- a few thousand groups it does not limit, and it needs no rebuilding at start. A packed index in memory would replace
-- it without a change of this table.
CREATE TABLE entries (
    entry_no    INTEGER PRIMARY KEY,
    group_no    INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    UNIQUE (group_no, seq)
) STRICT;

-- Answers to appends, by append id; they outlive their entries, so that a late retry gets the answer of the first try.
CREATE TABLE append_ids (
    append_no   INTEGER PRIMARY KEY,
    append_id   BLOB    NOT NULL UNIQUE,
    seq         INTEGER NOT NULL,
    head_hash   BLOB    NOT NULL,
    received_at INTEGER NOT NULL
) STRICT;

-- Devices that ever published a KeyPackage, with their last-resort one.
CREATE TABLE devices (
    device      BLOB PRIMARY KEY,
    account     BLOB NOT NULL,
    last_resort BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_account ON devices (account);

-- Single-use KeyPackages, oldest first.
CREATE TABLE packages (
    package_no INTEGER PRIMARY KEY,
    device     BLOB NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    body       BLOB NOT NULL
) STRICT;
CREATE INDEX packages_by_device ON packages (device);

-- KeyPackages that were taken and not used yet: to answer a repeated request, and to check Welcomes.
CREATE TABLE takes (
    take_no   INTEGER PRIMARY KEY,
    requester BLOB    NOT NULL,
    request   BLOB    NOT NULL,
    device    BLOB    NOT NULL,
    hash      BLOB    NOT NULL,
    body      BLOB    NOT NULL,
    taken_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX takes_by_request ON takes (requester, request);
CREATE INDEX takes_by_package ON takes (requester, hash);

-- Single-use KeyPackages that were handed out: a publication that is repeated late does not bring them back.
CREATE TABLE spent (
    hash     BLOB PRIMARY KEY,
    spent_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- KeyPackages that one account took from another on one UTC day, for the limit.
CREATE TABLE take_counts (
    requester BLOB    NOT NULL,
    account   BLOB    NOT NULL,
    day       INTEGER NOT NULL,
    packages  INTEGER NOT NULL,
    PRIMARY KEY (requester, account, day)
) STRICT, WITHOUT ROWID;

-- Welcomes that wait for a device. Ids are never used twice: a client remembers the last one that it has read.
CREATE TABLE mail (
    mail_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    device     BLOB    NOT NULL,
    body       BLOB    NOT NULL,
    arrived_at INTEGER NOT NULL
) STRICT;
CREATE INDEX mail_by_device ON mail (device);
