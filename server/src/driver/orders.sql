-- Schema 2 of orders.db: what a registrar of another process has told the relay. Losing it lets nobody in until the
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
