//! Where time, randomness and ids come from.
//!
//! Everything that needs one of the three takes a [`Source`]; a test hands in one that it controls. Nothing else in the
//! workspace reads a clock or asks for entropy.
//!
//! To add an id for a new kind of thing, add one line to the registry in `id.rs`.

mod clock;
mod id;
mod random;
mod source;
mod timestamp;

pub use clock::{Clock, ManualClock, SystemClock};
pub use id::{
    CategoryId, DeadLetterId, EventId, MailId, PostId, ResumeEntryId, SessionId, SigningKeyId, TagId, TokenId, TypedId,
    UserId,
};
pub use random::{Random, SeededRandom, SystemRandom};
pub use source::Source;
pub use timestamp::{OutOfRange, Timestamp};
pub use uuid::Uuid;
