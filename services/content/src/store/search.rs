//! The tables `search_chunks` and `search_index`.

use ids::{PostId, Timestamp};
use sqlx::types::Json;
use store::{Conn, Dialect, Result, Tx};

use super::post::{COLUMNS, Row};
use crate::language::Language;
use crate::post::Post;
use crate::search::{Query, Token, chunks, tokens};

/// Indexes a post's title instead of the one before.
pub async fn index_title(tx: &mut Tx, post: PostId, title: &str) -> Result<()> {
    store::execute!(tx, "DELETE FROM search_chunks WHERE post_id = $1 AND title = TRUE", post).await?;
    insert(tx, post, true, &tokens(title)).await
}

/// Indexes a post's text, already cut into `tokens`, instead of the one before.
pub async fn index_body(tx: &mut Tx, post: PostId, tokens: &[Token]) -> Result<()> {
    store::execute!(tx, "DELETE FROM search_chunks WHERE post_id = $1 AND title = FALSE", post).await?;
    for chunk in chunks(tokens) {
        insert(tx, post, false, chunk).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, post: PostId, title: bool, tokens: &[Token]) -> Result<()> {
    let dialect = tx.dialect();
    let id = store::fetch_scalar!(
        tx,
        i64,
        "INSERT INTO search_chunks (post_id, title) VALUES ($1, $2) RETURNING id",
        post,
        title
    )
    .await?;
    let text = dialect.search_text(tokens.iter().map(|token| token.text.as_str()));
    let nothing = dialect.search_text([]);
    let (title, body) = if title { (text, nothing) } else { (nothing, text) };
    store::execute!(tx, dialect.search_insert("search_index"), id, title, body).await?;
    Ok(())
}

/// A post that was found.
pub struct Hit {
    pub post: Post,
    /// Its text without markup, to cut a snippet from.
    pub plain: String,
}

#[derive(sqlx::FromRow)]
struct HitRow {
    #[sqlx(flatten)]
    post: Row,
    plain: String,
    available: i64,
}

/// A page of what was found.
pub struct Found {
    pub hits: Vec<Hit>,
    /// Whether others follow.
    pub more: bool,
}

/// Which part of the results to give.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Results to pass over.
    pub offset: i64,
    /// Results at most.
    pub limit: i64,
    /// Bytes of Markdown and HTML that the posts may have together; the first one is always given.
    pub budget: i64,
    /// Posts that were published later are left out, so that a new post does not move the pages behind the first.
    pub as_of: Timestamp,
}

/// Published posts in which every phrase is found, the best first. A post counts what its best part is worth, and its title on top.
pub async fn find(conn: &mut Conn, query: &Query, language: Option<&Language>, page: Page) -> Result<Found> {
    let dialect = conn.dialect();
    let phrases = phrases(dialect, query);
    let wanted = i64::try_from(phrases.len()).unwrap_or(i64::MAX);
    let any = dialect.search_any(phrases.iter().map(String::as_str));
    let select = format!(
        "WITH phrases (phrase) AS {list},
         complete AS MATERIALIZED (
             SELECT c.post_id FROM phrases CROSS JOIN search_index JOIN search_chunks c ON c.id = search_index.rowid
             WHERE {phrase_matches} GROUP BY c.post_id HAVING COUNT(DISTINCT phrases.phrase) = $3
         ),
         ranked AS MATERIALIZED (
             SELECT search_index.rowid AS chunk, {rank} AS score FROM search_index WHERE {any_matches}
         ),
         scored AS (
             SELECT c.post_id, MAX(CASE WHEN c.title THEN r.score ELSE 0 END) + MAX(CASE WHEN c.title THEN 0 ELSE r.score END) AS score
             FROM ranked r JOIN search_chunks c ON c.id = r.chunk WHERE c.post_id IN (SELECT post_id FROM complete) GROUP BY c.post_id
         ),
         page AS (
             SELECT p.id, s.score, p.size FROM scored s JOIN posts p ON p.id = s.post_id JOIN authors a ON a.user_id = p.author_id
             WHERE p.state = 3 AND p.delete_time IS NULL AND NOT a.suspended AND p.publish_time <= $4
               AND ($5 = '' OR p.language = $5 OR SUBSTR(p.language, 1, LENGTH($5) + 1) = $5 || '-')
             ORDER BY s.score DESC, p.id DESC LIMIT $6 OFFSET $7
         ),
         cut AS (
             SELECT id, score, size, SUM(size) OVER (ORDER BY score DESC, id DESC ROWS UNBOUNDED PRECEDING) AS total,
                    COUNT(*) OVER () AS available
             FROM page
         )
         SELECT {COLUMNS}, p.plain, cut.available FROM cut JOIN posts p ON p.id = cut.id JOIN authors a ON a.user_id = p.author_id
         WHERE cut.total <= $8 OR cut.total = cut.size ORDER BY cut.score DESC, cut.id DESC",
        list = dialect.text_list(1),
        phrase_matches = dialect.search_matches("search_index", "phrases.phrase"),
        rank = dialect.search_rank("search_index", "$2"),
        any_matches = dialect.search_matches("search_index", "$2"),
    );
    let language = language.map_or("", Language::as_str);
    let rows = store::fetch_all!(
        conn,
        HitRow,
        select,
        Json(&phrases),
        &any,
        wanted,
        page.as_of,
        language,
        page.limit + 1,
        page.offset,
        page.budget
    )
    .await?;
    let available = rows.first().map_or(0, |row| row.available);
    let hits = rows.into_iter().take(usize::try_from(page.limit).unwrap_or(usize::MAX));
    let hits: Vec<Hit> =
        hits.map(|row| Ok(Hit { post: Post::try_from(row.post)?, plain: row.plain })).collect::<Result<_>>()?;
    let more = available > i64::try_from(hits.len()).unwrap_or(i64::MAX);
    Ok(Found { hits, more })
}

fn phrases(dialect: Dialect, query: &Query) -> Vec<String> {
    query
        .phrases
        .iter()
        .map(|phrase| dialect.search_phrase(phrase.tokens.iter().map(String::as_str), phrase.prefix))
        .collect()
}
