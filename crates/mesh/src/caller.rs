use std::{fmt, str::FromStr, sync::Arc};

use contracts::Role;
use ids::{SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use status::{Problem, Reason};

use crate::Workload;

/// Who calls: the workload at the other end, and the person in whose name it does. Put into each request by the
/// authorization layer, and found there alone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated other end of the connection.
    pub workload: Workload,
    /// The person of the access token, if one was sent and the contract wants one looked at.
    pub user: Option<User>,
}

/// The person of a verified access token.
#[derive(Clone)]
pub struct User {
    /// Whose token it is.
    pub id: UserId,
    /// The login that the token comes from.
    pub session: Option<SessionId>,
    /// What the token may be used for.
    pub scopes: Arc<[String]>,
    /// The highest of the token's roles.
    pub role: Role,
    /// Decides the rate limits.
    pub tier: Tier,
    /// Whether the e-mail address was verified when the token was issued.
    pub email_verified: bool,
    /// The token itself, to be passed on.
    pub token: Arc<str>,
    /// When the token expires.
    pub expires: Timestamp,
    /// When the token was issued, to the millisecond.
    pub(crate) issued: Timestamp,
}

/// What an account may consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    #[default]
    Free,
    Premium,
    Enterprise,
}

/// The text names no tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tier is free, premium or enterprise")]
pub struct UnknownTier;

impl Tier {
    /// Every tier, lowest first.
    pub const ALL: [Self; 3] = [Self::Free, Self::Premium, Self::Enterprise];

    /// The name as it stands in tokens and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Premium => "premium",
            Self::Enterprise => "enterprise",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(name: &str) -> Result<Self, UnknownTier> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name).ok_or(UnknownTier)
    }
}

impl Caller {
    /// The caller of this request. INTERNAL when no authorization layer has seen it.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Problem> {
        let caller = request.extensions().get::<Self>();
        caller
            .cloned()
            .ok_or_else(|| Problem::new(Reason::Internal).because("the request passed no authorization layer"))
    }

    /// The person; TOKEN_MISSING when nobody is named.
    pub fn user(&self) -> Result<&User, Problem> {
        self.user.as_ref().ok_or_else(|| Problem::new(Reason::TokenMissing))
    }
}

/// Without the token.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Attaches the caller's token, so that the next service sees the same person. Where that method is for workloads alone,
/// the channel takes it off again.
pub fn on_behalf<T>(mut request: tonic::Request<T>, caller: &Caller) -> tonic::Request<T> {
    let token = caller.user.as_ref().and_then(|user| format!("Bearer {}", user.token).parse().ok());
    match token {
        Some(token) => request.metadata_mut().insert("authorization", token),
        None => request.metadata_mut().remove("authorization"),
    };
    request
}
