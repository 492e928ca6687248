-- Events are inserted in the transaction of the change that they tell of; the relay publishes them. `position` is the order within
-- one aggregate, whose lock its writers hold; between aggregates it means nothing, and it is no cursor: a smaller one can commit later.
CREATE TABLE outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid NOT NULL UNIQUE,
    source       text COLLATE "C" NOT NULL,
    topic        text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    version      bigint NOT NULL,
    time         timestamptz NOT NULL,
    traceparent  text,
    payload      bytea NOT NULL,
    publish_time timestamptz
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE publish_time IS NULL;
CREATE INDEX outbox_publish_time ON outbox (publish_time);
CREATE INDEX outbox_time ON outbox (time);

-- The events that a consumer has taken, inserted in the transaction of their effect.
CREATE TABLE inbox (
    consumer text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    time     timestamptz NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_time ON inbox (time);

-- The events that a consumer gave up on.
CREATE TABLE dead_letter (
    id          uuid PRIMARY KEY,
    consumer    text COLLATE "C" NOT NULL,
    event_id    uuid NOT NULL,
    source      text COLLATE "C" NOT NULL,
    topic       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    time        timestamptz NOT NULL,
    traceparent text,
    payload     bytea NOT NULL,
    reason      text NOT NULL,
    attempts    bigint NOT NULL,
    create_time timestamptz NOT NULL,
    UNIQUE (consumer, event_id)
);
CREATE INDEX dead_letter_create_time ON dead_letter (create_time, id);

-- Who of several replicas does what only one may do; `expires` is the database's own time, in microseconds since the epoch, and
-- `opening` tells the process that held it from a later one.
CREATE TABLE lease (
    name    text COLLATE "C" PRIMARY KEY,
    holder  uuid NOT NULL,
    expires bigint NOT NULL,
    opening uuid NOT NULL
);
