//! Tells readers that something was added to a stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyspace::Keyspace;
use keyspace::redis::cmd;
use keyspace::redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::watch;

use super::millis;

/// How long one command waits in Redis.
const WAIT: Duration = Duration::from_secs(5);

/// The bells of the streams that are read in this process. A waiting read takes a connection, so that there is one for each stream
/// however many read it; and it changes nothing, so that it may be cut off anywhere.
#[derive(Clone, Debug)]
pub(super) struct Bells {
    keyspace: Keyspace,
    pause: Duration,
    ropes: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
}

impl Bells {
    /// Bells that hang on again after `pause` when the connection is lost.
    pub(super) fn new(keyspace: Keyspace, pause: Duration) -> Self {
        Self { keyspace, pause, ropes: Arc::default() }
    }

    /// Changes whenever something was added to `stream`, and now and then without.
    pub(super) fn of(&self, stream: &str) -> watch::Receiver<()> {
        let mut ropes = self.ropes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rope) = ropes.get(stream) {
            return rope.subscribe();
        }
        let (rope, bell) = watch::channel(());
        ropes.insert(stream.to_owned(), rope.clone());
        tokio::spawn(self.clone().ring(stream.to_owned(), rope));
        bell
    }

    /// Rings until nobody listens any more.
    async fn ring(self, stream: String, rope: watch::Sender<()>) {
        loop {
            tokio::select! {
                () = rope.closed() => {}
                Err(error) = self.listen(&stream, &rope) => {
                    tracing::debug!(stream, error = %error, "Cannot wait for events in Redis; trying again");
                    // Whoever reads finds out for himself.
                    rope.send_replace(());
                    tokio::time::sleep(self.pause).await;
                }
            }
            let mut ropes = self.ropes.lock().unwrap_or_else(PoisonError::into_inner);
            if rope.is_closed() {
                ropes.remove(&stream);
                return;
            }
        }
    }

    /// Rings for as long as the connection holds.
    async fn listen(&self, stream: &str, rope: &watch::Sender<()>) -> keyspace::Result<std::convert::Infallible> {
        let mut connection = self.keyspace.blocking().await?;
        let mut last = self.last(stream).await?;
        rope.send_replace(());
        loop {
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(1).arg("BLOCK").arg(millis(WAIT));
            read.arg("STREAMS").arg(stream).arg(&last);
            let added: Option<StreamReadReply> = connection.run(&read, WAIT).await?;
            if added.is_some() {
                rope.send_replace(());
                // What came with or after the first is rung for once.
                last = self.last(stream).await?;
                rope.send_replace(());
            }
        }
    }

    async fn last(&self, stream: &str) -> keyspace::Result<String> {
        let last: StreamRangeReply =
            self.keyspace.run(cmd("XREVRANGE").arg(stream).arg(&["+", "-", "COUNT", "1"])).await?;
        Ok(last.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
    }
}
