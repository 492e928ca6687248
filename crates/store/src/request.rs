//! Calls with an idempotency key: the first is answered and remembered, the same one again gets the same answer.

use std::time::Duration;

use aws_lc_rs::digest;
use ids::Timestamp;
use status::{Problem, Reason};

use crate::{Db, Error, Result, Tx};

/// How long an answer is remembered.
pub const RETENTION: Duration = Duration::from_hours(24);

/// What identifies a call.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Who calls: the user's id, or a workload's name.
    pub subject: &'a str,
    /// The RPC's path.
    pub method: &'a str,
    /// The idempotency key that the caller chose.
    pub key: &'a str,
    /// The request's [`hash`].
    pub hash: [u8; 32],
}

/// The SHA-256 of an encoded request.
pub fn hash(request: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, request).as_ref());
    hash
}

#[derive(sqlx::FromRow)]
struct Row {
    hash: Vec<u8>,
    answer: Option<Vec<u8>>,
    create_time: Timestamp,
}

/// The answer that this call got before, or none if it is the first: then the caller goes on in `tx` and ends with [`remember`].
/// Of two first calls at the same time one goes on; the other waits here for its commit and gets its answer.
/// `REQUEST_ID_REUSED` where the key was used with another request.
pub async fn replay(tx: &mut Tx, key: &Key<'_>, now: Timestamp) -> Result<Option<Vec<u8>>, Problem> {
    let claimed = crate::execute!(
        tx,
        "INSERT INTO request (subject, method, key, hash, create_time) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        key.subject,
        key.method,
        key.key,
        key.hash.as_slice(),
        now
    )
    .await?;
    if claimed == 1 {
        return Ok(None);
    }
    let select = format!(
        "SELECT hash, answer, create_time FROM request WHERE subject = $1 AND method = $2 AND key = $3{}",
        tx.dialect().for_update()
    );
    let row = crate::fetch_one!(tx, Row, select, key.subject, key.method, key.key).await?;
    if now.since(row.create_time) >= RETENTION {
        renew(tx, key, now).await?;
        return Ok(None);
    }
    if row.hash != key.hash {
        return Err(Problem::new(Reason::RequestIdReused));
    }
    Ok(row.answer)
}

async fn renew(tx: &mut Tx, key: &Key<'_>, now: Timestamp) -> Result<()> {
    crate::execute!(
        tx,
        "UPDATE request SET hash = $4, answer = NULL, create_time = $5 WHERE subject = $1 AND method = $2 AND key = $3",
        key.subject,
        key.method,
        key.key,
        key.hash.as_slice(),
        now
    )
    .await?;
    Ok(())
}

/// Remembers the answer, in the transaction of the effect.
pub async fn remember(tx: &mut Tx, key: &Key<'_>, answer: &[u8], now: Timestamp) -> Result<()> {
    let touched = crate::execute!(
        tx,
        "UPDATE request SET answer = $4, create_time = $5 WHERE subject = $1 AND method = $2 AND key = $3",
        key.subject,
        key.method,
        key.key,
        answer,
        now
    )
    .await?;
    if touched == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Forgets the answers that are older than [`RETENTION`]. To be called every few minutes.
pub async fn purge(db: &Db, now: Timestamp) -> Result<u64> {
    let mut tx = db.begin().await?;
    let purged = crate::execute!(tx, "DELETE FROM request WHERE create_time <= $1", now - RETENTION).await?;
    tx.commit().await?;
    Ok(purged)
}
