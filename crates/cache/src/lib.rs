//! A cache in the process: bounded, coalescing, invalidated by events. With [`Cache::shared`] it has a second level in Redis, so that
//! of all replicas one loads.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use cache::{Cache, Settings};
//! # async fn fetch(id: u64) -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn example() -> Result<(), std::sync::Arc<std::io::Error>> {
//! let names: Cache<u64, String> = Cache::new("author_names", Settings { capacity: 10_000, ttl: Duration::from_secs(60) });
//! let name = names.get_or_load(7, fetch(7)).await?; // callers that ask at the same time share one load
//! names.invalidate(&7).await; // by a broadcast event; one that is missed is bounded by the TTL
//! # Ok(())
//! # }
//! ```
//!
//! Values are cloned out of it: put an `Arc` around large ones.

mod shared;

use std::fmt::{self, Display};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ids::Source;
use keyspace::Keyspace;
use prost::Message;

use shared::{Found, Shared};

/// Keys share this many invalidation counters: an invalidation costs about one in so many other entries too.
const STRIPES: usize = 1024;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries at most; the least used go first.
    pub capacity: u64,
    /// How long an entry is used at most, counted from its load, on however many levels.
    pub ttl: Duration,
}

/// Values by key, loaded when they are first asked for. Clones are the same cache.
#[derive(Clone)]
pub struct Cache<K, V> {
    name: &'static str,
    ttl: Duration,
    entries: moka::future::Cache<(u64, K), Entry<V>>,
    generations: Arc<Generations>,
    shared: Option<Arc<Shared<K, V>>>,
}

/// A value, and for how long it is good.
#[derive(Clone)]
struct Entry<V> {
    value: V,
    left: Duration,
}

/// An entry lives as long as it is good.
struct Life;

impl<K, V> moka::Expiry<K, Entry<V>> for Life {
    fn expire_after_create(&self, _: &K, entry: &Entry<V>, _: Instant) -> Option<Duration> {
        Some(entry.left)
    }
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
        let entries = moka::future::Cache::builder().max_capacity(settings.capacity).expire_after(Life).build();
        let counters = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        let generations = Arc::new(Generations { counters, hasher: RandomState::new() });
        Self { name, ttl: settings.ttl, entries, generations, shared: None }
    }

    /// The value of `key`, loaded by `load` if it is not there. Callers that ask for it meanwhile wait for the same load. An error is
    /// theirs too, and is not kept.
    pub async fn get_or_load<E>(&self, key: K, load: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        let source = OnceLock::new();
        let generation = self.generations.of(&key).load(Ordering::Acquire);
        let entry = self
            .entries
            .try_get_with((generation, key.clone()), async {
                let found = match &self.shared {
                    Some(shared) => shared.find(&key).await,
                    None => Found::Unknown,
                };
                if let Found::Value(entry) = found {
                    source.get_or_init(|| "shared");
                    return Ok(entry);
                }
                source.get_or_init(|| "miss");
                let value = load.await?;
                if let (Some(shared), Found::Lease(lease)) = (&self.shared, found) {
                    shared.keep(&key, &lease, &value, self.ttl).await;
                }
                Ok(Entry { value, left: self.ttl })
            })
            .await;
        let outcome = source.into_inner().unwrap_or("hit");
        metrics::counter!("guildhall_cache_requests_total", "cache" => self.name, "outcome" => outcome).increment(1);
        entry.map(|entry| entry.value)
    }

    /// Forgets the value of `key`. Whoever asks from now on gets one that was loaded from now on. With a second level each replica is
    /// told; and where Redis is away and cannot be, the TTL bounds what it brings back.
    pub async fn invalidate(&self, key: &K) {
        // The far level first: a look-up in between would bring its value back to the near one.
        if let Some(shared) = &self.shared {
            shared.forget(key).await;
        }
        self.generations.of(key).fetch_add(1, Ordering::AcqRel);
    }
}

impl<K, V> Cache<K, V>
where
    K: Display,
    V: Message + Default,
{
    /// The same with a second level in Redis: what one replica has loaded, the others find. While Redis is away, full, or slower than
    /// `patience`, each loads for itself. The text of a key tells it from others and holds no braces.
    #[must_use]
    pub fn shared(self, keyspace: Keyspace, source: Source, patience: Duration) -> Self {
        let shared = Shared {
            name: self.name,
            keyspace,
            source,
            patience,
            key: K::to_string,
            encode: V::encode_to_vec,
            decode: |bytes| V::decode(bytes).ok(),
        };
        Self { shared: Some(Arc::new(shared)), ..self }
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
