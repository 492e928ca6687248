//! Deletes what is over: sessions with their refresh tokens, and codes.

use std::time::Duration;

use ids::Source;
use store::Db;
use tokio_util::sync::CancellationToken;

use crate::store as tables;

const INTERVAL: Duration = Duration::from_hours(1);
/// What is over stays this long, so that ending a session twice has the same answer.
const KEPT: Duration = Duration::from_hours(24);

/// Deletes once an hour until `drain`. Several replicas may do it at once.
pub async fn run(db: Db, source: Source, drain: CancellationToken) {
    loop {
        if let Err(error) = purge(&db, &source).await {
            tracing::warn!(%error, "What is over could not be deleted and waits for the next time");
        }
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn purge(db: &Db, source: &Source) -> store::Result<()> {
    let before = source.now() - KEPT;
    let mut tx = db.begin().await?;
    let sessions = tables::session::purge(&mut tx, before).await?;
    let codes = tables::code::purge(&mut tx, before).await?;
    tx.commit().await?;
    tracing::debug!(sessions, codes, "Deleted what is over");
    Ok(())
}
