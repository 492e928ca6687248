//! What content tells others, and what it hears from them.
//!
//! It emits `content.post.*` with the post's revision as their version (`content.tag.*` are emitted where tags are changed). It hears of renamed authors (`auth.user.updated`), whose new
//! names it fetches, and of those who are shut out or let in again (`auth.user.suspended`, `auth.user.reinstated`).

use contracts::Event;
use contracts::auth::v1::{UserReinstated, UserSuspended, UserUpdated};
use contracts::content::v1::{PostCreated, PostDeleted, PostPublished, PostUndeleted, PostUnpublished, PostUpdated};
use events::{Delivery, Envelope, Failure, Handler, Inbox, Outbox, Subscription};
use ids::{PostId, UserId};
use store::{Db, Tx};

use crate::directory::Directory;
use crate::post::{Change, Post};
use crate::store as tables;

/// Tells of a change of a post, in the transaction that makes it.
pub async fn emit(outbox: &Outbox, tx: &mut Tx, post: &Post, change: Change) -> Result<(), events::Error> {
    emit_as(outbox, tx, (post.id, post.author.id, post.revision), change).await
}

/// Tells of a change of the post of that id, author and revision.
pub async fn emit_as(
    outbox: &Outbox,
    tx: &mut Tx,
    post: (PostId, UserId, i64),
    change: Change,
) -> Result<(), events::Error> {
    let (post_id, author_id, version) = (post.0.to_string(), post.1.to_string(), post.2);
    match change {
        Change::Created => outbox.append(tx, version, &PostCreated { post_id, author_id }).await,
        Change::Updated => outbox.append(tx, version, &PostUpdated { post_id, author_id }).await,
        Change::Published => outbox.append(tx, version, &PostPublished { post_id, author_id }).await,
        Change::Unpublished => outbox.append(tx, version, &PostUnpublished { post_id, author_id }).await,
        Change::Deleted => outbox.append(tx, version, &PostDeleted { post_id, author_id }).await,
        Change::Undeleted => outbox.append(tx, version, &PostUndeleted { post_id, author_id }).await,
    }?;
    Ok(())
}

/// Keeps the names under posts fresh.
pub struct AuthorNames {
    db: Db,
    inbox: Inbox,
    directory: Directory,
}

impl AuthorNames {
    /// One replica takes each event.
    pub const SUBSCRIPTION: Subscription =
        Subscription { consumer: "content.author_names", topics: &[UserUpdated::TOPIC], delivery: Delivery::Work };

    /// Over the database whose authors it renames.
    pub fn new(db: Db, source: ids::Source, directory: Directory) -> Self {
        Self { inbox: Inbox::new(db.clone(), Self::SUBSCRIPTION.consumer, source), db, directory }
    }
}

#[events::async_trait]
impl Handler for AuthorNames {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        let id = user(&event.decode::<UserUpdated>()?.user_id)?;
        if tables::author::find(&mut self.db.read().await?, id).await?.is_none() {
            return Ok(());
        }
        let known = self.directory.find(&[id]).await?;
        let Some(mut tx) = self.inbox.begin(event).await? else { return Ok(()) };
        if let Some(name) = known.into_iter().find_map(|author| author.display_name) {
            tables::author::rename(&mut tx, id, &name, event.version).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Hides the posts of people who are shut out, until they are let in again.
pub struct Suspensions {
    inbox: Inbox,
}

impl Suspensions {
    /// One replica takes each event.
    pub const SUBSCRIPTION: Subscription = Subscription {
        consumer: "content.suspensions",
        topics: &[UserSuspended::TOPIC, UserReinstated::TOPIC],
        delivery: Delivery::Work,
    };

    /// Over the database whose authors it marks.
    pub fn new(db: Db, source: ids::Source) -> Self {
        Self { inbox: Inbox::new(db, Self::SUBSCRIPTION.consumer, source) }
    }
}

#[events::async_trait]
impl Handler for Suspensions {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        let suspended = event.topic == UserSuspended::TOPIC;
        let id = if suspended {
            event.decode::<UserSuspended>()?.user_id
        } else {
            event.decode::<UserReinstated>()?.user_id
        };
        let id = user(&id)?;
        let Some(mut tx) = self.inbox.begin(event).await? else { return Ok(()) };
        tables::author::set_suspended(&mut tx, id, suspended, event.version).await?;
        Ok(tx.commit().await?)
    }
}

fn user(id: &str) -> Result<UserId, Failure> {
    id.parse().map_err(|_| Failure::Reject("the user_id is no id".into()))
}
