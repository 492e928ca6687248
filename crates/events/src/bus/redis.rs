//! The bus of several processes: Redis Streams, for what Redis is good at, and nothing that depends on Redis keeping it.
//!
//! A service's events go into [`STREAMS`] streams, by a hash of their keys. Only the relay that holds the database's lease writes them
//! ([`writer`]), and it can tell from its receipts what Redis has lost. Each work consumer is a group on each stream, and one process
//! at a time owns it there ([`work`], [`owner`]), so that the events of a key stay in order. A broadcast is read by every process for
//! itself ([`follower`]). See `docs/adr/0009`.
//!
//! Keys, all of one stream in one slot: `{events/<service>/<n>}:stream` and `{events/<service>/<n>}:owner/<consumer>`; and
//! `{events/<consumer>}:members` and `{events/<service>}:bell`.

mod bell;
mod entry;
mod follower;
mod owner;
mod work;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use ids::{Source, Timestamp};
use keyspace::Keyspace;
use keyspace::redis::cmd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;

use crate::bus::{Bus, Delivery, Handler, Receipt, Recipient, Retry, Running, Subscription, count_from_zero};
use crate::{DeadLetters, Envelope, Error};
use bell::Bells;
use follower::Follower;
use work::Work;
use writer::Writer;

/// Streams of one service: so many processes share the work of one consumer. Another number would put keys into other streams, behind
/// events that are still in the old ones.
pub const STREAMS: u8 = 4;
/// Handlers of one work subscription that run at the same time.
pub const LANES: u32 = 16;

/// The times that a [`RedisBus`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How failed events are tried again.
    pub retry: Retry,
    /// How long a stream is held without being renewed: after that time, others take over from a process that was killed.
    pub lease: Duration,
    /// How often streams are looked at without being told of something new. A lost connection is made again after that time.
    pub poll: Duration,
}

impl Default for Settings {
    /// The usual [`Retry`], ten seconds, one second.
    fn default() -> Self {
        Self { retry: Retry::default(), lease: Duration::from_secs(10), poll: Duration::from_secs(1) }
    }
}

/// A [`Bus`] over Redis Streams.
#[derive(Debug)]
pub struct RedisBus {
    shared: Arc<Shared>,
    writers: Mutex<HashMap<String, Arc<[Writer]>>>,
    /// The work consumers of this process.
    taken: Arc<Mutex<HashSet<&'static str>>>,
}

/// What the bus and its subscriptions share.
#[derive(Debug)]
struct Shared {
    keyspace: Keyspace,
    source: Source,
    settings: Settings,
    bells: Bells,
}

impl Shared {
    /// The stream by which the replicas of a service tell the one whose relay publishes of what they have committed.
    fn bell(&self, service: &str) -> String {
        self.keyspace.key(&format!("events/{service}"), "bell")
    }
}

impl RedisBus {
    /// A bus with the usual times.
    pub fn new(keyspace: Keyspace, source: Source) -> Self {
        Self::with_settings(keyspace, source, Settings::default())
    }

    /// A bus that goes by other times.
    pub fn with_settings(keyspace: Keyspace, source: Source, settings: Settings) -> Self {
        let bells = Bells::new(keyspace.clone(), settings.poll);
        let shared = Arc::new(Shared { keyspace, source, settings, bells });
        Self { shared, writers: Mutex::default(), taken: Arc::default() }
    }

    fn writers(&self, service: &str) -> Arc<[Writer]> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (0..STREAMS).map(|number| Writer::new(&self.shared, service, number)).collect();
        Arc::clone(writers.entry(service.to_owned()).or_insert_with(new))
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, events: &[Envelope]) -> Result<Vec<Receipt>, Error> {
        let mut streams = BTreeMap::<_, Vec<_>>::new();
        for event in events {
            streams.entry((event.source.as_str(), stream_of(&event.key))).or_default().push(event);
        }
        let published = streams.into_iter().map(async |((service, number), events)| {
            let writers = self.writers(service);
            writers[usize::from(number)].publish(&events).await
        });
        // One that fails does not cut off the others.
        join_all(published).await.into_iter().collect()
    }

    async fn resume(&self, service: &str, newest: &[Receipt]) -> Result<Vec<Receipt>, Error> {
        let writers = self.writers(service);
        let resumed = writers.iter().map(|writer| writer.resume(newest));
        Ok(try_join_all(resumed).await?.into_iter().flatten().collect())
    }

    async fn verify(&self, service: &str) -> Result<(), Error> {
        let writers = self.writers(service);
        try_join_all(writers.iter().map(Writer::verify)).await.map(drop)
    }

    async fn trim(&self, service: &str, before: Timestamp) -> Result<Vec<Receipt>, Error> {
        let writers = self.writers(service);
        let trimmed = writers.iter().map(|writer| writer.trim(before));
        Ok(try_join_all(trimmed).await?.into_iter().flatten().collect())
    }

    async fn ring(&self, service: &str) -> Result<(), Error> {
        let mut ring = cmd("XADD");
        ring.arg(self.shared.bell(service)).arg(&["MAXLEN", "1", "*", "rung", ""]);
        Ok(self.shared.keyspace.run(&ring).await?)
    }

    fn bell(&self, service: &str) -> watch::Receiver<()> {
        self.shared.bells.of(&self.shared.bell(service))
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, Error> {
        let Subscription { consumer, topics, delivery } = subscription;
        let streams: Vec<_> = subscription
            .emitters()
            .into_iter()
            .flat_map(|service| (0..STREAMS).map(move |number| tag(service, number)))
            .collect();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (caught_up, is_caught_up) = watch::channel(delivery == Delivery::Work);
        let task = match delivery {
            Delivery::Work => {
                if !dead_letters.are_kept() {
                    return Err(Error::NoDeadLetters(consumer));
                }
                if !self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(consumer) {
                    return Err(Error::Taken(consumer));
                }
                dead_letters.register(consumer, Arc::clone(&handler));
                let work = Arc::new(Work::new(Arc::clone(&self.shared), consumer, topics, handler, dead_letters));
                let taken = Arc::clone(&self.taken);
                tokio::spawn(async move {
                    work.run(streams, stopped).await;
                    taken.lock().unwrap_or_else(PoisonError::into_inner).remove(consumer);
                })
            }
            Delivery::Broadcast { replay } => {
                dead_letters.register(consumer, Arc::clone(&handler));
                let Shared { settings, source, .. } = &*self.shared;
                let since = source.now() - replay;
                let recipient = Recipient {
                    consumer,
                    topics,
                    handler,
                    dead_letters,
                    retry: settings.retry,
                    source: source.clone(),
                };
                let follower = Follower::new(Arc::clone(&self.shared), &streams, since, recipient);
                tokio::spawn(async move {
                    // Broadcasts change what is in memory only: one may be cut off anywhere.
                    stopped.run_until_cancelled(follower.follow(caught_up)).await;
                })
            }
        };
        count_from_zero(consumer);
        if delivery == Delivery::Work {
            metrics::counter!("guildhall_events_lost_total", "consumer" => consumer).increment(0);
        }
        Ok(Running::new(stop, task, is_caught_up))
    }
}

/// As Redis takes it.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the keys of one stream have in common: they lie in one slot of a cluster.
fn tag(service: &str, number: u8) -> String {
    format!("events/{service}/{number}")
}

/// The stream that the events of a key are in, for ever: FNV-1a, and then what MurmurHash3 ends with, since keys often differ in their
/// last letters alone.
fn stream_of(key: &str) -> u8 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let [lowest, ..] = (hash ^ hash >> 33).to_le_bytes();
    lowest % STREAMS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_streams_and_spread_over_all() {
        // Written down: a change of the hash would bring the events of a key out of order.
        let streams: Vec<_> = ["", "a", "key-1", "0190a5c8-7b3e-7def-8000-000000000001"].map(stream_of).into();
        assert_eq!(streams, [2, 1, 3, 0]);
        let mut counts = [0_u32; STREAMS as usize];
        for number in 0..4000 {
            counts[usize::from(stream_of(&format!("key-{number}")))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
