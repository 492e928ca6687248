//! The gRPC services: each call becomes values of the domain, is permitted, done in one transaction, and answered.

pub mod category;
pub mod feed;
pub mod portfolio;
pub mod post;
pub mod tag;

use contracts::content::v1 as proto;
use events::Outbox;
use ids::{Source, TypedId, UserId};
use mesh::Caller;
use prost::Message;
use store::page::Tokens;
use store::request::{self, Key};
use store::{Db, Tx};
use tokio::sync::Mutex;
use tonic::Request;

use crate::author::Author;
use crate::directory::Directory;
use crate::error::{Error, InField, Result};
use crate::markdown::{self, Rendered};
use crate::permit::Viewer;
use crate::search;
use crate::tag::Name;
use crate::view::Buffer;

/// Bytes of Markdown and HTML on one page, or one post: with what else there is, it fits into a message of 4 MiB, which is what clients
/// accept.
pub const PAGE_BUDGET: i64 = 2_000_000;

/// Markdown above this size is rendered on a thread of its own, so that it keeps no other call waiting.
const LONG: usize = 16_384;

/// What all calls share.
pub struct Content {
    pub db: Db,
    pub outbox: Outbox,
    pub source: Source,
    /// Signs page tokens.
    pub tokens: Tokens,
    /// Views that wait to be written.
    pub views: Buffer,
    /// Held while views are written: nobody else writes the same ones.
    pub flushing: Mutex<()>,
    /// Whom auth knows.
    pub directory: Directory,
}

impl Content {
    /// The person as an author, by name if auth can tell it now. Not inside a transaction: it may ask auth.
    pub async fn author(&self, id: UserId) -> Result<Author> {
        let known = crate::store::author::find(&mut self.db.read().await?, id).await?;
        if let Some(author) = known.filter(|author| author.display_name.is_some()) {
            return Ok(author);
        }
        // First the row, then the question: a renaming that happens between the two finds an author to rename.
        let mut tx = self.db.begin().await?;
        crate::store::author::add(&mut tx, id).await?;
        tx.commit().await?;
        if let Err(error) = self.introduce(&[id]).await {
            tracing::warn!(user.id = %id, error = %error, "Could not fetch the name of an author; it is asked for again later");
        }
        crate::store::author::find(&mut self.db.read().await?, id).await?.ok_or(Error::Missing("author"))
    }

    /// Asks auth for the names of these authors.
    pub async fn introduce(&self, people: &[UserId]) -> Result<()> {
        let known = self.directory.find(people).await?;
        let mut tx = self.db.begin().await?;
        for author in &known {
            crate::store::author::introduce(&mut tx, author).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Writes all views that wait, in one transaction. Given up in the middle, as by a caller who goes away, it loses none.
    pub async fn flush_views(&self) -> Result<()> {
        let _alone = self.flushing.lock().await;
        let views = self.views.waiting();
        if views.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        crate::store::statistics::add_views(&mut tx, &views).await?;
        // Before the commit: where its outcome stays unknown, no view may count twice.
        self.views.remove(&views);
        Ok(tx.commit().await?)
    }
}

/// Who asks, if a person does.
pub fn viewer<T>(request: &Request<T>) -> Result<Option<Viewer>> {
    let caller = Caller::of(request)?;
    Ok(caller.user.map(|user| Viewer { id: user.id, role: user.role }))
}

/// The person who asks.
pub fn person<T>(request: &Request<T>) -> Result<Viewer> {
    let caller = Caller::of(request)?;
    let user = caller.user()?;
    Ok(Viewer { id: user.id, role: user.role })
}

/// An id of a request, which the contract has checked.
pub fn id<T: TypedId>(text: &str, field: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| Error::field(field, error.to_string()))
}

/// An id that may be absent.
pub fn optional_id<T: TypedId>(text: &str, field: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { id(text, field).map(Some) }
}

/// The tags of a request, each once.
pub fn tags(names: &[String], field: &str) -> Result<Vec<Name>> {
    let mut tags: Vec<Name> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let name = Name::parse(name).in_field(format!("{field}[{at}]"))?;
        if tags.iter().all(|known| known.key() != name.key()) {
            tags.push(name);
        }
    }
    Ok(tags)
}

/// A text made ready to be stored.
pub struct Prepared {
    pub rendered: Rendered,
    /// The tokens of its plain text.
    pub tokens: Vec<search::Token>,
}

/// Renders a text and cuts it into tokens. `field` is where it came from.
pub async fn prepare(markdown: &str, field: &str) -> Result<Prepared> {
    fn work(markdown: &str) -> Result<Prepared, markdown::Error> {
        let rendered = markdown::render(markdown)?;
        let tokens = search::tokens(&rendered.plain);
        Ok(Prepared { rendered, tokens })
    }
    let prepared = if markdown.len() < LONG {
        work(markdown)
    } else {
        let markdown = markdown.to_owned();
        blocking(move || work(&markdown)).await?
    };
    prepared.in_field(field)
}

/// Does work for the CPU on a thread that may be kept busy.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|panic| Error::Defect("work on a thread of its own panicked", panic.into()))
}

/// A create that is answered once for each request id. Without a request id it does nothing.
pub struct Once {
    key: Option<(String, &'static str, String, [u8; 32])>,
}

impl Once {
    /// For the call of `method`, a path of the contract, with `message`.
    pub fn new(viewer: Viewer, method: &'static str, request_id: &str, message: &impl Message) -> Self {
        let key = || (viewer.id.to_string(), method, request_id.to_owned(), request::hash(&message.encode_to_vec()));
        Self { key: (!request_id.is_empty()).then(key) }
    }

    /// The first answer, if this is the same call again. Otherwise go on in `tx` and end with [`Self::remember`].
    pub async fn replay<A: Message + Default>(&self, tx: &mut Tx, source: &Source) -> Result<Option<A>> {
        let Some(key) = self.key() else { return Ok(None) };
        let answer = request::replay(tx, &key, source.now()).await?;
        let answer = answer.map(|answer| A::decode(answer.as_slice())).transpose();
        answer.map_err(|error| Error::Defect("a remembered answer cannot be read", error.into()))
    }

    /// Keeps the answer, in the transaction of its effect.
    pub async fn remember(&self, tx: &mut Tx, source: &Source, answer: &impl Message) -> Result<()> {
        match self.key() {
            Some(key) => Ok(request::remember(tx, &key, &answer.encode_to_vec(), source.now()).await?),
            None => Ok(()),
        }
    }

    fn key(&self) -> Option<Key<'_>> {
        self.key.as_ref().map(|(subject, method, key, hash)| Key { subject, method, key, hash: *hash })
    }
}
