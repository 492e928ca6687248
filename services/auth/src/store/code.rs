//! `codes`: mailed codes that nobody has used yet.

use ids::{Timestamp, UserId};
use store::{Conn, Result, Tx};

use crate::code::{Hash, Purpose};

/// Adds a code. Earlier ones stay good: a mail may overtake another.
pub async fn insert(
    tx: &mut Tx,
    code: &Hash,
    user: UserId,
    purpose: Purpose,
    now: Timestamp,
    expires: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO codes (hash, user_id, purpose, create_time, expire_time) VALUES ($1, $2, $3, $4, $5)";
    store::execute!(tx, sql, code.as_bytes(), user, purpose.as_str(), now, expires).await?;
    Ok(())
}

/// Whose code it is, if it is good now.
pub async fn owner_of(conn: &mut Conn, code: &Hash, purpose: Purpose, now: Timestamp) -> Result<Option<UserId>> {
    let sql = "SELECT user_id FROM codes WHERE hash = $1 AND purpose = $2 AND expire_time > $3";
    let row = store::fetch_optional!(conn, (UserId,), sql, code.as_bytes(), purpose.as_str(), now).await?;
    Ok(row.map(|(user,)| user))
}

/// Uses a code up. Answers whether it was still there: of two who use it at once, one does. With it go the others of its purpose.
pub async fn consume(tx: &mut Tx, code: &Hash, user: UserId, purpose: Purpose) -> Result<bool> {
    let found =
        store::execute!(tx, "DELETE FROM codes WHERE hash = $1 AND user_id = $2", code.as_bytes(), user).await? == 1;
    if found {
        store::execute!(tx, "DELETE FROM codes WHERE user_id = $1 AND purpose = $2", user, purpose.as_str()).await?;
    }
    Ok(found)
}

/// Deletes the codes that have expired by `before`.
pub async fn purge(tx: &mut Tx, before: Timestamp) -> Result<u64> {
    store::execute!(tx, "DELETE FROM codes WHERE expire_time < $1", before).await
}
