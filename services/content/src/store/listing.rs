//! Lists of posts, page by page.

use ids::{CategoryId, PostId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;
use store::{Conn, Result};

use super::post::{COLUMNS, Row, code};
use crate::post::{Post, State};

/// Which posts to list, and how.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Those in this state; its time does not count.
    pub state: State,
    /// Whether those of suspended authors are listed too.
    pub suspended: bool,
    /// A category's id or slug; its descendants count.
    pub category: Option<String>,
    /// A tag's key.
    pub tag: Option<String>,
    pub author: Option<UserId>,
    pub order: Order,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub by: Time,
    pub descending: bool,
}

/// The time that a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Publish,
    Create,
    Update,
}

impl Time {
    /// The name of the column, which is also the name of the field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish_time",
            Self::Create => "create_time",
            Self::Update => "update_time",
        }
    }

    /// The field's name in JSON.
    pub fn json_name(self) -> &'static str {
        match self {
            Self::Publish => "publishTime",
            Self::Create => "createTime",
            Self::Update => "updateTime",
        }
    }

    fn of(self, post: &Post) -> Timestamp {
        match self {
            Self::Publish => post.state.publish_time().unwrap_or(post.create_time),
            Self::Create => post.create_time,
            Self::Update => post.update_time,
        }
    }
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cursor {
    time: Timestamp,
    id: PostId,
}

impl Cursor {
    /// The cursor behind this post.
    pub fn behind(post: &Post, order: Order) -> Self {
        Self { time: order.by.of(post), id: post.id }
    }
}

/// A page of posts.
pub struct Page {
    pub posts: Vec<Post>,
    /// Whether others follow.
    pub more: bool,
}

#[derive(sqlx::FromRow)]
struct PageRow {
    #[sqlx(flatten)]
    post: Row,
    available: i64,
}

/// The posts behind `after`: at most `limit`, and no more than fit into `budget` bytes of Markdown and HTML, but at least one.
pub async fn page(conn: &mut Conn, filter: &Filter, after: Option<Cursor>, limit: i64, budget: i64) -> Result<Page> {
    let Order { by, descending } = filter.order;
    let (column, direction, beyond) =
        (by.name(), if descending { "DESC" } else { "ASC" }, if descending { "<" } else { ">" });
    // The state is written out, for partial indexes are used only where the planner can see it.
    let mut conditions = format!("p.state = {} AND p.delete_time IS NULL", code(filter.state));
    let mut add = |wanted: bool, condition: &str| {
        if wanted {
            conditions += " AND ";
            conditions += condition;
        }
    };
    add(!filter.suspended, "NOT a.suspended");
    add(filter.category.is_some(), "p.category_id IN (SELECT id FROM below)");
    add(
        filter.tag.is_some(),
        "p.id IN (SELECT pt.post_id FROM post_tags pt JOIN tags t ON t.id = pt.tag_id WHERE t.key = $3)",
    );
    add(filter.author.is_some(), "p.author_id = $4");
    add(after.is_some(), &format!("(p.{column}, p.id) {beyond} ($5, $6)"));
    let select = format!(
        "WITH RECURSIVE below (id) AS (
             SELECT id FROM categories WHERE slug = $1 OR id = $2
             UNION ALL SELECT c.id FROM categories c JOIN below b ON c.parent_id = b.id
         ), page AS (
             SELECT p.id, p.{column} AS time, p.size FROM posts p JOIN authors a ON a.user_id = p.author_id
             WHERE {conditions} ORDER BY p.{column} {direction}, p.id {direction} LIMIT $7
         ), cut AS (
             SELECT id, time, size, SUM(size) OVER (ORDER BY time {direction}, id {direction} ROWS UNBOUNDED PRECEDING) AS total,
                    COUNT(*) OVER () AS available
             FROM page
         )
         SELECT {COLUMNS}, cut.available FROM cut JOIN posts p ON p.id = cut.id JOIN authors a ON a.user_id = p.author_id
         WHERE cut.total <= $8 OR cut.total = cut.size ORDER BY cut.time {direction}, cut.id {direction}"
    );
    let category = filter.category.as_deref();
    let rows = store::fetch_all!(
        conn,
        PageRow,
        select,
        category,
        category.and_then(|category| category.parse::<CategoryId>().ok()),
        filter.tag.as_deref(),
        filter.author,
        after.map(|cursor| cursor.time),
        after.map(|cursor| cursor.id),
        limit + 1,
        budget
    )
    .await?;
    let available = rows.first().map_or(0, |row| row.available);
    let posts = rows.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|row| row.post.try_into());
    let posts: Vec<Post> = posts.collect::<Result<_>>()?;
    let more = available > i64::try_from(posts.len()).unwrap_or(i64::MAX);
    Ok(Page { posts, more })
}

/// A post as it goes into an export.
pub struct Exported {
    pub post: Post,
    /// The name of its category; empty without one.
    pub category: String,
    /// The id that it was imported under.
    pub source_id: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ExportRow {
    #[sqlx(flatten)]
    post: Row,
    category: Option<String>,
    source_id: Option<String>,
}

/// Posts behind `after` in the order in which they were written, deleted ones left out: at most `limit`, and no more than fit into
/// `budget` bytes, but at least one. None: that was the last.
pub async fn export(conn: &mut Conn, after: Option<PostId>, limit: i64, budget: i64) -> Result<Vec<Exported>> {
    let select = format!(
        "WITH page AS (
             SELECT id, size FROM posts WHERE delete_time IS NULL AND id > $1 ORDER BY id LIMIT $2
         ), cut AS (
             SELECT id, size, SUM(size) OVER (ORDER BY id) AS total FROM page
         )
         SELECT {COLUMNS}, c.name AS category, (SELECT MIN(s.source_id) FROM post_sources s WHERE s.post_id = p.id) AS source_id
         FROM cut JOIN posts p ON p.id = cut.id JOIN authors a ON a.user_id = p.author_id LEFT JOIN categories c ON c.id = p.category_id
         WHERE cut.total <= $3 OR cut.total = cut.size ORDER BY p.id"
    );
    let first = PostId::from(Uuid::nil());
    let rows = store::fetch_all!(conn, ExportRow, select, after.unwrap_or(first), limit, budget).await?;
    let exported = rows.into_iter().map(|row| {
        Ok(Exported {
            post: row.post.try_into()?,
            category: row.category.unwrap_or_default(),
            source_id: row.source_id,
        })
    });
    exported.collect()
}
