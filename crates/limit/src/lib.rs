//! How often something may be done: buckets that fill at a steady rate, and out of which each call takes one.
//!
//! [`Limits`] is where the buckets are: [`InProcess`] keeps them in memory, [`OnRedis`] where all replicas see them. Both pass the
//! suite in [`conformance`]; a further place is held against it by `limit::conformance!`.
//!
//! A bucket is one number, the moment at which it is full again: the "theoretical arrival time" of the generic cell rate algorithm
//! (ITU-T I.371). Whoever waits as long as [`Refused`] says finds room, unless others were there first.
//!
//! # To limit something more
//! Name its buckets by a [`Key`] of a kind of its own, and take before the work is begun, so that concurrent calls do not outrun
//! the limit. What must be free of charge once it has succeeded is given back.

#[cfg(feature = "conformance")]
pub mod conformance;
mod in_process;
mod on_redis;

use std::time::Duration;

use aws_lc_rs::digest;

pub use async_trait::async_trait;
pub use in_process::InProcess;
pub use on_redis::OnRedis;

/// Buckets that a process keeps in its memory, about 100 bytes each.
pub const CAPACITY: usize = 200_000;

/// A rate of nothing, or of less than one call a day, counts as one call a day.
const MOST_INTERVAL: Duration = Duration::from_hours(24);
/// No bucket takes longer to fill. It keeps every sum with a moment within 2^53, and so exact in Lua's numbers too.
const MOST_DEPTH: Duration = Duration::from_hours(24 * 365 * 100);

/// What a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    burst: u32,
    /// Microseconds.
    interval: i64,
}

impl Rate {
    /// `burst` calls at once, at least one, and one more each `interval`, a microsecond to a day.
    pub fn new(burst: u32, interval: Duration) -> Self {
        let interval = micros(interval.clamp(Duration::from_micros(1), MOST_INTERVAL));
        let most = u32::try_from(micros(MOST_DEPTH) / interval).unwrap_or(u32::MAX);
        Self { burst: burst.clamp(1, most), interval }
    }

    /// The calls at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The time in which an empty bucket becomes full.
    pub fn window(self) -> Duration {
        duration(self.depth())
    }

    fn depth(self) -> i64 {
        self.interval * i64::from(self.burst)
    }

    /// What a bucket looks like that lacks `missing` microseconds, and whether it has room for a call: if not, `wait` is not zero.
    fn judge(self, missing: i64, wait: i64) -> Result<Level, Refused> {
        let remaining = u32::try_from((self.depth() - missing) / self.interval).unwrap_or(0);
        let level = Level { remaining, full_after: duration(missing) };
        if wait > 0 { Err(Refused { level, retry_after: duration(wait) }) } else { Ok(level) }
    }
}

/// Names a bucket. A hash, so that no place of buckets holds personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The bucket of `subject` for a kind of calls; no kind holds a zero byte.
    pub fn new(kind: &str, subject: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, format!("{kind}\0{subject}").as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

/// One call's claim on one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub key: Key,
    pub rate: Rate,
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Calls that are left at this moment.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub full_after: Duration,
}

/// A bucket has no room for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub level: Level,
    /// Until the call would find room.
    pub retry_after: Duration,
}

/// Where the buckets are. A bucket that is seen for the first time is full.
///
/// None of this fails: a place that cannot be reached has another behind it, so that a limiter that is down neither opens the door
/// nor takes the product with it.
#[async_trait]
pub trait Limits: Send + Sync + 'static {
    /// Takes one call out of each bucket, or, if one of them has no room, out of none. The keys differ. Answers the bucket with the
    /// least left, or of those without room the one that takes longest to have some.
    async fn take(&self, claims: &[Claim]) -> Result<Level, Refused>;
    /// Gives back what [`Self::take`] took.
    async fn give_back(&self, claims: &[Claim]);
    /// Makes the buckets full: those who emptied them do not count any more.
    async fn restore(&self, claims: &[Claim]);
}

/// Of the answers for two buckets, the one that the caller must heed.
fn stricter(one: Result<Level, Refused>, other: Result<Level, Refused>) -> Result<Level, Refused> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(if other.remaining < one.remaining { other } else { one }),
        (Err(one), Err(other)) => Err(if other.retry_after > one.retry_after { other } else { one }),
        (Err(refused), Ok(_)) | (Ok(_), Err(refused)) => Err(refused),
    }
}

/// The answer where nothing is claimed.
const UNLIMITED: Result<Level, Refused> = Ok(Level { remaining: u32::MAX, full_after: Duration::ZERO });

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_stays_within_what_can_be_reckoned_with() {
        assert_eq!(Rate::new(0, Duration::ZERO), Rate { burst: 1, interval: 1 });
        assert_eq!(Rate::new(u32::MAX, Duration::ZERO).burst(), u32::MAX);
        let slowest = Rate::new(u32::MAX, Duration::MAX);
        assert_eq!((slowest.interval, slowest.window()), (86_400_000_000, MOST_DEPTH));
    }

    #[test]
    fn a_key_is_of_its_kind_and_its_subject() {
        let key = Key::new("log-in account", "ada@example.org");
        assert_eq!(key, Key::new("log-in account", "ada@example.org"));
        assert_ne!(key, Key::new("log-in", "account ada@example.org"));
        assert_ne!(key, Key::new("mail account", "ada@example.org"));
        assert!(!format!("{key:?}").contains("ada"));
    }
}
