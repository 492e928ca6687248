//! What runs behind the calls: scheduled publishing, the writing of views, names that are still missing, and what has had its time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::events::emit_as;
use crate::post::{Change, UNDELETE_PERIOD};
use crate::rpc::Content;
use crate::{directory, store};

/// A scheduled post is published within a second of its time.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// A view shows within five seconds; ten thousand cost a few transactions.
const FLUSH_EVERY: Duration = Duration::from_millis(2_500);
const NAME_EVERY: Duration = Duration::from_secs(10);
const PURGE_EVERY: Duration = Duration::from_mins(5);
/// Rows that one transaction takes on.
const BATCH: i64 = 100;

/// Work that is done again and again.
pub struct Task {
    /// Its name in logs.
    pub name: &'static str,
    period: Duration,
    turn: fn(Arc<Content>) -> BoxFuture<'static, Result<()>>,
}

/// Publishes scheduled posts when their time has come.
pub const SCHEDULE: Task =
    Task { name: "scheduled posts", period: PUBLISH_EVERY, turn: |content| Box::pin(publish_scheduled(content)) };

/// Writes the views that were counted.
pub const VIEWS: Task = Task { name: "views", period: FLUSH_EVERY, turn: |content| Box::pin(flush_views(content)) };

/// Asks auth for the names of authors that it could not tell when they first wrote.
pub const NAMES: Task =
    Task { name: "names of authors", period: NAME_EVERY, turn: |content| Box::pin(name_authors(content)) };

/// Removes posts that were deleted too long ago to be brought back, and remembered answers whose time is over.
pub const PURGE: Task = Task { name: "purge", period: PURGE_EVERY, turn: |content| Box::pin(purge(content)) };

impl Task {
    /// Does the work at once, then regularly, and a last time when it is told to stop. A failure is logged; the next turn tries again.
    pub async fn run(self, content: Arc<Content>, stop: CancellationToken) {
        let mut turns = tokio::time::interval(self.period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = false;
        while !last {
            last = stop.run_until_cancelled(turns.tick()).await.is_none();
            if let Err(error) = (self.turn)(Arc::clone(&content)).await {
                tracing::warn!(task = self.name, error = %error, "A turn of the task `{}` failed", self.name);
            }
        }
    }
}

/// Each in its own transaction, in which of several replicas only one finds the post still scheduled.
async fn publish_scheduled(content: Arc<Content>) -> Result<()> {
    let now = content.source.now();
    loop {
        let due = store::post::due(&mut content.db.read().await?, now, BATCH).await?;
        if due.is_empty() {
            return Ok(());
        }
        for id in due {
            let mut tx = content.db.begin().await?;
            if let Some((author, revision)) = store::post::publish_due(&mut tx, id, now).await? {
                emit_as(&content.outbox, &mut tx, (id, author, revision), Change::Published).await?;
                tx.commit().await?;
                tracing::info!(post.id = %id, "Published post {id} as scheduled");
            }
        }
    }
}

async fn flush_views(content: Arc<Content>) -> Result<()> {
    content.flush_views().await
}

async fn name_authors(content: Arc<Content>) -> Result<()> {
    let limit = i64::try_from(directory::MAX_PEOPLE).unwrap_or(i64::MAX);
    let unnamed = store::author::unnamed(&mut content.db.read().await?, limit).await?;
    if unnamed.is_empty() { Ok(()) } else { content.introduce(&unnamed).await }
}

async fn purge(content: Arc<Content>) -> Result<()> {
    let now = content.source.now();
    ::store::request::purge(&content.db, now).await?;
    loop {
        let mut tx = content.db.begin().await?;
        let purged = store::post::purge(&mut tx, now - UNDELETE_PERIOD, BATCH).await?;
        tx.commit().await?;
        if purged < BATCH.unsigned_abs() {
            return Ok(());
        }
    }
}
