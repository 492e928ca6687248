-- What people say of their work. A portfolio comes into being with its first change; entries need none.
CREATE TABLE portfolios (
    user_id     BLOB PRIMARY KEY NOT NULL,
    headline    TEXT   NOT NULL,
    markdown    TEXT   NOT NULL,
    html        TEXT   NOT NULL,
    links       TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL
);

-- Months are `2020-06`, so that they sort as text; an empty end means that it goes on.
CREATE TABLE resume_entries (
    id           BLOB PRIMARY KEY NOT NULL,
    user_id      BLOB     NOT NULL,
    kind         SMALLINT NOT NULL,                                  -- 1 work, 2 education, 3 project, 4 award
    title        TEXT     NOT NULL,
    organisation TEXT     NOT NULL,
    start_month  TEXT     NOT NULL,
    end_month    TEXT     NOT NULL,
    markdown     TEXT     NOT NULL,
    html         TEXT     NOT NULL,
    revision     BIGINT   NOT NULL,
    create_time  INTEGER NOT NULL,
    update_time  INTEGER NOT NULL,
    CONSTRAINT resume_entries_kind_check CHECK (kind IN (1, 2, 3, 4))
);
CREATE INDEX resume_entries_user_id_idx ON resume_entries (user_id, start_month, id);
