//! How much one client may ask: token buckets per address and per user, by rate class and tier.
//!
//! Where the buckets are is the platform's choice: in this process, or where all replicas of the edge take from them (`::limit`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use ::limit::{Claim, Key, Level, Limits, Refused};
use http::{HeaderMap, HeaderName, HeaderValue};
use ids::UserId;
use mesh::Tier;
use serde::Deserialize;
use status::{Problem, Reason};

use crate::transcode::Limit;

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
    fn times(self, factor: f64) -> ::limit::Rate {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
        let burst = (f64::from(self.burst) * factor) as u32;
        let interval = Duration::try_from_secs_f64(1.0 / (self.per_second * factor)).unwrap_or(Duration::MAX);
        ::limit::Rate::new(burst, interval)
    }
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
pub struct Settings {
    /// Multiplies every rate and burst.
    pub factor: f64,
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
    settings: Arc<Settings>,
    limits: Arc<dyn Limits>,
}

/// A bucket that a call was taken from, for the `RateLimit` headers.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    class: &'static str,
    rate: ::limit::Rate,
    level: Level,
}

impl Limiter {
    pub fn new(settings: Settings, limits: Arc<dyn Limits>) -> Self {
        for class in [Limit::Read, Limit::Write, Limit::Search, Limit::Credential, Limit::Bulk] {
            metrics::counter!("guildhall_edge_rate_limited_total", "class" => name(class)).increment(0);
        }
        Self { settings: Arc::new(settings), limits }
    }

    /// Takes a call from the client address's bucket. An IPv6 client is its /64: it owns all of it.
    pub async fn address(&self, class: Limit, client: IpAddr) -> Result<Grant, Refusal> {
        self.take(class, "address", &network(client).to_string(), self.settings.address.of(class)).await
    }

    /// Takes a call from the user's bucket.
    pub async fn user(&self, class: Limit, user: UserId, tier: Tier) -> Result<Grant, Refusal> {
        let classes = match tier {
            Tier::Free => &self.settings.free,
            Tier::Premium => &self.settings.premium,
            Tier::Enterprise => &self.settings.enterprise,
        };
        self.take(class, "user", &user.to_string(), classes.of(class)).await
    }

    async fn take(&self, class: Limit, kind: &str, subject: &str, rate: Rate) -> Result<Grant, Refusal> {
        let (class, rate) = (name(class), rate.times(self.settings.factor));
        let claim = Claim { key: Key::new(&format!("edge {kind} {class}"), subject), rate };
        match self.limits.take(&[claim]).await {
            Ok(level) => Ok(Grant { class, rate, level }),
            Err(Refused { level, retry_after }) => {
                metrics::counter!("guildhall_edge_rate_limited_total", "class" => class).increment(1);
                let problem = Problem::new(Reason::RateLimited).retry_after(retry_after);
                Err(Refusal { problem, grant: Grant { class, rate, level } })
            }
        }
    }
}

/// A call that is not let through.
#[derive(Debug)]
pub struct Refusal {
    pub problem: Problem,
    pub grant: Grant,
}

impl Grant {
    /// Of two buckets, the one that is emptier is the one that a client must heed.
    pub fn tighter(one: Self, other: Self) -> Self {
        if other.level.remaining < one.level.remaining { other } else { one }
    }

    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn write(self, headers: &mut HeaderMap) {
        let window = whole_seconds(self.rate.window());
        let policy = format!("\"{}\";q={};w={window}", self.class, self.rate.burst());
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
    use ::limit::InProcess;
    use ids::{ManualClock, Source, SystemRandom, Timestamp};

    use super::*;

    fn limiter() -> Limiter {
        let rate = Rate { per_second: 1.0, burst: 2 };
        let classes = Classes { read: rate, write: rate, search: rate, credential: rate, bulk: rate };
        let generous = Classes { read: Rate { per_second: 10.0, burst: 20 }, ..classes };
        let settings =
            Settings { factor: 1.0, address: classes, free: classes, premium: generous, enterprise: generous };
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        Limiter::new(settings, Arc::new(InProcess::new(100, Source::new(clock, Arc::new(SystemRandom)))))
    }

    #[tokio::test]
    async fn addresses_of_one_ipv6_network_share_a_bucket_and_ipv4_addresses_do_not() {
        let limiter = limiter();
        let allowed = async |address: &str| {
            let address = address.parse().expect("an address");
            limiter.address(Limit::Read, address).await.is_ok()
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
            limiter.user(Limit::Read, user, Tier::Free).await.expect("within the burst");
        }
        let refusal = limiter.user(Limit::Read, user, Tier::Free).await.expect_err("beyond the burst");
        assert_eq!(refusal.problem.reason(), Reason::RateLimited);
        assert_eq!(refusal.problem.retry_delay(), Some(Duration::from_secs(1)));
        limiter.user(Limit::Write, user, Tier::Free).await.expect("another class");
        let other = UserId::from(ids::Uuid::from_u128(8));
        for _ in 0..20 {
            limiter.user(Limit::Read, other, Tier::Premium).await.expect("a higher tier");
        }
    }

    #[tokio::test]
    async fn the_headers_tell_policy_and_level() {
        let limiter = limiter();
        let grant = limiter.address(Limit::Search, [192, 0, 2, 1].into()).await.expect("allowed");
        let mut headers = HeaderMap::new();
        grant.write(&mut headers);
        assert_eq!(headers[POLICY], "\"search\";q=2;w=2");
        assert_eq!(headers[LEVEL], "\"search\";r=1;t=1");
    }

    #[test]
    fn the_factor_multiplies_rate_and_burst() {
        let rate = Rate { per_second: 0.5, burst: 3 };
        assert_eq!(rate.times(1000.0), ::limit::Rate::new(3000, Duration::from_millis(2)));
        assert_eq!(rate.times(0.0), ::limit::Rate::new(1, Duration::from_hours(24)));
    }
}
