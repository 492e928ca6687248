//! `mails`: what is to be sent.

use std::sync::Arc;

use ids::{MailId, Timestamp};
use store::{Conn, Error, Result, Tx};
use tokio::sync::Notify;

use crate::mail::{Kind, Pending};

const COLUMNS: &str = "id, kind, email_key, attempts, create_time";

#[derive(sqlx::FromRow)]
struct Row {
    id: MailId,
    kind: String,
    email_key: String,
    attempts: i64,
    create_time: Timestamp,
}

impl TryFrom<Row> for Pending {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let kinds = [Kind::VerifyEmail, Kind::ResetPassword, Kind::AddressTaken];
        let kind = kinds
            .into_iter()
            .find(|kind| kind.as_str() == row.kind)
            .ok_or_else(|| Error::corrupt("an unknown kind of mail"))?;
        Ok(Self { id: row.id, kind, email_key: row.email_key, attempts: row.attempts, created: row.create_time })
    }
}

/// Asks for a mail, to be sent once the transaction commits. `sender` is told then.
pub async fn insert(
    tx: &mut Tx,
    id: MailId,
    kind: Kind,
    email_key: &str,
    now: Timestamp,
    sender: Arc<Notify>,
) -> Result<()> {
    let sql =
        "INSERT INTO mails (id, kind, email_key, attempts, create_time, next_time) VALUES ($1, $2, $3, 0, $4, $4)";
    store::execute!(tx, sql, id, kind.as_str(), email_key, now).await?;
    tx.after_commit(move || sender.notify_one());
    Ok(())
}

/// The next mail that is due. It is not taken yet.
pub async fn due(conn: &mut Conn, now: Timestamp) -> Result<Option<Pending>> {
    let sql = format!("SELECT {COLUMNS} FROM mails WHERE next_time <= $1 ORDER BY next_time, id LIMIT 1");
    store::fetch_optional!(conn, Row, sql, now).await?.map(Pending::try_from).transpose()
}

/// Takes a mail until its next try. Answers whether no other replica has.
pub async fn take(tx: &mut Tx, mail: &Pending, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE mails SET attempts = attempts + 1, next_time = $3 WHERE id = $1 AND attempts = $2";
    Ok(store::execute!(tx, sql, mail.id, mail.attempts, mail.next_try(now)).await? == 1)
}

/// Forgets a mail that was sent or given up.
pub async fn delete(tx: &mut Tx, id: MailId) -> Result<()> {
    store::execute!(tx, "DELETE FROM mails WHERE id = $1", id).await?;
    Ok(())
}
