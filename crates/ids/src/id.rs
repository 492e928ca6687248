use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

use uuid::Uuid;

/// An id that only fits the kind of thing it was made for.
pub trait TypedId:
    From<Uuid> + Into<Uuid> + Display + FromStr<Err = uuid::Error> + Debug + Copy + Ord + Hash + Send + Sync + 'static
{
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl TypedId for $name {}
    )* };
}

ids! {
    /// A person's account.
    UserId;
    /// One login of a person, from which access tokens are refreshed.
    SessionId;
    /// A post.
    PostId;
    /// A node of the tree of categories.
    CategoryId;
    /// A tag.
    TagId;
    /// A line of a portfolio's résumé.
    ResumeEntryId;
    /// An event, the same at every delivery.
    EventId;
    /// An event that a consumer gave up on.
    DeadLetterId;
    /// A key that signs tokens; its text is the `kid`.
    SigningKeyId;
    /// An access token; its text is the `jti`.
    TokenId;
    /// A mail to be sent.
    MailId;
}
