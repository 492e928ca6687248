//! A broadcast: every process reads for itself, from the time on that it wants.

use std::sync::Arc;

use futures_util::future::select_all;
use ids::Timestamp;
use keyspace::redis::cmd;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::entry::{EntryId, Fields, decode};
use crate::bus::{Recipient, wants};

/// Entries that are read at once.
const PAGE: usize = 100;

/// A broadcast subscription.
pub(super) struct Follower {
    shared: Arc<Shared>,
    places: Vec<Place>,
    bells: Vec<watch::Receiver<()>>,
    recipient: Recipient,
}

/// Where one stream is read next.
struct Place {
    stream: String,
    /// As `XRANGE` takes it.
    from: String,
}

impl Follower {
    /// Reads the streams with these tags from `since` on: ids are times.
    pub(super) fn new(shared: Arc<Shared>, tags: &[String], since: Timestamp, recipient: Recipient) -> Self {
        let places: Vec<_> = tags
            .iter()
            .map(|tag| Place { stream: shared.keyspace.key(tag, "stream"), from: EntryId::first_of(since).to_string() })
            .collect();
        let bells = places.iter().map(|place| shared.bells.of(&place.stream)).collect();
        Self { shared, places, bells, recipient }
    }

    /// Reads for ever. It has caught up when it has once come to the end of every stream.
    pub(super) async fn follow(mut self, caught_up: watch::Sender<bool>) {
        loop {
            for bell in &mut self.bells {
                bell.mark_unchanged();
            }
            match self.read().await {
                Ok(()) => {
                    caught_up.send_replace(true);
                    let rung = select_all(self.bells.iter_mut().map(|bell| Box::pin(bell.changed())));
                    // After that time it looks by itself.
                    let _quiet = timeout(self.shared.settings.poll, rung).await;
                }
                Err(error) => {
                    tracing::warn!(consumer = self.recipient.consumer, error = %error, "Cannot read events from Redis; trying again");
                    sleep(self.shared.settings.poll).await;
                }
            }
        }
    }

    /// Handles what there is.
    async fn read(&mut self) -> keyspace::Result<()> {
        for place in &mut self.places {
            loop {
                let mut range = cmd("XRANGE");
                range.arg(&place.stream).arg(&place.from).arg("+").arg("COUNT").arg(PAGE);
                let entries: Vec<(EntryId, Fields)> = self.shared.keyspace.run(&range).await?;
                let count = entries.len();
                for (id, fields) in entries {
                    match decode(fields) {
                        Some(event) if wants(self.recipient.topics, &event) => self.recipient.handle(&event).await,
                        Some(_) => {}
                        None => {
                            tracing::error!(stream = place.stream, %id, "An entry of a stream is no event; it is left out");
                        }
                    }
                    place.from = format!("({id}");
                }
                if count < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }
}
