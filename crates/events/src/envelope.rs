//! An event on its way, with the attributes of a CloudEvent.

use bytes::Bytes;
use contracts::Event;
use ids::{EventId, Timestamp};

use crate::Failure;

/// An event and where it comes from. The attributes are those of CloudEvents 1.0 (`id`, `source`, `type` as `topic`, `time`) with its
/// partitioning (`key`) and tracing (`traceparent`) extensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The event's id; a consumer knows it by this.
    pub id: EventId,
    /// The service that emitted it.
    pub source: String,
    /// What kind of event it is.
    pub topic: String,
    /// The aggregate that it is about; events of one key arrive in order.
    pub key: String,
    /// The aggregate's version after the change.
    pub version: i64,
    /// When it happened.
    pub time: Timestamp,
    /// The W3C trace context of the change.
    pub traceparent: Option<String>,
    /// The encoded message.
    pub payload: Bytes,
}

impl Envelope {
    /// The event's message. What is no `E` is rejected: trying again would not help.
    pub fn decode<E: Event>(&self) -> Result<E, Failure> {
        if self.topic != E::TOPIC {
            return Err(Failure::Reject(format!("an event of {} is not one of {}", self.topic, E::TOPIC)));
        }
        E::decode(self.payload.clone()).map_err(|_| Failure::Reject("the payload cannot be decoded".into()))
    }
}

/// An event as the outbox and the dead letters keep it.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) id: EventId,
    source: String,
    topic: String,
    key: String,
    version: i64,
    time: Timestamp,
    traceparent: Option<String>,
    payload: Vec<u8>,
}

impl From<Row> for Envelope {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            source: row.source,
            topic: row.topic,
            key: row.key,
            version: row.version,
            time: row.time,
            traceparent: row.traceparent,
            payload: row.payload.into(),
        }
    }
}
