//! An event as an entry of a stream.

use std::collections::HashMap;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use ids::{EventId, Timestamp};
use keyspace::redis;

use crate::Envelope;

/// Bits of a receipt's number that count within one millisecond.
const SEQUENCE_BITS: u32 = 20;

/// The id of an entry: a time in milliseconds since the epoch, and a number within that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) millis: u64,
    pub(super) sequence: u64,
}

impl EntryId {
    /// The first that an entry of that time may have.
    pub(super) fn first_of(time: Timestamp) -> Self {
        Self { millis: u64::try_from(time.micros() / 1000).unwrap_or_default(), sequence: 0 }
    }

    /// The one that a receipt's number stands for.
    pub(super) fn from_number(number: i64) -> Self {
        let number = number.unsigned_abs();
        Self { millis: number >> SEQUENCE_BITS, sequence: number & ((1 << SEQUENCE_BITS) - 1) }
    }

    /// As the number of a receipt. The entries that the bus adds itself all have one of their own.
    pub(super) fn number(self) -> i64 {
        let millis = self.millis.min((1 << (63 - SEQUENCE_BITS)) - 1);
        let sequence = self.sequence.min((1 << SEQUENCE_BITS) - 1);
        (millis << SEQUENCE_BITS | sequence).cast_signed()
    }

    /// The next number after it.
    pub(super) fn next(self) -> Self {
        Self::from_number(self.number().saturating_add(1))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (millis, sequence) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self { millis: millis.parse()?, sequence: sequence.parse()? })
    }
}

impl redis::FromRedisValue for EntryId {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let text = String::from_redis_value(value)?;
        text.parse().map_err(|_| format!("{text:?} is no id of an entry").into())
    }
}

impl redis::ToRedisArgs for EntryId {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

impl redis::ToSingleRedisArg for EntryId {}

/// The fields of an entry.
pub(super) type Fields = HashMap<Vec<u8>, Vec<u8>>;

/// Arguments that one event takes: names and values.
pub(super) const WIDTH: usize = 16;

/// The fields of an event, every one of them in each: Redis keeps the names of equal sets once.
pub(super) fn encode(event: &Envelope) -> [Vec<u8>; WIDTH] {
    let field = |name: &str| name.as_bytes().to_vec();
    [
        field("id"),
        event.id.to_string().into_bytes(),
        field("source"),
        field(&event.source),
        field("type"),
        field(&event.topic),
        field("partitionkey"),
        field(&event.key),
        field("version"),
        event.version.to_string().into_bytes(),
        field("time"),
        event.time.micros().to_string().into_bytes(),
        field("traceparent"),
        field(event.traceparent.as_deref().unwrap_or_default()),
        field("data"),
        event.payload.to_vec(),
    ]
}

/// The event of an entry; none if it is no event.
pub(super) fn decode(mut fields: Fields) -> Option<Envelope> {
    let payload = fields.remove(b"data".as_slice())?.into();
    let mut text = |name: &str| fields.remove(name.as_bytes()).and_then(|value| String::from_utf8(value).ok());
    Some(Envelope {
        id: text("id")?.parse::<EventId>().ok()?,
        source: text("source")?,
        topic: text("type")?,
        key: text("partitionkey")?,
        version: text("version")?.parse().ok()?,
        time: Timestamp::from_micros(text("time")?.parse().ok()?),
        traceparent: text("traceparent").filter(|traceparent| !traceparent.is_empty()),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_and_ids_are_in_the_same_order() {
        let ids: Vec<EntryId> =
            ["1-0", "1-1", "1-1048575", "2-0", "1789000000000-7"].iter().map(|id| id.parse().unwrap()).collect();
        for (id, next) in ids.iter().zip(&ids[1..]) {
            assert!(id < next && id.number() < next.number());
            assert_eq!(EntryId::from_number(id.number()), *id);
        }
        assert_eq!(ids[2].next(), ids[3]);
        assert_eq!(ids[4].to_string(), "1789000000000-7");
    }

    #[test]
    fn an_event_comes_back_from_its_fields_and_other_fields_are_no_event() {
        let mut event = Envelope {
            id: ids::Source::system().id(),
            source: "auth".into(),
            topic: "auth.user.updated".into(),
            key: "key".into(),
            version: 3,
            time: Timestamp::from_micros(1_789_000_000_000_001),
            traceparent: None,
            payload: vec![0, 255, 13].into(),
        };
        let fields = |event: &Envelope| -> Fields {
            encode(event).chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        };
        assert_eq!(decode(fields(&event)), Some(event.clone()));
        event.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        assert_eq!(decode(fields(&event)), Some(event.clone()));
        for name in ["id", "source", "type", "partitionkey", "version", "time", "data"] {
            let mut fields = fields(&event);
            fields.remove(name.as_bytes());
            assert_eq!(decode(fields), None, "without {name}");
        }
        let mut fields = fields(&event);
        fields.insert(b"version".to_vec(), b"one".to_vec());
        assert_eq!(decode(fields), None);
    }
}
