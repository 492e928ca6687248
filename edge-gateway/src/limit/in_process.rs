//! Buckets in the memory of this process, for a single edge and for development.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ids::Timestamp;
use moka::{future::Cache, policy::EvictionPolicy};

use super::{Buckets, Error, Level, Rate};

/// A bucket as one number: the time at which it will be full again (the "theoretical arrival time" of the generic cell
/// rate algorithm, ITU-T I.371), in microseconds since the epoch.
type FullAt = Arc<AtomicI64>;

#[derive(Debug)]
pub struct InProcess {
    buckets: Cache<String, FullAt>,
}

impl InProcess {
    /// Keeps at most `most` buckets. The longest unused go first: a policy that asks whether a newcomer is worth keeping
    /// would give every newcomer a full bucket again and again.
    pub fn new(most: u64) -> Self {
        let buckets = Cache::builder()
            .max_capacity(most)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(super::MOST_INTERVAL)
            .build();
        Self { buckets }
    }
}

#[async_trait]
impl Buckets for InProcess {
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Level, Error> {
        let bucket = self.buckets.get_with_by_ref(key, async { FullAt::default() }).await;
        let mut seen = bucket.load(Ordering::Relaxed);
        loop {
            let (full_at, level) = after(seen, rate, now.micros());
            match bucket.compare_exchange_weak(seen, full_at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(level),
                Err(changed) => seen = changed,
            }
        }
    }
}

/// The bucket after one call, and what that call came to.
fn after(full_at: i64, rate: Rate, now: i64) -> (i64, Level) {
    let interval = i64::try_from(rate.interval().as_micros()).unwrap_or(i64::MAX);
    let depth = interval.saturating_mul(i64::from(rate.burst.max(1)));
    // Not before now, or an unused bucket would overflow; not beyond its depth, or a clock set back would shut it.
    let full_at = full_at.clamp(now, now.saturating_add(depth));
    let taken = full_at.saturating_add(interval);
    let wait = taken.saturating_sub(now).saturating_sub(depth);
    let (full_at, allowed) = if wait <= 0 { (taken, true) } else { (full_at, false) };
    let missing = full_at - now;
    let level = Level {
        allowed,
        remaining: u32::try_from((depth - missing) / interval).unwrap_or(u32::MAX),
        full_after: micros(missing),
        retry_after: micros(wait),
    };
    (full_at, level)
}

fn micros(value: i64) -> Duration {
    Duration::from_micros(u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::conformance, *};

    #[tokio::test]
    async fn passes_the_suite_of_every_bucket_store() {
        conformance::suite(|| InProcess::new(1000)).await;
    }

    #[tokio::test]
    async fn forgets_the_longest_unused_bucket_first() {
        let buckets = InProcess::new(2);
        let rate = Rate { per_second: 0.001, burst: 1 };
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        for key in ["a", "b", "c"] {
            assert!(buckets.take(key, rate, now).await.expect("in process").allowed);
            buckets.buckets.run_pending_tasks().await;
        }
        assert!(!buckets.take("c", rate, now).await.expect("in process").allowed, "the newest is kept");
        assert!(buckets.take("a", rate, now).await.expect("in process").allowed, "the oldest was forgotten");
    }

    proptest! {
        /// Against the definition: a level that fills steadily and is capped at the burst.
        #[test]
        fn allows_exactly_what_a_bucket_of_whole_drops_would(
            burst in 1_u32..20,
            interval in 1_i64..1_000_000,
            gaps in prop::collection::vec(0_i64..3_000_000, 1..200),
        ) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
            let rate = Rate { per_second: 1e6 / interval as f64, burst };
            let interval = i64::try_from(rate.interval().as_micros()).expect("small");
            let depth = interval * i64::from(burst);
            let (mut now, mut full_at, mut drops) = (1_800_000_000_000_000, 0, depth);
            for gap in gaps {
                now += gap;
                drops = (drops + gap).min(depth);
                let expected = drops >= interval;
                let (next, level) = after(full_at, rate, now);
                prop_assert_eq!(level.allowed, expected);
                if expected {
                    drops -= interval;
                } else {
                    prop_assert_eq!(level.retry_after, micros(interval - drops));
                }
                prop_assert_eq!(i64::from(level.remaining), drops / interval);
                prop_assert_eq!(level.full_after, micros(depth - drops));
                full_at = next;
            }
        }
    }
}
