//! Access tokens (RFC 9068): their claims, and how a service verifies one by itself.

mod keys;
mod revocations;

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use contracts::Role;
use ids::{SessionId, Source, Timestamp, UserId, Uuid};
use jsonwebtoken::{Algorithm, Validation};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use status::{Problem, Reason};

pub use keys::{KeySet, Keys, NotAKeySet, RemoteKeys};
pub use revocations::Revocations;

use crate::{Tier, User};

/// The longest token that is looked at, in bytes.
const MAX_LENGTH: usize = 16 * 1024;
/// How many verified tokens are remembered.
const CACHED: u64 = 10_000;
/// How long one is remembered at most; its `exp` counts nevertheless.
const CACHED_FOR: Duration = Duration::from_mins(15);
/// How far the issuer's clock and this one may be apart.
const LEEWAY: Duration = Duration::from_secs(5);

/// The claims of an access token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// A user's id, or a workload's SPIFFE ID.
    pub sub: String,
    /// For whom the token is meant: the platform.
    pub aud: Audience,
    /// When it expires, in seconds since the epoch.
    pub exp: i64,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// Its name, a UUIDv7. Its milliseconds tell whether a token of the same second is older than a revocation.
    pub jti: Uuid,
    /// The login that it comes from; a workload's token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// Scopes, separated by spaces.
    #[serde(default)]
    pub scope: String,
    /// Roles; one that this build does not know counts for nothing.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Decides the rate limits.
    #[serde(default)]
    pub tier: Tier,
    /// The client that asked for the token.
    #[serde(default)]
    pub client_id: String,
    /// The subject's SPIFFE ID.
    #[serde(default)]
    pub spiffe_id: String,
    /// Whether the e-mail address was verified when the token was issued.
    #[serde(default)]
    pub email_verified: bool,
}

/// One audience, or several (RFC 7519, section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// Verifies access tokens, and remembers the good ones. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: Arc<dyn Keys>,
    issuer: String,
    audience: String,
    source: Source,
    revocations: Revocations,
    /// By the token's SHA-256, so that a token is never kept as a key.
    verified: Cache<[u8; 32], Arc<Claims>>,
}

impl Verifier {
    /// Accepts tokens of `issuer`, meant for `audience` (the platform: `guildhall`), signed by one of `keys`.
    pub fn new(keys: Arc<dyn Keys>, issuer: String, audience: String, source: Source) -> Self {
        let verified = Cache::builder().max_capacity(CACHED).time_to_live(CACHED_FOR).build();
        let revocations = Revocations::new(source.clone());
        Self(Arc::new(Inner { keys, issuer, audience, source, revocations, verified }))
    }

    /// The person of a valid token. TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED otherwise; a workload's token is no
    /// person's, and so TOKEN_INVALID. UNAVAILABLE while there are no keys to tell by.
    pub async fn verify(&self, token: &str) -> Result<User, Problem> {
        let claims = self.claims(token).await?;
        let user = user(&claims, token).ok_or_else(|| invalid("the subject is no person"))?;
        self.recheck(&user)?;
        Ok(user)
    }

    /// The claims of a valid token, be it a person's or a workload's.
    pub async fn claims(&self, token: &str) -> Result<Arc<Claims>, Problem> {
        if token.len() > MAX_LENGTH {
            return Err(invalid("the token is too long"));
        }
        let name = fingerprint(token);
        let claims = if let Some(claims) = self.0.verified.get(&name).await {
            claims
        } else {
            let claims = Arc::new(self.decode(token).await?);
            self.0.verified.insert(name, Arc::clone(&claims)).await;
            claims
        };
        self.in_time(Timestamp::from_seconds(claims.exp))?;
        if let Ok(id) = claims.sub.parse() {
            self.not_revoked(id, claims.sid, claims.issued())?;
        }
        Ok(claims)
    }

    /// Whether a token that was valid still is.
    pub(crate) fn recheck(&self, user: &User) -> Result<(), Problem> {
        self.in_time(user.expires)?;
        self.not_revoked(user.id, user.session, user.issued)
    }

    /// What has been revoked; whoever hears of a revocation writes it here.
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    fn in_time(&self, expires: Timestamp) -> Result<(), Problem> {
        if self.0.source.now() < expires + LEEWAY { Ok(()) } else { Err(Problem::new(Reason::TokenExpired)) }
    }

    fn not_revoked(&self, user: UserId, session: Option<SessionId>, issued: Timestamp) -> Result<(), Problem> {
        if self.0.revocations.covers(user, session, issued) {
            return Err(Problem::new(Reason::TokenRevoked));
        }
        Ok(())
    }

    /// Signature, type, issuer and audience; the time is left to the caller, who looks at it again each time.
    async fn decode(&self, token: &str) -> Result<Claims, Problem> {
        let header = jsonwebtoken::decode_header(token).map_err(invalid)?;
        // Keys that a token brings along (jku, jwk, x5u, x5c) are never looked at: `kid` chooses among ours.
        if header.alg != Algorithm::RS256 {
            return Err(invalid("the algorithm is not RS256"));
        }
        if header.crit.is_some() {
            return Err(invalid("the header has critical extensions, of which none is known"));
        }
        if !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(invalid("the type is not at+jwt"));
        }
        let key = self.key(header.kid.as_deref().ok_or_else(|| invalid("no kid"))?).await?;

        let mut rules = Validation::new(Algorithm::RS256);
        rules.validate_exp = false; // by the injected clock instead
        rules.validate_aud = false; // below, with the issuer
        rules.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &rules).map_err(invalid)?.claims;
        if claims.iss != self.0.issuer {
            return Err(invalid("another issuer"));
        }
        if !claims.aud.contains(&self.0.audience) {
            return Err(invalid("another audience"));
        }
        if Timestamp::from_seconds(claims.iat) > self.0.source.now() + LEEWAY {
            return Err(invalid("issued in the future"));
        }
        Ok(claims)
    }

    /// One refetch for a kid that is not known: a new key may have been announced since. UNAVAILABLE if nobody can say.
    async fn key(&self, kid: &str) -> Result<Arc<jsonwebtoken::DecodingKey>, Problem> {
        if let Some(key) = self.0.keys.find(kid) {
            return Ok(key);
        }
        self.0.keys.refresh().await;
        let found = self.0.keys.find(kid);
        found.ok_or_else(|| if self.0.keys.is_current() { invalid("unknown kid") } else { undecided() })
    }
}

impl Claims {
    /// When the token was issued: by its `jti` to the millisecond where that fits the `iat`, else by `iat` alone.
    fn issued(&self) -> Timestamp {
        let iat = Timestamp::from_seconds(self.iat);
        let made = self.jti.get_timestamp().map(|time| time.to_unix());
        match made {
            Some((seconds, nanos)) if i64::try_from(seconds) == Ok(self.iat) => {
                iat + Duration::from_nanos(u64::from(nanos))
            }
            _ => iat,
        }
    }
}

/// Without anything that tells who it is.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("jti", &self.jti).field("scope", &self.scope).finish_non_exhaustive()
    }
}

fn user(claims: &Claims, token: &str) -> Option<User> {
    let roles = claims.roles.iter().filter_map(|role| role.parse::<Role>().ok());
    Some(User {
        id: claims.sub.parse().ok()?,
        session: claims.sid,
        scopes: claims.scope.split_ascii_whitespace().map(str::to_owned).collect(),
        role: roles.max().unwrap_or(Role::Member),
        tier: claims.tier,
        email_verified: claims.email_verified,
        token: token.into(),
        expires: Timestamp::from_seconds(claims.exp),
        issued: claims.issued(),
    })
}

/// RFC 9068, section 4: `at+jwt`, or the same as a full media type; compared without case (RFC 7515, section 4.1.9).
fn is_access_token(typ: &str) -> bool {
    typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
    Problem::new(Reason::TokenInvalid).because(cause)
}

/// The key may be one that this process has not heard of.
fn undecided() -> Problem {
    Problem::new(Reason::Unavailable).retry_after(Duration::from_secs(1)).because("no news of the signing keys")
}

fn fingerprint(token: &str) -> [u8; 32] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
