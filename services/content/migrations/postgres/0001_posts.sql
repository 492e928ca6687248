-- Posts and what belongs to them. Text that is compared or ordered is COLLATE "C", so that both databases order alike.

-- What content knows of people: the name under their posts, and whether they are shut out. Filled from auth; `*_version` is the
-- version of the event that a column was last set by, so that a replayed older event changes nothing.
CREATE TABLE authors (
    user_id       uuid PRIMARY KEY,
    display_name  text,                               -- null until auth was asked
    suspended     boolean NOT NULL DEFAULT false,
    name_version  bigint  NOT NULL DEFAULT 0,
    state_version bigint  NOT NULL DEFAULT 0
);
CREATE INDEX authors_unnamed_idx ON authors (user_id) WHERE display_name IS NULL;

-- A tree: at most 1,000 categories, at most 8 deep.
CREATE TABLE categories (
    id          uuid PRIMARY KEY,
    parent_id   uuid REFERENCES categories (id),
    name        text    NOT NULL,
    slug        text    COLLATE "C" NOT NULL,
    description text    NOT NULL,
    revision    bigint  NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT categories_slug_key UNIQUE (slug)
);
CREATE INDEX categories_parent_id_idx ON categories (parent_id);

-- One row: whoever changes the tree holds it, so that two changes that are right alone do not make a circle together.
CREATE TABLE category_tree (
    id       smallint PRIMARY KEY,
    revision bigint NOT NULL,
    CONSTRAINT category_tree_id_check CHECK (id = 1)
);
INSERT INTO category_tree (id, revision) VALUES (1, 0);

-- `key` is the name as it is compared: NFKC, lower case, single spaces.
CREATE TABLE tags (
    id          uuid PRIMARY KEY,
    name        text   NOT NULL,
    key         text   COLLATE "C" NOT NULL,
    revision    bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT tags_key_key UNIQUE (key)
);

CREATE TABLE posts (
    id           uuid PRIMARY KEY,
    author_id    uuid     NOT NULL REFERENCES authors (user_id),
    byline       text     NOT NULL,
    title        text     NOT NULL,
    slug         text     COLLATE "C" NOT NULL,
    markdown     text     NOT NULL,
    html         text     NOT NULL,                   -- rendered from markdown once, when it was written
    plain        text     NOT NULL,                   -- the same without markup: snippets are cut from it
    size         integer  NOT NULL,                   -- bytes of markdown and html: pages are cut by it
    state        smallint NOT NULL,                   -- 1 draft, 2 scheduled, 3 published
    publish_time timestamptz,
    category_id  uuid     REFERENCES categories (id),
    language     text     COLLATE "C" NOT NULL,
    version      integer  NOT NULL,                   -- counts edits
    revision     bigint   NOT NULL,                   -- counts changes of any kind: the etag, and the version of events
    create_time  timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    delete_time  timestamptz,
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
    slug    text COLLATE "C" PRIMARY KEY,
    post_id uuid NOT NULL REFERENCES posts (id) ON DELETE CASCADE
);
CREATE INDEX post_slugs_post_id_idx ON post_slugs (post_id);

CREATE TABLE post_aliases (
    path    text COLLATE "C" PRIMARY KEY,
    post_id uuid NOT NULL REFERENCES posts (id) ON DELETE CASCADE
);
CREATE INDEX post_aliases_post_id_idx ON post_aliases (post_id);

-- Where an imported post came from, and the SHA-256 of what came.
CREATE TABLE post_sources (
    source_id text  COLLATE "C" PRIMARY KEY,
    post_id   uuid  NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    hash      bytea NOT NULL
);
CREATE INDEX post_sources_post_id_idx ON post_sources (post_id);

CREATE TABLE post_tags (
    post_id  uuid    NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    tag_id   uuid    NOT NULL REFERENCES tags (id),
    position integer NOT NULL,                        -- tags keep the order in which they were given
    PRIMARY KEY (post_id, tag_id)
);
CREATE INDEX post_tags_tag_id_idx ON post_tags (tag_id, post_id);

-- What each edit wrote. Tags and category are kept as they were, whatever became of them since.
CREATE TABLE post_versions (
    post_id     uuid    NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    version     integer NOT NULL,
    editor_id   uuid    NOT NULL,
    title       text    NOT NULL,
    markdown    text    NOT NULL,
    tags        jsonb   NOT NULL,
    category_id uuid,
    byline      text    NOT NULL,
    language    text    NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (post_id, version)
);

CREATE TABLE post_likes (
    post_id     uuid NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (post_id, user_id)
);

-- Apart from posts: counting must neither rewrite a post nor wait for its editors.
CREATE TABLE post_statistics (
    post_id uuid PRIMARY KEY REFERENCES posts (id) ON DELETE CASCADE,
    views   bigint NOT NULL DEFAULT 0,
    likes   bigint NOT NULL DEFAULT 0
);

-- The search index. A post has several rows, which overlap: a tsvector keeps neither a position above 16,383 nor more than 255
-- positions of one lexeme, and without positions phrases (so every word of Korean) would not be found deep in a long post.
CREATE TABLE search_chunks (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    post_id uuid NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    title   boolean NOT NULL                          -- the title has a row of its own, and is worth more
);
CREATE INDEX search_chunks_post_id_idx ON search_chunks (post_id);
CREATE TABLE search_index (
    rowid    bigint PRIMARY KEY REFERENCES search_chunks (id) ON DELETE CASCADE,
    document tsvector NOT NULL
);
CREATE INDEX search_index_document_idx ON search_index USING gin (document);
