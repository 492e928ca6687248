//! The table `posts`.

use ids::{CategoryId, PostId, Timestamp, UserId};
use store::{Conn, Error, Result, Tx};

use super::split;
use crate::alias::Alias;
use crate::author::Author;
use crate::language::Language;
use crate::markdown::Rendered;
use crate::permit::Guarded;
use crate::post::{Body, Post, State};
use crate::tag;

/// What a [`Row`] is filled from, where `p` is `posts` and `a` is `authors`.
pub(super) const COLUMNS: &str = "p.id, p.author_id, a.display_name, a.suspended, p.byline, p.title, p.slug, p.markdown, p.html, p.state,
    p.publish_time, p.category_id, p.language, p.version, p.revision, p.create_time, p.update_time, p.delete_time,
    (SELECT string_agg(t.name, '\n' ORDER BY pt.position) FROM post_tags pt JOIN tags t ON t.id = pt.tag_id WHERE pt.post_id = p.id) AS tags,
    (SELECT string_agg(pa.path, '\n' ORDER BY pa.path) FROM post_aliases pa WHERE pa.post_id = p.id) AS aliases";

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: PostId,
    author_id: UserId,
    display_name: Option<String>,
    suspended: bool,
    byline: String,
    title: String,
    slug: String,
    markdown: String,
    html: String,
    state: i16,
    publish_time: Option<Timestamp>,
    category_id: Option<CategoryId>,
    language: String,
    version: i32,
    revision: i64,
    create_time: Timestamp,
    update_time: Timestamp,
    delete_time: Option<Timestamp>,
    tags: Option<String>,
    aliases: Option<String>,
}

impl TryFrom<Row> for Post {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            author: Author { id: row.author_id, display_name: row.display_name, suspended: row.suspended },
            body: Body {
                title: row.title,
                markdown: row.markdown,
                byline: row.byline,
                category: row.category_id,
                tags: split(row.tags.as_deref()).map(|name| tag::Name::from(name.to_owned())).collect(),
                language: Language::parse(&row.language),
            },
            html: row.html,
            slug: row.slug.into(),
            aliases: split(row.aliases.as_deref())
                .map(Alias::parse)
                .collect::<Result<_, _>>()
                .map_err(Error::corrupt)?,
            state: state(row.state, row.publish_time)?,
            version: row.version,
            revision: row.revision,
            create_time: row.create_time,
            update_time: row.update_time,
            delete_time: row.delete_time,
        })
    }
}

fn state(code: i16, publish_time: Option<Timestamp>) -> Result<State> {
    match (code, publish_time) {
        (1, None) => Ok(State::Draft),
        (2, Some(at)) => Ok(State::Scheduled(at)),
        (3, Some(at)) => Ok(State::Published(at)),
        _ => Err(Error::corrupt(format!("a post is in state {code} with the time {publish_time:?}"))),
    }
}

/// How the table writes a state.
pub(super) fn code(state: State) -> i16 {
    match state {
        State::Draft => 1,
        State::Scheduled(_) => 2,
        State::Published(_) => 3,
    }
}

/// The post, deleted or not.
pub async fn find(conn: &mut Conn, id: PostId) -> Result<Option<Post>> {
    let select = format!("SELECT {COLUMNS} FROM posts p JOIN authors a ON a.user_id = p.author_id WHERE p.id = $1");
    store::fetch_optional!(conn, Row, select, id).await?.map(Post::try_from).transpose()
}

/// The post, deleted or not, held until the end of the transaction.
pub async fn lock(tx: &mut Tx, id: PostId) -> Result<Option<Post>> {
    let lock = format!("SELECT revision FROM posts WHERE id = $1{}", tx.dialect().for_update());
    if store::fetch_optional!(tx, (i64,), lock, id).await?.is_none() {
        return Ok(None);
    }
    let select = format!("SELECT {COLUMNS} FROM posts p JOIN authors a ON a.user_id = p.author_id WHERE p.id = $1");
    store::fetch_optional!(tx, Row, select, id).await?.map(Post::try_from).transpose()
}

/// What the permission rules look at, without the rest; `None` for a post that is deleted.
pub async fn guarded(conn: &mut Conn, id: PostId) -> Result<Option<Guarded>> {
    let row = store::fetch_optional!(
        conn,
        (UserId, bool, i16),
        "SELECT p.author_id, a.suspended, p.state FROM posts p JOIN authors a ON a.user_id = p.author_id
         WHERE p.id = $1 AND p.delete_time IS NULL",
        id
    )
    .await?;
    Ok(row.map(|(author, author_suspended, state)| Guarded { author, author_suspended, published: state == 3 }))
}

/// Inserts a post with its statistics. Slug, tags, aliases, version and search index are written by their own modules.
pub async fn insert(tx: &mut Tx, post: &Post, rendered: &Rendered) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO posts (id, author_id, byline, title, slug, markdown, html, plain, size, state, publish_time, category_id, language,
                            version, revision, create_time, update_time, delete_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        post.id,
        post.author.id,
        &post.body.byline,
        &post.body.title,
        post.slug.as_str(),
        &post.body.markdown,
        &rendered.html,
        &rendered.plain,
        size(post, rendered),
        code(post.state),
        post.state.publish_time(),
        post.body.category,
        post.body.language.as_ref().map_or("", Language::as_str),
        post.version,
        post.revision,
        post.create_time,
        post.update_time,
        post.delete_time
    )
    .await?;
    store::execute!(tx, "INSERT INTO post_statistics (post_id) VALUES ($1)", post.id).await?;
    Ok(())
}

/// Writes a post that was changed; its text too, where that was `rendered` anew.
pub async fn update(tx: &mut Tx, post: &Post, rendered: Option<&Rendered>) -> Result<()> {
    store::execute!(
        tx,
        "UPDATE posts SET byline = $2, title = $3, slug = $4, state = $5, publish_time = $6, category_id = $7, language = $8, version = $9,
                          revision = $10, update_time = $11, delete_time = $12
         WHERE id = $1",
        post.id,
        &post.body.byline,
        &post.body.title,
        post.slug.as_str(),
        code(post.state),
        post.state.publish_time(),
        post.body.category,
        post.body.language.as_ref().map_or("", Language::as_str),
        post.version,
        post.revision,
        post.update_time,
        post.delete_time
    )
    .await?;
    if let Some(rendered) = rendered {
        store::execute!(
            tx,
            "UPDATE posts SET markdown = $2, html = $3, plain = $4, size = $5 WHERE id = $1",
            post.id,
            &post.body.markdown,
            &rendered.html,
            &rendered.plain,
            size(post, rendered)
        )
        .await?;
    }
    Ok(())
}

fn size(post: &Post, rendered: &Rendered) -> i32 {
    i32::try_from(post.body.markdown.len() + rendered.html.len()).unwrap_or(i32::MAX)
}

/// Scheduled posts whose time has come, the longest waiting first, at most `limit`.
pub async fn due(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<Vec<PostId>> {
    let rows = store::fetch_all!(
        conn,
        (PostId,),
        "SELECT id FROM posts WHERE state = 2 AND delete_time IS NULL AND publish_time <= $1 ORDER BY publish_time LIMIT $2",
        now,
        limit
    )
    .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Publishes a scheduled post whose time has come, and gives its author and new revision. `None`: another replica was faster, or
/// its schedule changed.
pub async fn publish_due(tx: &mut Tx, id: PostId, now: Timestamp) -> Result<Option<(UserId, i64)>> {
    store::fetch_optional!(
        tx,
        (UserId, i64),
        "UPDATE posts SET state = 3, revision = revision + 1, update_time = CASE WHEN update_time < $2 THEN $2 ELSE update_time END
         WHERE id = $1 AND state = 2 AND delete_time IS NULL AND publish_time <= $2
         RETURNING author_id, revision",
        id,
        now
    )
    .await
}

/// Removes posts that were deleted before `before`, with all that belongs to them, at most `limit`.
pub async fn purge(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64> {
    store::execute!(
        tx,
        // Said twice: a post that is brought back meanwhile is looked at again, but the list is not made again.
        "DELETE FROM posts WHERE delete_time < $1
         AND id IN (SELECT id FROM posts WHERE delete_time IS NOT NULL AND delete_time < $1 ORDER BY delete_time LIMIT $2)",
        before,
        limit
    )
    .await
}
