pub use crate::generated::tables::TOPICS;

/// A message that services publish: one with `(guildhall.mesh.v1.topic)`.
pub trait Event: prost::Message + Default {
    /// Where it is published, such as `content.post.created`.
    const TOPIC: &'static str;

    /// The id of the aggregate that changed: events with the same key are delivered in order.
    fn key(&self) -> &str;
}

/// A topic of the contracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// `content.post.created`.
    pub name: &'static str,
    /// The full name of its message, `guildhall.content.v1.PostCreated`.
    pub message: &'static str,
    /// The service that publishes it, `content`.
    pub owner: &'static str,
}
