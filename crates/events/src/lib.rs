//! Events between services: a transactional outbox, a relay, a bus and an inbox.
//!
//! A change that others must hear of appends its event in its own transaction ([`Outbox`]). The [`Relay`] hands what was committed to
//! the [`Bus`]: at least once, in order per key. A consumer records the event in the transaction of its effect ([`Inbox`]), so that the
//! effect happens once. An event that a consumer cannot handle ends in its dead letters ([`DeadLetters`]), and its key goes on.
//!
//! # To emit an event
//! Give the message a `topic` and an `event_key` in its `.proto`, and append it: `outbox.append(&mut tx, version, &event).await?`.
//! Write the aggregate's row first in that transaction: its lock is what orders the events of one key.
//!
//! # To consume an event
//! Implement [`Handler`] and subscribe it under a name of its own:
//!
//! ```text
//! #[async_trait]
//! impl Handler for AuthorNames {
//!     async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
//!         let UserUpdated { user_id } = event.decode()?;
//!         let name = self.users.display_name(&user_id).await?;            // calls come before the transaction
//!         let Some(mut tx) = self.inbox.begin(event).await? else { return Ok(()) };
//!         store::author::rename(&mut tx, &user_id, &name).await?;
//!         Ok(tx.commit().await?)
//!     }
//! }
//! ```

pub mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod dead_letter;
mod envelope;
mod error;
mod inbox;
pub mod lease;
mod outbox;
mod relay;

pub use bus::embedded::EmbeddedBus;
pub use bus::redis::RedisBus;
pub use bus::{Bus, Delivery, Failure, Handler, Receipt, Retry, Running, Subscription};
pub use dead_letter::{DeadLetter, DeadLetterRpc, DeadLetters, Replayed, Selection};
pub use envelope::Envelope;
pub use error::Error;
pub use inbox::Inbox;
pub use lease::Lease;
pub use outbox::{MAX_PAYLOAD, Outbox};
pub use relay::Relay;
pub use tonic::async_trait;

use store::Migrations;

/// The tables of outbox, inbox, dead letters and leases. They are migrated before a service's own.
pub static MIGRATIONS: Migrations = store::migrations!("migrations");
