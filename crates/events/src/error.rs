//! What can go wrong between services.

use status::{Problem, Reason};

/// Why an event was not taken or a subscription not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The outbox, the inbox or the dead letters could not be reached.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The bus could not do it now.
    #[error(transparent)]
    Redis(#[from] keyspace::Error),
    /// Events of the service are gone for which the bus has given receipts: they have to be published again.
    #[error("the bus has lost events of {0}")]
    Lost(String),
    /// The event's payload is over [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    #[error("an event of {topic} has {size} bytes, more than an event may have")]
    TooLarge {
        /// The event's topic.
        topic: &'static str,
        /// Its size in bytes.
        size: usize,
    },
    /// The event has no key, so that nothing orders it.
    #[error("an event of {0} has an empty key")]
    NoKey(&'static str),
    /// The consumer is subscribed already in this process.
    #[error("the consumer {0} is subscribed already")]
    Taken(&'static str),
    /// A work subscription needs a database for its dead letters.
    #[error("the consumer {0} has nowhere to put its dead letters")]
    NoDeadLetters(&'static str),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Redis(error) => error.into(),
            other => Self::new(Reason::Internal).because(other),
        }
    }
}
