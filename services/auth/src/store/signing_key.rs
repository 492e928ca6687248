//! `signing_keys`, sealed.

use ids::{SigningKeyId, Timestamp};
use store::{Conn, Result, Tx};

/// A key as it is stored.
#[derive(sqlx::FromRow)]
pub struct Sealed {
    pub id: SigningKeyId,
    /// PKCS#8, sealed for `id`.
    pub private: Vec<u8>,
    pub sign_time: Timestamp,
}

/// Every key, oldest first.
pub async fn list(conn: &mut Conn) -> Result<Vec<Sealed>> {
    store::fetch_all!(conn, Sealed, "SELECT id, sealed AS private, sign_time FROM signing_keys ORDER BY sign_time")
        .await
}

/// When the newest key starts to sign.
pub async fn newest(tx: &mut Tx) -> Result<Option<Timestamp>> {
    store::fetch_scalar!(tx, Option<Timestamp>, "SELECT MAX(sign_time) FROM signing_keys").await
}

/// Adds a key.
pub async fn insert(tx: &mut Tx, key: &Sealed, now: Timestamp) -> Result<()> {
    let sql =
        "INSERT INTO signing_keys (id, algorithm, sealed, create_time, sign_time) VALUES ($1, 'RS256', $2, $3, $4)";
    store::execute!(tx, sql, key.id, key.private.as_slice(), now, key.sign_time).await?;
    Ok(())
}

/// Deletes a key that no valid token was signed with.
pub async fn delete(tx: &mut Tx, id: SigningKeyId) -> Result<()> {
    store::execute!(tx, "DELETE FROM signing_keys WHERE id = $1", id).await?;
    Ok(())
}
