//! Versions: what each edit of a post wrote.

use ids::{PostId, Timestamp, UserId};

use crate::post::Body;

/// What one edit wrote, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The post.
    pub post: PostId,
    /// Counts from 1.
    pub number: i32,
    /// Who wrote this version.
    pub editor: UserId,
    /// What was written.
    pub body: Body,
    /// When.
    pub create_time: Timestamp,
}

impl Version {
    /// The text that two versions are compared by: the title as the first line, then the Markdown.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.body.title, self.body.markdown)
    }
}
