//! The table `authors`.

use ids::UserId;
use store::{Conn, Result, Tx};

use crate::author::Author;

#[derive(sqlx::FromRow)]
struct Row {
    user_id: UserId,
    display_name: Option<String>,
    suspended: bool,
}

impl From<Row> for Author {
    fn from(row: Row) -> Self {
        Self { id: row.user_id, display_name: row.display_name, suspended: row.suspended }
    }
}

/// The author, if the person ever wrote something.
pub async fn find(conn: &mut Conn, id: UserId) -> Result<Option<Author>> {
    let row = store::fetch_optional!(
        conn,
        Row,
        "SELECT user_id, display_name, suspended FROM authors WHERE user_id = $1",
        id
    )
    .await?;
    Ok(row.map(Author::from))
}

/// Makes the person an author, if they are none.
pub async fn add(tx: &mut Tx, id: UserId) -> Result<()> {
    store::execute!(tx, "INSERT INTO authors (user_id) VALUES ($1) ON CONFLICT DO NOTHING", id).await?;
    Ok(())
}

/// Names an author who has no name yet, and says whether they are shut out where no event has said so. An event that came in
/// between knows better.
pub async fn introduce(tx: &mut Tx, author: &Author) -> Result<()> {
    store::execute!(
        tx,
        "UPDATE authors SET display_name = $2, suspended = CASE WHEN state_version = 0 THEN $3 ELSE suspended END
         WHERE user_id = $1 AND display_name IS NULL",
        author.id,
        author.display_name.as_deref(),
        author.suspended
    )
    .await?;
    Ok(())
}

/// Renames an author by the event of this version; an older event than the last changes nothing.
pub async fn rename(tx: &mut Tx, id: UserId, display_name: &str, version: i64) -> Result<()> {
    store::execute!(
        tx,
        "UPDATE authors SET display_name = $2, name_version = $3 WHERE user_id = $1 AND name_version < $3",
        id,
        display_name,
        version
    )
    .await?;
    Ok(())
}

/// Shuts a person out or lets them in again, by the event of this version, whether they have written something or not.
pub async fn set_suspended(tx: &mut Tx, id: UserId, suspended: bool, version: i64) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO authors (user_id, suspended, state_version) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET suspended = excluded.suspended, state_version = excluded.state_version
         WHERE authors.state_version < excluded.state_version",
        id,
        suspended,
        version
    )
    .await?;
    Ok(())
}

/// Authors of posts whose names auth has not told yet, at most `limit`.
pub async fn unnamed(conn: &mut Conn, limit: i64) -> Result<Vec<UserId>> {
    let rows = store::fetch_all!(
        conn,
        (UserId,),
        "SELECT user_id FROM authors a WHERE display_name IS NULL AND EXISTS (SELECT 1 FROM posts p WHERE p.author_id = a.user_id)
         ORDER BY user_id LIMIT $1",
        limit
    )
    .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
