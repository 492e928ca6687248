-- Posts and what belongs to them. Times are microseconds since the epoch; ids are 16 bytes.

-- What content knows of people: the name under their posts, and whether they are shut out. Filled from auth; `*_version` is the
-- version of the event that a column was last set by, so that a replayed older event changes nothing.
CREATE TABLE authors (
    user_id       BLOB PRIMARY KEY NOT NULL,
    display_name  TEXT,                               -- null until auth was asked
    suspended     BOOLEAN NOT NULL DEFAULT 0,
    name_version  BIGINT  NOT NULL DEFAULT 0,
    state_version BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX authors_unnamed_idx ON authors (user_id) WHERE display_name IS NULL;

-- A tree: at most 1,000 categories, at most 8 deep.
CREATE TABLE categories (
    id          BLOB PRIMARY KEY NOT NULL,
    parent_id   BLOB REFERENCES categories (id),
    name        TEXT    NOT NULL,
    slug        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    revision    BIGINT  NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    CONSTRAINT categories_slug_key UNIQUE (slug)
);
CREATE INDEX categories_parent_id_idx ON categories (parent_id);

-- One row: whoever changes the tree holds it, so that two changes that are right alone do not make a circle together.
CREATE TABLE category_tree (
    id       SMALLINT PRIMARY KEY NOT NULL,
    revision BIGINT NOT NULL,
    CONSTRAINT category_tree_id_check CHECK (id = 1)
);
INSERT INTO category_tree (id, revision) VALUES (1, 0);

-- `key` is the name as it is compared: NFKC, lower case, single spaces.
CREATE TABLE tags (
    id          BLOB PRIMARY KEY NOT NULL,
    name        TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    CONSTRAINT tags_key_key UNIQUE (key)
);

CREATE TABLE posts (
    id           BLOB PRIMARY KEY NOT NULL,
    author_id    BLOB     NOT NULL REFERENCES authors (user_id),
    byline       TEXT     NOT NULL,
    title        TEXT     NOT NULL,
    slug         TEXT     NOT NULL,
    markdown     TEXT     NOT NULL,
    html         TEXT     NOT NULL,                   -- rendered from markdown once, when it was written
    plain        TEXT     NOT NULL,                   -- the same without markup: snippets are cut from it
    size         INTEGER  NOT NULL,                   -- bytes of markdown and html: pages are cut by it
    state        SMALLINT NOT NULL,                   -- 1 draft, 2 scheduled, 3 published
    publish_time INTEGER,
    category_id  BLOB     REFERENCES categories (id),
    language     TEXT     NOT NULL,
    version      INTEGER  NOT NULL,                   -- counts edits
    revision     BIGINT   NOT NULL,                   -- counts changes of any kind: the etag, and the version of events
    create_time  INTEGER NOT NULL,
    update_time  INTEGER NOT NULL,
    delete_time  INTEGER,
    CONSTRAINT posts_state_check CHECK (state IN (1, 2, 3)),
    CONSTRAINT posts_publish_time_check CHECK ((state = 1) = (publish_time IS NULL))
);
CREATE INDEX posts_published_idx ON posts (publish_time, id) WHERE state = 3 AND delete_time IS NULL;
CREATE INDEX posts_due_idx ON posts (publish_time) WHERE state = 2 AND delete_time IS NULL;
CREATE INDEX posts_created_idx ON posts (state, create_time, id) WHERE delete_time IS NULL;
CREATE INDEX posts_updated_idx ON posts (state, update_time, id) WHERE delete_time IS NULL;
CREATE INDEX posts_author_id_idx ON posts (author_id, state, create_time, id);
CREATE INDEX posts_category_id_idx ON posts (category_id, publish_time, id);
CREATE INDEX posts_deleted_idx ON posts (delete_time) WHERE delete_time IS NOT NULL;

-- Every slug that a post has or had: a former one keeps leading to it.
CREATE TABLE post_slugs (
    slug    TEXT PRIMARY KEY NOT NULL,
    post_id BLOB NOT NULL REFERENCES posts (id) ON DELETE CASCADE
);
CREATE INDEX post_slugs_post_id_idx ON post_slugs (post_id);

CREATE TABLE post_aliases (
    path    TEXT PRIMARY KEY NOT NULL,
    post_id BLOB NOT NULL REFERENCES posts (id) ON DELETE CASCADE
);
CREATE INDEX post_aliases_post_id_idx ON post_aliases (post_id);

-- Where an imported post came from, and the SHA-256 of what came.
CREATE TABLE post_sources (
    source_id TEXT PRIMARY KEY NOT NULL,
    post_id   BLOB NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    hash      BLOB NOT NULL
);
CREATE INDEX post_sources_post_id_idx ON post_sources (post_id);

CREATE TABLE post_tags (
    post_id  BLOB    NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    tag_id   BLOB    NOT NULL REFERENCES tags (id),
    position INTEGER NOT NULL,                        -- tags keep the order in which they were given
    PRIMARY KEY (post_id, tag_id)
);
CREATE INDEX post_tags_tag_id_idx ON post_tags (tag_id, post_id);

-- What each edit wrote. Tags and category are kept as they were, whatever became of them since.
CREATE TABLE post_versions (
    post_id     BLOB    NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    editor_id   BLOB    NOT NULL,
    title       TEXT    NOT NULL,
    markdown    TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    category_id BLOB,
    byline      TEXT    NOT NULL,
    language    TEXT    NOT NULL,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (post_id, version)
);

CREATE TABLE post_likes (
    post_id     BLOB NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    user_id     BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (post_id, user_id)
);

-- Apart from posts: counting must neither rewrite a post nor wait for its editors.
CREATE TABLE post_statistics (
    post_id BLOB PRIMARY KEY NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    views   BIGINT NOT NULL DEFAULT 0,
    likes   BIGINT NOT NULL DEFAULT 0
);

-- The search index. A post has several rows, which overlap, as on PostgreSQL. `search_index` holds their tokens under the
-- same id; it keeps no copy of the text, and its tokens were made by us (words, and bigrams of Korean, Chinese, Japanese).
CREATE TABLE search_chunks (
    id      INTEGER PRIMARY KEY NOT NULL,
    post_id BLOB NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    title   BOOLEAN NOT NULL                          -- the title has a row of its own, and is worth more
);
CREATE INDEX search_chunks_post_id_idx ON search_chunks (post_id);
CREATE VIRTUAL TABLE search_index USING fts5 (title, body, content = '', contentless_delete = 1, tokenize = "unicode61 remove_diacritics 0");
CREATE TRIGGER search_chunks_delete AFTER DELETE ON search_chunks BEGIN
    DELETE FROM search_index WHERE rowid = old.id;
END;
