//! `sessions` and `refresh_tokens`. Both are written under the lock of the account (`store::account::lock`).

use ids::{SessionId, Timestamp, UserId};
use store::{Conn, Result, Tx};

use crate::{
    code::Hash,
    session::{Refresh, Session, State},
};

const COLUMNS: &str = "id, user_id, client_id, user_agent, create_time, use_time, expire_time, end_time";

#[derive(sqlx::FromRow)]
struct Row {
    id: SessionId,
    user_id: UserId,
    client_id: String,
    user_agent: String,
    create_time: Timestamp,
    use_time: Timestamp,
    expire_time: Timestamp,
    end_time: Option<Timestamp>,
}

impl From<Row> for Session {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            user: row.user_id,
            client: row.client_id,
            user_agent: row.user_agent,
            created: row.create_time,
            used: row.use_time,
            expires: row.expire_time,
            state: row.end_time.map_or(State::Open, |at| State::Ended { at }),
        }
    }
}

/// Writes a session, new or changed.
pub async fn save(tx: &mut Tx, session: &Session) -> Result<()> {
    let sql = format!(
        "INSERT INTO sessions ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET use_time = $6, expire_time = $7, end_time = $8"
    );
    let end_time = match session.state {
        State::Open => None,
        State::Ended { at } => Some(at),
    };
    store::execute!(
        tx,
        sql,
        session.id,
        session.user,
        session.client.as_str(),
        session.user_agent.as_str(),
        session.created,
        session.used,
        session.expires,
        end_time
    )
    .await?;
    Ok(())
}

/// The session of that id.
pub async fn find(tx: &mut Tx, id: SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = $1");
    Ok(store::fetch_optional!(tx, Row, sql, id).await?.map(Session::from))
}

/// A person's open sessions, most recently used first: the next `limit` after the one used at this time with this id.
pub async fn list(
    conn: &mut Conn,
    user: UserId,
    now: Timestamp,
    after: Option<(Timestamp, SessionId)>,
    limit: i64,
) -> Result<Vec<Session>> {
    let (time, id) = after.unzip();
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions
         WHERE user_id = $1 AND end_time IS NULL AND expire_time > $2 AND ($3 IS NULL OR (use_time, id) < ($3, $4))
         ORDER BY use_time DESC, id DESC LIMIT $5"
    );
    let rows = store::fetch_all!(conn, Row, sql, user, now, time, id, limit).await?;
    Ok(rows.into_iter().map(Session::from).collect())
}

/// Ends every open session of a person.
pub async fn end_all(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<()> {
    store::execute!(tx, "UPDATE sessions SET end_time = $2 WHERE user_id = $1 AND end_time IS NULL", user, now).await?;
    Ok(())
}

/// Deletes sessions that were over by `before`, with their refresh tokens.
pub async fn purge(tx: &mut Tx, before: Timestamp) -> Result<u64> {
    store::execute!(tx, "DELETE FROM sessions WHERE expire_time < $1 OR end_time < $1", before).await
}

/// Whose refresh token it is.
pub async fn owner_of(conn: &mut Conn, token: &Hash) -> Result<Option<(UserId, SessionId)>> {
    let sql = "SELECT s.user_id, s.id FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1";
    store::fetch_optional!(conn, (UserId, SessionId), sql, token.as_bytes()).await
}

/// What is known of a refresh token.
pub async fn refresh(tx: &mut Tx, token: &Hash) -> Result<Option<Refresh>> {
    let sql = "SELECT use_time FROM refresh_tokens WHERE hash = $1";
    let row = store::fetch_optional!(tx, (Option<Timestamp>,), sql, token.as_bytes()).await?;
    Ok(row.map(|(used,)| used.map_or(Refresh::Fresh, |at| Refresh::Used { at })))
}

/// Adds a fresh refresh token.
pub async fn add_refresh(tx: &mut Tx, session: SessionId, token: &Hash, now: Timestamp) -> Result<()> {
    let sql = "INSERT INTO refresh_tokens (hash, session_id, create_time) VALUES ($1, $2, $3)";
    store::execute!(tx, sql, token.as_bytes(), session, now).await?;
    Ok(())
}

/// Notes that a refresh token was used.
pub async fn use_refresh(tx: &mut Tx, token: &Hash, now: Timestamp) -> Result<()> {
    store::execute!(tx, "UPDATE refresh_tokens SET use_time = $2 WHERE hash = $1", token.as_bytes(), now).await?;
    Ok(())
}
