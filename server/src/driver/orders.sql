-- Schema 3 of orders.db: what a registrar of another process has told the relay. Losing it lets nobody in until the
-- registrar is connected again, which then tells everything anew.

-- How far; at most one row.
CREATE TABLE head (
    seq  INTEGER NOT NULL,
    hash BLOB    NOT NULL
) STRICT;

-- Kinds: 0 root of an admitted personal account, 1 disabled account, 2 revoked device, 3 root of another organisation, with
-- the number of connections that its devices may hold together.
CREATE TABLE subjects (
    kind    INTEGER NOT NULL,
    subject BLOB    NOT NULL,
    number  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

-- The copy of the directory, in order, and under which key its newest checkpoint is signed. It is verified when it is read.
CREATE TABLE copy (
    seq   INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
) STRICT;

CREATE TABLE copy_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    key  BLOB NOT NULL,
    note TEXT NOT NULL
) STRICT;
