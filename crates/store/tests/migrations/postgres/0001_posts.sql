CREATE TABLE authors (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE posts (
    id           uuid PRIMARY KEY,
    author_id    uuid REFERENCES authors (id),
    slug         text COLLATE "C" NOT NULL UNIQUE,
    title        text NOT NULL,
    views        bigint NOT NULL,
    pinned       boolean NOT NULL,
    labels       jsonb NOT NULL,
    publish_time timestamptz,
    CONSTRAINT posts_views_check CHECK (views >= 0),
    UNIQUE (author_id, title)
);
CREATE TABLE posts_search (rowid bigint PRIMARY KEY, document tsvector NOT NULL);
