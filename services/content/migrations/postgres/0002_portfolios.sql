-- What people say of their work. A portfolio comes into being with its first change; entries need none.
CREATE TABLE portfolios (
    user_id     uuid PRIMARY KEY,
    headline    text   NOT NULL,
    markdown    text   NOT NULL,
    html        text   NOT NULL,
    links       jsonb  NOT NULL,
    revision    bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);

-- Months are `2020-06`, so that they sort as text; an empty end means that it goes on.
CREATE TABLE resume_entries (
    id           uuid PRIMARY KEY,
    user_id      uuid     NOT NULL,
    kind         smallint NOT NULL,                                  -- 1 work, 2 education, 3 project, 4 award
    title        text     NOT NULL,
    organisation text     NOT NULL,
    start_month  text     COLLATE "C" NOT NULL,
    end_month    text     COLLATE "C" NOT NULL,
    markdown     text     NOT NULL,
    html         text     NOT NULL,
    revision     bigint   NOT NULL,
    create_time  timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    CONSTRAINT resume_entries_kind_check CHECK (kind IN (1, 2, 3, 4))
);
CREATE INDEX resume_entries_user_id_idx ON resume_entries (user_id, start_month, id);
