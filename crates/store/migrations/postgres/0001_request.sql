-- What was answered to a call that carried an idempotency key. `answer` is empty while its transaction is open: the row is inserted
-- first, so that a second call with the same key waits for the first.
CREATE TABLE request (
    subject     text COLLATE "C" NOT NULL,
    method      text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    hash        bytea NOT NULL,
    answer      bytea,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (subject, method, key)
);
CREATE INDEX request_create_time ON request (create_time);
