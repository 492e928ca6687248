//! Tags: what posts are about, in their authors' words.

use ids::TagId;

pub use crate::name::{Blank, Name};
use crate::revision::Revision;

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The tag's id.
    pub id: TagId,
    /// The name, as it is shown with every post.
    pub name: Name,
    /// Posts with it that everybody may read.
    pub posts: i64,
    /// How often it has changed, and when.
    pub revision: Revision,
}
