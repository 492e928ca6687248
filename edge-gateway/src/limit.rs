//! How much one client may ask: token buckets per address and per user, by rate class and tier.
//!
//! [`Buckets`] is where the levels are kept; [`InProcess`] keeps them in this process. Another place, such as one that
//! replicas share, implements the trait and passes `conformance::suite`.

#[cfg(test)]
mod conformance;
mod in_process;

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use ids::{Timestamp, UserId};
use mesh::Tier;
use serde::Deserialize;
use status::{Problem, Reason};

use crate::transcode::Limit;

pub use in_process::InProcess;

/// What a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Calls per second in the long run. Above zero.
    pub per_second: f64,
    /// Calls at once.
    pub burst: u32,
}

impl Rate {
    /// The time in which one call's worth flows in: at least a microsecond.
    pub(crate) fn interval(self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.per_second)
            .unwrap_or(MOST_INTERVAL)
            .clamp(Duration::from_micros(1), MOST_INTERVAL)
    }

    fn times(self, factor: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
        Self { per_second: self.per_second * factor, burst: (f64::from(self.burst) * factor).max(1.0) as u32 }
    }
}

/// A rate of nothing, or of less than one call a day, counts as one call a day.
const MOST_INTERVAL: Duration = Duration::from_hours(24);

/// What taking one call out of a bucket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub allowed: bool,
    /// Calls that are left at this moment.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub full_after: Duration,
    /// Until a refused call would be let through; zero after an allowed one.
    pub retry_after: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place where the levels are kept cannot be reached.
    #[error("the buckets cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where the levels of the buckets are kept.
#[async_trait]
pub trait Buckets: Send + Sync {
    /// Takes one call out of the bucket `key`, which is full when it is seen for the first time. A refused call costs nothing.
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Level, Error>;
}

/// The rates by class.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    pub read: Rate,
    pub write: Rate,
    pub search: Rate,
    pub credential: Rate,
    pub bulk: Rate,
}

impl Classes {
    fn of(&self, class: Limit) -> Rate {
        match class {
            Limit::Read => self.read,
            Limit::Write => self.write,
            Limit::Search => self.search,
            Limit::Credential => self.credential,
            Limit::Bulk => self.bulk,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Multiplies every rate and burst.
    pub factor: f64,
    /// The most buckets that are kept; the ones longest unused are forgotten first.
    pub buckets: u64,
    /// For one client address, whoever calls from it.
    pub address: Classes,
    /// For one user, by tier.
    pub free: Classes,
    pub premium: Classes,
    pub enterprise: Classes,
}

/// Applies the limits to calls.
#[derive(Clone)]
pub struct Limiter {
    limits: Arc<Limits>,
    buckets: Arc<dyn Buckets>,
}

/// A bucket that a call was taken from, for the `RateLimit` headers.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    class: &'static str,
    rate: Rate,
    level: Level,
}

impl Limiter {
    pub fn new(limits: Limits, buckets: Arc<dyn Buckets>) -> Self {
        Self { limits: Arc::new(limits), buckets }
    }

    /// Takes a call from the client address's bucket. An IPv6 client is its /64: it owns all of it.
    pub async fn address(&self, class: Limit, client: IpAddr, now: Timestamp) -> Result<Option<Grant>, Refusal> {
        let key = format!("address/{}/{}", name(class), network(client));
        self.take(class, &key, self.limits.address.of(class), now).await
    }

    /// Takes a call from the user's bucket.
    pub async fn user(&self, class: Limit, user: UserId, tier: Tier, now: Timestamp) -> Result<Option<Grant>, Refusal> {
        let classes = match tier {
            Tier::Free => &self.limits.free,
            Tier::Premium => &self.limits.premium,
            Tier::Enterprise => &self.limits.enterprise,
        };
        let key = format!("user/{}/{user}", name(class));
        self.take(class, &key, classes.of(class), now).await
    }

    async fn take(&self, class: Limit, key: &str, rate: Rate, now: Timestamp) -> Result<Option<Grant>, Refusal> {
        let rate = rate.times(self.limits.factor);
        let level = match self.buckets.take(key, rate, now).await {
            Ok(level) => level,
            // A limiter that is down must not take the product with it, but neither may it open the door to guessing secrets.
            Err(error) if class == Limit::Credential => {
                return Err(Refusal { problem: Problem::new(Reason::Unavailable).because(error), grant: None });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "let a call through unlimited");
                return Ok(None);
            }
        };
        let grant = Grant { class: name(class), rate, level };
        if level.allowed {
            return Ok(Some(grant));
        }
        metrics::counter!("guildhall_edge_rate_limited_total", "class" => grant.class).increment(1);
        let problem = Problem::new(Reason::RateLimited).retry_after(level.retry_after);
        Err(Refusal { problem, grant: Some(grant) })
    }
}

/// A call that is not let through.
#[derive(Debug)]
pub struct Refusal {
    pub problem: Problem,
    pub grant: Option<Grant>,
}

impl Grant {
    /// Of two buckets, the one that is emptier is the one that a client must heed.
    pub fn tighter(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if other.level.remaining < one.level.remaining => Some(other),
            (one, other) => one.or(other),
        }
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn write(self, headers: &mut HeaderMap) {
        let window = self.rate.interval().saturating_mul(self.rate.burst);
        let policy = format!("\"{}\";q={};w={}", self.class, self.rate.burst, whole_seconds(window));
        let level = format!("\"{}\";r={};t={}", self.class, self.level.remaining, whole_seconds(self.level.full_after));
        for (name, value) in [(POLICY, policy), (LEVEL, level)] {
            headers.insert(name, HeaderValue::try_from(value).expect("a class name and numbers are visible ASCII"));
        }
    }
}

pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(crate) const LEVEL: HeaderName = HeaderName::from_static("ratelimit");

/// Rounded up: a client that waits as long as it is told must not come too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn name(class: Limit) -> &'static str {
    match class {
        Limit::Read => "read",
        Limit::Write => "write",
        Limit::Search => "search",
        Limit::Credential => "credential",
        Limit::Bulk => "bulk",
    }
}

/// The network that stands for one client: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Down;

    #[async_trait]
    impl Buckets for Down {
        async fn take(&self, _: &str, _: Rate, _: Timestamp) -> Result<Level, Error> {
            Err(Error::Unavailable("no route to host".into()))
        }
    }

    fn limits() -> Limits {
        let rate = Rate { per_second: 1.0, burst: 2 };
        let classes = Classes { read: rate, write: rate, search: rate, credential: rate, bulk: rate };
        let generous = Classes { read: Rate { per_second: 10.0, burst: 20 }, ..classes };
        Limits { factor: 1.0, buckets: 100, address: classes, free: classes, premium: generous, enterprise: generous }
    }

    fn limiter() -> Limiter {
        Limiter::new(limits(), Arc::new(InProcess::new(100)))
    }

    const NOON: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    #[tokio::test]
    async fn addresses_of_one_ipv6_network_share_a_bucket_and_ipv4_addresses_do_not() {
        let limiter = limiter();
        let allowed = async |address: &str| {
            let address = address.parse().expect("an address");
            limiter.address(Limit::Read, address, NOON).await.is_ok()
        };
        assert!(allowed("2001:db8::1").await);
        assert!(allowed("2001:db8::2").await);
        assert!(!allowed("2001:db8::3").await);
        assert!(allowed("2001:db8:0:1::3").await, "another /64");
        assert!(allowed("192.0.2.1").await && allowed("192.0.2.1").await);
        assert!(!allowed("::ffff:192.0.2.1").await, "a mapped address is the same client");
        assert!(allowed("192.0.2.2").await);
    }

    #[tokio::test]
    async fn a_class_has_its_own_bucket_and_a_tier_its_own_rate() {
        let limiter = limiter();
        let user = UserId::from(ids::Uuid::from_u128(7));
        for _ in 0..2 {
            limiter.user(Limit::Read, user, Tier::Free, NOON).await.expect("within the burst");
        }
        let refusal = limiter.user(Limit::Read, user, Tier::Free, NOON).await.expect_err("beyond the burst");
        assert_eq!(refusal.problem.reason(), Reason::RateLimited);
        assert_eq!(refusal.problem.retry_delay(), Some(Duration::from_secs(1)));
        limiter.user(Limit::Write, user, Tier::Free, NOON).await.expect("another class");
        let other = UserId::from(ids::Uuid::from_u128(8));
        for _ in 0..20 {
            limiter.user(Limit::Read, other, Tier::Premium, NOON).await.expect("a higher tier");
        }
    }

    #[tokio::test]
    async fn buckets_that_are_down_let_calls_through_but_for_those_that_test_a_secret() {
        let limiter = Limiter::new(limits(), Arc::new(Down));
        let client = [192, 0, 2, 1].into();
        assert!(limiter.address(Limit::Read, client, NOON).await.expect("let through").is_none());
        let refusal = limiter.address(Limit::Credential, client, NOON).await.expect_err("refused");
        assert_eq!(refusal.problem.reason(), Reason::Unavailable);
    }

    #[tokio::test]
    async fn the_headers_tell_policy_and_level() {
        let limiter = limiter();
        let grant = limiter.address(Limit::Search, [192, 0, 2, 1].into(), NOON).await.expect("allowed");
        let mut headers = HeaderMap::new();
        grant.expect("a grant").write(&mut headers);
        assert_eq!(headers[POLICY], "\"search\";q=2;w=2");
        assert_eq!(headers[LEVEL], "\"search\";r=1;t=1");
    }

    #[test]
    fn the_factor_multiplies_rate_and_burst() {
        let rate = Rate { per_second: 0.5, burst: 3 };
        assert_eq!(rate.times(1000.0), Rate { per_second: 500.0, burst: 3000 });
        assert_eq!(rate.times(0.0).burst, 1);
        assert_eq!(rate.times(0.0).interval(), MOST_INTERVAL);
    }
}
