use std::fmt;
use std::str::FromStr;

pub use crate::generated::tables::{METHODS, PASSTHROUGHS};

/// One RPC, and what its annotations say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// As it stands in an HTTP/2 request: `/guildhall.content.v1.PostService/GetPost`.
    pub path: &'static str,
    /// The service whose package it is in, `content`; empty for what several services implement.
    pub owner: &'static str,
    /// `GetPost`.
    pub name: &'static str,
    /// Who may call.
    pub access: Access,
    /// How the edge limits calls.
    pub limit: LimitClass,
    /// How an answer may be cached; `None` is `no-store`.
    pub cache: Option<Cache>,
    /// What crosses the edge beyond JSON.
    pub http: HttpRules,
    /// Whether a call may be made again.
    pub idempotency: Idempotency,
    /// The field of the request that is its idempotency key, by its name in the `.proto`.
    pub idempotency_key: Option<&'static str>,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server sends a stream.
    pub server_streaming: bool,
    /// The full name of the request's message.
    pub input: &'static str,
    /// The full name of the answer's message.
    pub output: &'static str,
}

/// The RPC at that path; `None` where the contracts have none.
pub fn method(path: &str) -> Option<&'static Method> {
    let index = METHODS.binary_search_by(|method| method.path.cmp(path)).ok()?;
    METHODS.get(index)
}

/// The gate of an RPC: all of its conditions must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The service accounts that may call; `*` is every workload of the trust domain.
    pub workloads: &'static [&'static str],
    /// Whether a person takes part.
    pub user: User,
    /// Scopes that the token must carry, all of them.
    pub scopes: &'static [&'static str],
    /// The lowest role that suffices.
    pub role: Option<Role>,
    /// The name of the rule in the service's permission table that decides about the one resource.
    pub resource_rule: Option<&'static str>,
}

/// Whether a person takes part in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Only the workload is looked at; a user's token is neither read nor passed on.
    WorkloadOnly,
    /// A token is not needed; one that is sent must be valid.
    Anonymous,
    /// A valid access token is needed.
    Authenticated,
}

/// How the edge limits calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitClass {
    /// Cheap reads; what an RPC without a limit has.
    Read,
    /// Changes.
    Write,
    /// Costly reads.
    Search,
    /// Calls that test a secret.
    Credential,
    /// Long streams and whole-database operations.
    Bulk,
}

/// How a successful answer may be cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Seconds that a copy stays fresh.
    pub max_age: u32,
    /// Whether caches shared between people may keep an answer to a call without a token.
    pub public: bool,
}

/// What crosses the edge beyond JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpRules {
    /// Request headers handed to the RPC as metadata `x-http-<name>`, lower case.
    pub request_headers: &'static [&'static str],
    /// Statuses besides 200 that the RPC may set by metadata `x-http-code`.
    pub statuses: &'static [u16],
    /// Response headers that the RPC may set by metadata `x-http-<name>`, lower case.
    pub response_headers: &'static [&'static str],
    /// The media types that an `HttpBody` answer may have, for the documentation.
    pub produces: &'static [&'static str],
}

impl HttpRules {
    /// Nothing but JSON.
    pub const NONE: Self = Self { request_headers: &[], statuses: &[], response_headers: &[], produces: &[] };
}

/// Whether a call may be made again (`idempotency_level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Not said: not without an idempotency key.
    Unknown,
    /// It changes nothing.
    NoSideEffects,
    /// Twice has the effect of once.
    Idempotent,
}

/// A path that the edge proxies, unread, to the HTTP router of the service that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passthrough {
    /// An exact path.
    pub path: &'static str,
    /// HTTP methods that are let through.
    pub methods: &'static [&'static str],
    /// Workloads that may call it; `*` is every workload of the trust domain.
    pub workloads: &'static [&'static str],
    /// How the edge limits calls.
    pub limit: LimitClass,
    /// The service that answers, `auth`.
    pub owner: &'static str,
}

impl Passthrough {
    /// Whether the HTTP method is let through. HEAD is wherever GET is (RFC 9110, section 9.3.2).
    pub fn allows(&self, method: &str) -> bool {
        self.methods.contains(&if method == "HEAD" { "GET" } else { method })
    }
}

/// What a person may do; a higher role includes the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everybody with an account.
    Member,
    /// Looks after what others publish.
    Moderator,
    /// Runs games and storage.
    Operator,
    /// May do everything.
    Admin,
}

impl Role {
    /// Every role, lowest first.
    pub const ALL: [Self; 4] = [Self::Member, Self::Moderator, Self::Operator, Self::Admin];

    /// Its name in the contracts and in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownRole;

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role is member, moderator, operator or admin")
    }
}

impl std::error::Error for UnknownRole {}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or(UnknownRole)
    }
}
