//! The tables `tags` and `post_tags`.

use std::collections::HashMap;
use std::iter;

use ids::{PostId, Source, TagId};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use status::{Problem, Reason};
use store::dialect::id_list;
use store::{Conn, OnConstraint as _, Tx};

use super::revision;
use crate::error::{Error, Result};
use crate::revision::Revision;
use crate::tag::{Name, Tag};

/// How often tags are claimed anew that are renamed or merged at that very moment.
const ATTEMPTS: usize = 3;

/// Gives a post exactly these tags, in this order, and their names as they are shown. Tags that do not exist come into being.
pub async fn set(tx: &mut Tx, post: PostId, names: &[Name], source: &Source) -> Result<Vec<Name>> {
    let keyed: Vec<(String, &Name)> = names.iter().map(|name| (name.key(), name)).collect();
    let mut claimed = claim(tx, keyed.clone(), source).await?;
    let tags: Vec<(TagId, Name)> = keyed.iter().filter_map(|(key, _)| claimed.remove(key)).collect();
    store::execute!(tx, "DELETE FROM post_tags WHERE post_id = $1", post).await?;
    let places: Vec<(i32, TagId)> = (0..).zip(tags.iter().map(|(id, _)| *id)).collect();
    store::insert_all!(
        tx,
        "INSERT INTO post_tags (post_id, tag_id, position)",
        places,
        |place| (post, place.1, place.0),
        "ON CONFLICT DO NOTHING"
    )
    .await?;
    Ok(tags.into_iter().map(|(_, name)| name).collect())
}

/// The ids and names of these tags, by key. They stay, under this name, until the end of the transaction.
async fn claim(
    tx: &mut Tx,
    mut keyed: Vec<(String, &Name)>,
    source: &Source,
) -> Result<HashMap<String, (TagId, Name)>> {
    // In the order of keys, so that two writers of the same tags never wait for each other in a circle.
    keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    keyed.dedup_by(|a, b| a.0 == b.0);
    let keys: Vec<String> = keyed.iter().map(|(key, _)| key.clone()).collect();
    let now = source.now();
    for _ in 0..ATTEMPTS {
        store::insert_all!(
            tx,
            "INSERT INTO tags (id, name, key, revision, create_time, update_time)",
            keyed.clone(),
            |tag| (source.id::<TagId>(), tag.1.as_str(), tag.0, 1_i64, now, now),
            "ON CONFLICT DO NOTHING"
        )
        .await?;
        let dialect = tx.dialect();
        let select = format!(
            "SELECT key, id, name FROM tags WHERE key IN {} ORDER BY key{}",
            dialect.text_list(1),
            dialect.for_key_share()
        );
        let rows = store::fetch_all!(tx, (String, TagId, String), select, Json(&keys)).await?;
        if rows.len() == keys.len() {
            return Ok(rows.into_iter().map(|(key, id, name)| (key, (id, name.into()))).collect());
        }
    }
    Err(Problem::new(Reason::Unavailable).message("The post's tags are being changed").into())
}

#[derive(sqlx::FromRow)]
struct Row {
    id: TagId,
    name: String,
    posts: i64,
    #[sqlx(flatten)]
    revision: revision::Row,
}

impl From<Row> for Tag {
    fn from(row: Row) -> Self {
        Self { id: row.id, name: row.name.into(), posts: row.posts, revision: row.revision.into() }
    }
}

/// The posts that everybody may read, to be put behind the tags `t` that they carry.
const READABLE_POSTS: &str = "JOIN post_tags pt ON pt.tag_id = t.id
    JOIN posts p ON p.id = pt.post_id AND p.state = 3 AND p.delete_time IS NULL
    JOIN authors a ON a.user_id = p.author_id AND NOT a.suspended";

/// Where a page ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cursor {
    posts: i64,
    key: String,
}

impl Cursor {
    /// The cursor behind this tag.
    pub fn behind(tag: &Tag) -> Self {
        Self { posts: tag.posts, key: tag.name.key() }
    }
}

/// Tags behind `after` that posts carry which everybody may read, the most used first, at most `limit`.
pub async fn list(conn: &mut Conn, after: Option<&Cursor>, limit: i64) -> Result<Vec<Tag>> {
    let select = format!(
        "SELECT t.id, t.name, COUNT(*) AS posts, t.revision, t.create_time, t.update_time FROM tags t {READABLE_POSTS}
         GROUP BY t.id HAVING $1 IS NULL OR COUNT(*) < $1 OR (COUNT(*) = $1 AND t.key > $2)
         ORDER BY COUNT(*) DESC, t.key LIMIT $3"
    );
    let rows = store::fetch_all!(
        conn,
        Row,
        select,
        after.map(|after| after.posts),
        after.map(|after| after.key.as_str()),
        limit
    )
    .await?;
    Ok(rows.into_iter().map(Tag::from).collect())
}

/// Holds the posts that carry a tag, deleted or not, then the tag itself and the one that it is merged into.
pub async fn lock(tx: &mut Tx, id: TagId, target: Option<TagId>) -> Result<()> {
    // Posts first and in the order of ids, as their editors lock them, then the tag, so that no further post takes it.
    let (lock, ids) = (tx.dialect().for_update(), tx.dialect().id_list(1));
    let posts = format!(
        "SELECT COUNT(*) FROM (
             SELECT id FROM posts WHERE id IN (SELECT post_id FROM post_tags WHERE tag_id = $1) ORDER BY id{lock}
         ) locked"
    );
    store::fetch_scalar!(tx, i64, posts, id).await?;
    let tags = format!("SELECT id FROM tags WHERE id IN {ids} ORDER BY id{lock}");
    store::fetch_all!(tx, (TagId,), tags, id_list(iter::once(id).chain(target))).await?;
    Ok(())
}

/// The tag, which is locked.
pub async fn find(tx: &mut Tx, id: TagId) -> Result<Option<Tag>> {
    let select = format!(
        "SELECT t.id, t.name, (SELECT COUNT(*) FROM tags t {READABLE_POSTS} WHERE t.id = $1) AS posts, t.revision, t.create_time,
                t.update_time
         FROM tags t WHERE t.id = $1"
    );
    Ok(store::fetch_optional!(tx, Row, select, id).await?.map(Tag::from))
}

/// Writes a tag that was changed, and counts a change of every post that carries it.
pub async fn save(tx: &mut Tx, tag: &Tag) -> Result<()> {
    // A tag that nothing carries any more is seen by nobody, and is in nobody's way.
    store::execute!(
        tx,
        "DELETE FROM tags WHERE key = $1 AND id <> $2 AND NOT EXISTS (SELECT 1 FROM post_tags pt WHERE pt.tag_id = tags.id)",
        tag.name.key(),
        tag.id
    )
    .await?;
    let update = store::execute!(
        tx,
        "UPDATE tags SET name = $2, key = $3, revision = $4, update_time = $5 WHERE id = $1",
        tag.id,
        tag.name.as_str(),
        tag.name.key(),
        tag.revision.number,
        tag.revision.update_time
    );
    update.await.on_constraint("tags_key_key", |_| Error::NameTaken)?;
    advance_posts(tx, tag.id).await
}

/// Gives the posts of `from` the tag `to`, each once and in the place of the other, and removes `from`. Both are locked. Gives `to` as
/// it is then.
pub async fn merge(tx: &mut Tx, from: TagId, to: &Tag) -> Result<Tag> {
    advance_posts(tx, from).await?;
    store::execute!(
        tx,
        "UPDATE post_tags SET tag_id = $2
         WHERE tag_id = $1 AND post_id NOT IN (SELECT other.post_id FROM post_tags other WHERE other.tag_id = $2)",
        from,
        to.id
    )
    .await?;
    store::execute!(tx, "DELETE FROM post_tags WHERE tag_id = $1", from).await?;
    store::execute!(tx, "DELETE FROM tags WHERE id = $1", from).await?;
    let Revision { number, update_time, .. } = to.revision;
    store::execute!(tx, "UPDATE tags SET revision = $2, update_time = $3 WHERE id = $1", to.id, number, update_time)
        .await?;
    find(tx, to.id).await?.ok_or(Error::Missing("tag"))
}

async fn advance_posts(tx: &mut Tx, tag: TagId) -> Result<()> {
    let update =
        "UPDATE posts SET revision = revision + 1 WHERE id IN (SELECT post_id FROM post_tags WHERE tag_id = $1)";
    store::execute!(tx, update, tag).await?;
    Ok(())
}
