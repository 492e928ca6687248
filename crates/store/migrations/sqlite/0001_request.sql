-- What was answered to a call that carried an idempotency key. `answer` is empty while its transaction is open: the row is inserted
-- first, so that a second call with the same key waits for the first.
CREATE TABLE request (
    subject     TEXT NOT NULL,
    method      TEXT NOT NULL,
    key         TEXT NOT NULL,
    hash        BLOB NOT NULL,
    answer      BLOB,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (subject, method, key)
);
CREATE INDEX request_create_time ON request (create_time);
