//! What feeds and the sitemap need of the table `posts`.

use ids::{PostId, Timestamp};
use store::{Conn, Result};

use super::split;
use crate::feed::{Item, Page};

#[derive(sqlx::FromRow)]
struct ItemRow {
    #[sqlx(flatten)]
    page: PageRow,
    title: String,
    author: String,
    language: String,
    publish_time: Timestamp,
    tags: Option<String>,
    html: Option<String>,
}

#[derive(sqlx::FromRow)]
struct PageRow {
    id: PostId,
    slug: String,
    update_time: Timestamp,
}

impl From<ItemRow> for Item {
    fn from(row: ItemRow) -> Self {
        Self {
            page: row.page.into(),
            title: row.title,
            author: row.author,
            language: row.language,
            publish_time: row.publish_time,
            tags: split(row.tags.as_deref()).map(str::to_owned).collect(),
            html: row.html,
        }
    }
}

impl From<PageRow> for Page {
    fn from(row: PageRow) -> Self {
        Self { post: row.id, slug: row.slug.into(), update_time: row.update_time }
    }
}

/// The newest posts that everybody may read, at most `limit`. Those that would bring Markdown and HTML above `budget` bytes come
/// without their HTML.
pub async fn newest(conn: &mut Conn, limit: i64, budget: i64) -> Result<Vec<Item>> {
    let rows = store::fetch_all!(
        conn,
        ItemRow,
        "WITH newest AS (
             SELECT p.id, p.size, p.publish_time FROM posts p JOIN authors a ON a.user_id = p.author_id
             WHERE p.state = 3 AND p.delete_time IS NULL AND NOT a.suspended ORDER BY p.publish_time DESC, p.id DESC LIMIT $1
         ), measured AS (
             SELECT id, SUM(size) OVER (ORDER BY publish_time DESC, id DESC ROWS UNBOUNDED PRECEDING) AS total FROM newest
         )
         SELECT p.id, p.slug, p.update_time, p.title, p.language, p.publish_time,
                CASE WHEN p.byline = '' THEN COALESCE(a.display_name, '') ELSE p.byline END AS author,
                CASE WHEN m.total <= $2 THEN p.html END AS html,
                (SELECT string_agg(t.name, '\n' ORDER BY pt.position) FROM post_tags pt JOIN tags t ON t.id = pt.tag_id
                 WHERE pt.post_id = p.id) AS tags
         FROM measured m JOIN posts p ON p.id = m.id JOIN authors a ON a.user_id = p.author_id
         ORDER BY p.publish_time DESC, p.id DESC",
        limit,
        budget
    )
    .await?;
    Ok(rows.into_iter().map(Item::from).collect())
}

/// Where the newest posts are that everybody may read, at most `limit`.
pub async fn pages(conn: &mut Conn, limit: i64) -> Result<Vec<Page>> {
    let rows = store::fetch_all!(
        conn,
        PageRow,
        "SELECT p.id, p.slug, p.update_time FROM posts p JOIN authors a ON a.user_id = p.author_id
         WHERE p.state = 3 AND p.delete_time IS NULL AND NOT a.suspended ORDER BY p.publish_time DESC, p.id DESC LIMIT $1",
        limit
    )
    .await?;
    Ok(rows.into_iter().map(Page::from).collect())
}
