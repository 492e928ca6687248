//! Buckets in the memory of this process: for a deployment of one process, and for the time in which Redis is away.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ids::Source;

use crate::{Claim, Key, Level, Limits, Refused, UNLIMITED, stricter};

/// Buckets in memory, in bounded number: the longest unused are forgotten first.
pub struct InProcess {
    buckets: Mutex<Buckets>,
    /// One process has one clock, so it is the caller's; a test moves it.
    source: Source,
}

impl InProcess {
    /// Keeps at most `capacity` buckets, and surely those that were among the last `capacity / 2` to be asked for.
    pub fn new(capacity: usize, source: Source) -> Self {
        let half = (capacity / 2).max(1);
        Self { buckets: Mutex::new(Buckets { half, young: HashMap::new(), old: HashMap::new() }), source }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moments, in microseconds since the epoch, at which the buckets are full. Whatever is asked for is young; once half of the
/// capacity is, what has not been asked for meanwhile goes.
struct Buckets {
    half: usize,
    young: HashMap<Key, i64>,
    old: HashMap<Key, i64>,
}

impl Buckets {
    /// Takes `calls` out of a bucket if it has room for one; none, to see whether it has; less than none, to give back.
    fn step(&mut self, claim: &Claim, calls: i64, now: i64) -> Result<Level, Refused> {
        let (interval, depth) = (claim.rate.interval, claim.rate.depth());
        let seen = self.young.get(&claim.key).copied().or_else(|| self.old.remove(&claim.key)).unwrap_or(now);
        // Not before now, or an unused bucket would overflow; not beyond its depth, or a clock set back would shut it.
        let mut full_at = seen.clamp(now, now + depth);
        let wait = full_at + interval - now - depth;
        if calls < 0 || wait <= 0 {
            full_at = (full_at + calls * interval).max(now);
        }
        self.keep(claim.key, full_at);
        claim.rate.judge(full_at - now, wait)
    }

    fn keep(&mut self, key: Key, full_at: i64) {
        if self.young.len() == self.half && !self.young.contains_key(&key) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, full_at);
    }
}

#[async_trait]
impl Limits for InProcess {
    async fn take(&self, claims: &[Claim]) -> Result<Level, Refused> {
        let mut buckets = self.buckets();
        let now = self.source.now().micros();
        let mut all =
            |calls| claims.iter().fold(UNLIMITED, |answer, claim| stricter(answer, buckets.step(claim, calls, now)));
        all(0)?;
        all(1)
    }

    async fn give_back(&self, claims: &[Claim]) {
        let mut buckets = self.buckets();
        let now = self.source.now().micros();
        for claim in claims {
            let _ = buckets.step(claim, -1, now);
        }
    }

    async fn restore(&self, claims: &[Claim]) {
        let mut buckets = self.buckets();
        for claim in claims {
            buckets.young.remove(&claim.key);
            buckets.old.remove(&claim.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Rate;

    #[tokio::test]
    async fn memory_is_bounded_whoever_asks_for_what() {
        let limits = InProcess::new(100, Source::system());
        for number in 0..2000_u64 {
            let subject = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
            let key = Key::new("test", &subject.to_string());
            let _ = limits.take(&[Claim { key, rate: Rate::new(1, Duration::from_secs(1)) }]).await;
            let buckets = limits.buckets();
            assert!(buckets.young.len() + buckets.old.len() <= 100);
        }
    }
}
