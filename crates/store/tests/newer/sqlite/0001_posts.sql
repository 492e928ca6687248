CREATE TABLE authors (id BLOB PRIMARY KEY NOT NULL, name TEXT NOT NULL);
CREATE TABLE posts (
    id           BLOB PRIMARY KEY NOT NULL,
    author_id    BLOB REFERENCES authors (id),
    slug         TEXT NOT NULL UNIQUE,
    title        TEXT NOT NULL,
    views        INTEGER NOT NULL,
    pinned       BOOLEAN NOT NULL,
    labels       TEXT NOT NULL,
    publish_time INTEGER,
    CONSTRAINT posts_views_check CHECK (views >= 0),
    UNIQUE (author_id, title)
);
CREATE VIRTUAL TABLE posts_search USING fts5 (title, body, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0");
