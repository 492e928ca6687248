//! The table `post_versions`.

use ids::{CategoryId, PostId, Timestamp, UserId};
use sqlx::types::Json;
use store::{Conn, Result, Tx};

use crate::language::Language;
use crate::post::Body;
use crate::tag;
use crate::version::Version;

const COLUMNS: &str = "v.post_id, v.version, v.editor_id, v.title, v.markdown, v.tags, v.category_id, v.byline, v.language, v.create_time";

#[derive(sqlx::FromRow)]
struct Row {
    post_id: PostId,
    version: i32,
    editor_id: UserId,
    title: String,
    markdown: String,
    tags: Json<Vec<tag::Name>>,
    category_id: Option<CategoryId>,
    byline: String,
    language: String,
    create_time: Timestamp,
}

impl From<Row> for Version {
    fn from(row: Row) -> Self {
        Self {
            post: row.post_id,
            number: row.version,
            editor: row.editor_id,
            body: Body {
                title: row.title,
                markdown: row.markdown,
                byline: row.byline,
                category: row.category_id,
                tags: row.tags.0,
                language: Language::parse(&row.language),
            },
            create_time: row.create_time,
        }
    }
}

/// Keeps a version.
pub async fn insert(tx: &mut Tx, version: &Version) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO post_versions (post_id, version, editor_id, title, markdown, tags, category_id, byline, language, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        version.post,
        version.number,
        version.editor,
        &version.body.title,
        &version.body.markdown,
        Json(&version.body.tags),
        version.body.category,
        &version.body.byline,
        version.body.language.as_ref().map_or("", Language::as_str),
        version.create_time
    )
    .await?;
    Ok(())
}

/// One version of a post.
pub async fn find(conn: &mut Conn, post: PostId, number: i32) -> Result<Option<Version>> {
    let select = format!("SELECT {COLUMNS} FROM post_versions v WHERE v.post_id = $1 AND v.version = $2");
    Ok(store::fetch_optional!(conn, Row, select, post, number).await?.map(Version::from))
}

/// Versions below `before`, newest first: at most `limit`, and no more than fit into `budget` bytes of Markdown, but at least one.
pub async fn list(conn: &mut Conn, post: PostId, before: i32, limit: i64, budget: i64) -> Result<Vec<Version>> {
    let select = format!(
        "WITH page AS (
             SELECT version, OCTET_LENGTH(markdown) AS size FROM post_versions
             WHERE post_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3
         ), cut AS (
             SELECT version, size, SUM(size) OVER (ORDER BY version DESC) AS total FROM page
         )
         SELECT {COLUMNS} FROM cut JOIN post_versions v ON v.post_id = $1 AND v.version = cut.version
         WHERE cut.total <= $4 OR cut.total = cut.size ORDER BY v.version DESC"
    );
    let rows = store::fetch_all!(conn, Row, select, post, before, limit, budget).await?;
    Ok(rows.into_iter().map(Version::from).collect())
}
