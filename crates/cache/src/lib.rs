//! A cache in the process: bounded, coalescing, invalidated by events.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use cache::{Cache, Settings};
//! # async fn fetch(id: u64) -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn example() -> Result<(), std::sync::Arc<std::io::Error>> {
//! let names: Cache<u64, String> = Cache::new("author_names", Settings { capacity: 10_000, ttl: Duration::from_secs(60) });
//! let name = names.get_or_load(7, fetch(7)).await?; // callers that ask at the same time share one load
//! names.invalidate(&7); // by a broadcast event; one that is missed is bounded by the TTL
//! # Ok(())
//! # }
//! ```
//!
//! Values are cloned out of it: put an `Arc` around large ones. A second level that replicas share would go behind [`Cache`], with
//! the same methods.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Keys share this many invalidation counters: an invalidation costs about one in so many other entries too.
const STRIPES: usize = 1024;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries at most; the least used go first.
    pub capacity: u64,
    /// How long an entry is used at most, counted from its load.
    pub ttl: Duration,
}

/// Values by key, loaded when they are first asked for. Clones are the same cache.
#[derive(Clone)]
pub struct Cache<K, V> {
    name: &'static str,
    entries: moka::future::Cache<(u64, K), V>,
    generations: Arc<Generations>,
}

/// How often the keys of each stripe have been invalidated. The count is part of the key of an entry, so that a load which began before
/// an invalidation is neither found nor shared after it.
struct Generations {
    counters: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty cache. `name` is its label in metrics.
    pub fn new(name: &'static str, settings: Settings) -> Self {
        let entries = moka::future::Cache::builder().max_capacity(settings.capacity).time_to_live(settings.ttl).build();
        let counters = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        Self { name, entries, generations: Arc::new(Generations { counters, hasher: RandomState::new() }) }
    }

    /// The value of `key`, loaded by `load` if it is not there. Callers that ask for it meanwhile wait for the same load. An error is
    /// theirs too, and is not kept.
    pub async fn get_or_load<E>(&self, key: K, load: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        let missed = AtomicBool::new(false);
        let generation = self.generations.of(&key).load(Ordering::Acquire);
        let value = self
            .entries
            .try_get_with((generation, key), async {
                missed.store(true, Ordering::Relaxed);
                load.await
            })
            .await;
        let outcome = if missed.into_inner() { "miss" } else { "hit" };
        metrics::counter!("guildhall_cache_requests_total", "cache" => self.name, "outcome" => outcome).increment(1);
        value
    }

    /// Forgets the value of `key`. Whoever asks from now on gets one that was loaded from now on.
    pub fn invalidate(&self, key: &K) {
        self.generations.of(key).fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets all values.
    pub fn invalidate_all(&self) {
        for counter in &self.generations.counters {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Generations {
    fn of(&self, key: &impl Hash) -> &AtomicU64 {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let stripe = self.hasher.hash_one(key) as usize % STRIPES;
        &self.counters[stripe]
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.name).finish_non_exhaustive()
    }
}
