-- Events are inserted in the transaction of the change that they tell of; the relay publishes them. `position` is the order within
-- one aggregate, whose lock its writers hold; between aggregates it means nothing, and it is no cursor: a smaller one can commit later.
CREATE TABLE outbox (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           BLOB NOT NULL UNIQUE,
    source       TEXT NOT NULL,
    topic        TEXT NOT NULL,
    key          TEXT NOT NULL,
    version      INTEGER NOT NULL,
    time         INTEGER NOT NULL,
    traceparent  TEXT,
    payload      BLOB NOT NULL,
    publish_time INTEGER
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE publish_time IS NULL;
CREATE INDEX outbox_publish_time ON outbox (publish_time);
CREATE INDEX outbox_time ON outbox (time);

-- The events that a consumer has taken, inserted in the transaction of their effect.
CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id BLOB NOT NULL,
    time     INTEGER NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_time ON inbox (time);

-- The events that a consumer gave up on.
CREATE TABLE dead_letter (
    id          BLOB PRIMARY KEY,
    consumer    TEXT NOT NULL,
    event_id    BLOB NOT NULL,
    source      TEXT NOT NULL,
    topic       TEXT NOT NULL,
    key         TEXT NOT NULL,
    version     INTEGER NOT NULL,
    time        INTEGER NOT NULL,
    traceparent TEXT,
    payload     BLOB NOT NULL,
    reason      TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    UNIQUE (consumer, event_id)
);
CREATE INDEX dead_letter_create_time ON dead_letter (create_time, id);

-- Who of several replicas does what only one may do; `expires` is the database's own time, in microseconds since the epoch, and
-- `opening` tells the process that held it from a later one.
CREATE TABLE lease (
    name    TEXT PRIMARY KEY,
    holder  BLOB NOT NULL,
    expires INTEGER NOT NULL,
    opening BLOB NOT NULL
);
