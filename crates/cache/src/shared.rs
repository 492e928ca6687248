//! The second level: values in Redis, which replicas share.

use std::sync::LazyLock;
use std::time::Duration;

use ids::Source;
use keyspace::Keyspace;
use keyspace::redis::{Script, cmd};
use tokio::time::timeout;

use crate::Entry;

/// A load that takes longer is not shared.
const LEASE: Duration = Duration::from_secs(30);
/// A larger value is not shared: it would hold up the commands behind it.
const MOST_BYTES: usize = 1 << 20;

static FIND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("find.lua")));
static KEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("keep.lua")));

/// Values in Redis under leases. Whoever finds nothing loads under the lease of the key; an invalidation ends the lease, so that what
/// was loaded under it is not kept.
pub(crate) struct Shared<K, V> {
    pub(crate) name: &'static str,
    pub(crate) keyspace: Keyspace,
    pub(crate) source: Source,
    pub(crate) patience: Duration,
    pub(crate) key: fn(&K) -> String,
    pub(crate) encode: fn(&V) -> Vec<u8>,
    pub(crate) decode: fn(&[u8]) -> Option<V>,
}

/// What is there for a key.
pub(crate) enum Found<V> {
    Value(Entry<V>),
    /// Nothing. What is loaded from now on may be kept under this lease.
    Lease(Vec<u8>),
    /// Redis does not say.
    Unknown,
}

impl<K, V> Shared<K, V> {
    pub(crate) async fn find(&self, key: &K) -> Found<V> {
        let lease: [u8; 16] = self.source.bytes();
        let mut script = FIND.key(self.place(key));
        let answer = self.keyspace.script(script.arg(&lease).arg(millis(LEASE)));
        let Ok(Ok((found, bytes, left))) = timeout(self.patience, answer).await else { return Found::Unknown };
        let bytes: Vec<u8> = bytes;
        if found {
            let entry = |value| Found::Value(Entry { value, left: Duration::from_millis(left) });
            (self.decode)(&bytes).map_or(Found::Unknown, entry)
        } else {
            Found::Lease(bytes)
        }
    }

    /// Keeps a value that was loaded under a lease, if that is still good.
    pub(crate) async fn keep(&self, key: &K, lease: &[u8], value: &V, life: Duration) {
        let bytes = (self.encode)(value);
        if bytes.len() > MOST_BYTES {
            return;
        }
        let mut script = KEEP.key(self.place(key));
        let kept = self.keyspace.script::<()>(script.arg(lease).arg(bytes).arg(millis(life)));
        // If Redis is away, the next one loads again.
        let _ = timeout(self.patience, kept).await;
    }

    /// Ends the value of `key` and the lease under which it is being loaded. This one waits: if it cannot be done, others get the old
    /// value until its time is over.
    pub(crate) async fn forget(&self, key: &K) {
        if let Err(error) = self.keyspace.run::<()>(cmd("DEL").arg(self.place(key))).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                cache = self.name,
                error,
                "A value that is out of date stays in Redis until its time is over"
            );
        }
    }

    /// Each key has a slot of its own, so that a cluster spreads them.
    fn place(&self, key: &K) -> String {
        self.keyspace.key(&format!("cache/{}/{}", self.name, (self.key)(key)), "value")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
