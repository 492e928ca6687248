//! Authors: what content knows of the people who write.

use ids::UserId;

/// A person who wrote something, as auth last described them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The person.
    pub id: UserId,
    /// The name under their posts; `None` until auth was asked.
    pub display_name: Option<String>,
    /// Whether they are shut out. Their posts are hidden meanwhile.
    pub suspended: bool,
}
