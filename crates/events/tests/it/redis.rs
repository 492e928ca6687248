//! The bus over Redis: what every bus has to do, and what Redis gets wrong unless it is handled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::Event as _;
use contracts::auth::v1::UserUpdated;
use events::bus::redis::{STREAMS, Settings};
use events::{
    Bus, DeadLetters, Delivery, Envelope, Error, Failure, Handler, Inbox, MIGRATIONS, Outbox, RedisBus, Relay, Retry,
    Running, Subscription, async_trait,
};
use futures_util::future::BoxFuture;
use ids::{Clock as _, EventId, ManualClock, Source, SystemClock, SystemRandom};
use keyspace::Keyspace;
use keyspace::redis::{Cmd, Value, cmd};
use keyspace::testing::{HALT, Server};
use store::Db;
use store::testing::{Backend, TestDb, database};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Short, so that a takeover is soon.
const LEASE: Duration = Duration::from_secs(1);
const TOPICS: &[&str] = &[UserUpdated::TOPIC];
const PATIENCE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

fn settings() -> Settings {
    let retry = Retry { attempts: 3, pause: Duration::from_millis(1), longest: Duration::from_millis(5) };
    Settings { retry, lease: LEASE, poll: Duration::from_millis(100) }
}

/// Each test's bus has the keys of that test, however often it is made.
fn shared_redis(log: &Db) -> keyspace::Settings {
    let url = std::env::var(keyspace::testing::REDIS).expect("the tests' Redis is named, as `cargo xtask test` does");
    keyspace::Settings { prefix: format!("test-{}", log.opening().simple()), ..keyspace::Settings::new(url) }
}

async fn on_redis(log: Db, source: Source, retry: Retry) -> Arc<dyn Bus> {
    let keyspace = Keyspace::open(&shared_redis(&log)).unwrap();
    Arc::new(RedisBus::with_settings(keyspace, source, Settings { retry, ..settings() }))
}

events::conformance!(on_redis);

/// What a handler does before its transaction, or instead of it.
type Before = Arc<dyn Fn(Envelope) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

fn before<F: Future<Output = Result<(), Failure>> + Send + 'static>(
    run: impl Fn(Envelope) -> F + Send + Sync + 'static,
) -> Before {
    Arc::new(move |event| Box::pin(run(event)))
}

fn nothing() -> Before {
    before(async |_| Ok(()))
}

/// An emitting service, the database of a consuming one, and a Redis between them.
struct World {
    emitter: TestDb,
    consumer: TestDb,
    clock: Arc<ManualClock>,
    source: Source,
    redis: keyspace::Settings,
    keyspace: Keyspace,
    settings: Settings,
}

impl World {
    /// On the Redis that all share.
    async fn new() -> Self {
        Self::with(shared_redis).await
    }

    /// On a Redis of its own.
    async fn on(server: &Server) -> Self {
        let timeout = Duration::from_millis(500);
        Self::with(|_| keyspace::Settings { timeout, ..keyspace::Settings::new(server.url()) }).await
    }

    async fn with(redis: impl FnOnce(&Db) -> keyspace::Settings) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let source = Source::new(Arc::clone(&clock) as _, Arc::new(SystemRandom));
        let emitter = database(Backend::Postgres, &[&MIGRATIONS]).await;
        let consumer = database(Backend::Postgres, &[&MIGRATIONS]).await;
        let mut tx = consumer.begin().await.unwrap();
        store::execute!(
            tx,
            "CREATE TABLE effect (position bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, version bigint NOT NULL)"
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let redis = redis(&emitter);
        let keyspace = Keyspace::open(&redis).unwrap();
        Self { emitter, consumer, clock, source, redis, keyspace, settings: settings() }
    }

    fn bus(&self) -> RedisBus {
        RedisBus::with_settings(self.keyspace.clone(), self.source.clone(), self.settings)
    }

    fn relay(&self) -> RunningRelay {
        let stop = CancellationToken::new();
        let relay = Relay::new(self.emitter.clone(), "auth", Arc::new(self.bus()), self.source.clone());
        RunningRelay { task: tokio::spawn(relay.run(stop.clone())), stop }
    }

    async fn emit(&self, key: &str, version: i64) -> EventId {
        let mut tx = self.emitter.begin().await.unwrap();
        let event = UserUpdated { user_id: key.into() };
        let id = Outbox::new("auth", self.source.clone()).append(&mut tx, version, &event).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn emit_all(&self, keys: &[&str], versions: std::ops::RangeInclusive<i64>) {
        for version in versions {
            for key in keys {
                self.emit(key, version).await;
            }
        }
    }

    async fn settled(&self) {
        until("every event is published", async || Outbox::pending(&self.emitter).await.unwrap() == 0).await;
    }

    /// A process that consumes.
    async fn replica(&self, consumer: &'static str, before: Before) -> Replica {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (url, source, settings) = (self.consumer.url(), self.source.clone(), self.settings);
        let redis = self.redis.clone();
        let running = runtime.spawn(async move {
            let db = Db::open(store::Settings::new(url)).await.unwrap();
            let bus = RedisBus::with_settings(Keyspace::open(&redis).unwrap(), source.clone(), settings);
            let inbox = Inbox::new(db.clone(), consumer, source.clone());
            let subscription = Subscription { consumer, topics: TOPICS, delivery: Delivery::Work };
            let worker = Arc::new(Worker { inbox, before });
            bus.subscribe(subscription, worker, DeadLetters::new(db, source)).await.unwrap()
        });
        Replica { running: Some(running.await.unwrap()), runtime: Some(runtime) }
    }

    /// The effects in their order.
    async fn effects(&self) -> Vec<(String, i64)> {
        let mut conn = self.consumer.read().await.unwrap();
        store::fetch_all!(conn, (String, i64), "SELECT key, version FROM effect ORDER BY position").await.unwrap()
    }

    /// Waits until each of these events has had its effect, and looks that each had it once and in the order of its key.
    async fn has_effects(&self, keys: &[&str], versions: std::ops::RangeInclusive<i64>) {
        let count = keys.len() * versions.clone().count();
        until(&format!("{count} events have their effects"), async || self.effects().await.len() >= count).await;
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for (key, version) in self.effects().await {
            found.entry(key).or_default().push(version);
        }
        let expected = keys.iter().map(|key| ((*key).to_owned(), versions.clone().collect())).collect();
        assert_eq!(found, expected);
    }

    fn streams(&self) -> Vec<String> {
        (0..STREAMS).map(|number| self.keyspace.key(&format!("events/auth/{number}"), "stream")).collect()
    }

    fn leases(&self, consumer: &str) -> Vec<String> {
        let key = |number| self.keyspace.key(&format!("events/auth/{number}"), &format!("owner/{consumer}"));
        (0..STREAMS).map(key).collect()
    }

    async fn run<T: keyspace::redis::FromRedisValue>(&self, command: &Cmd) -> T {
        self.keyspace.run(command).await.unwrap()
    }

    /// Entries of all streams.
    async fn entries(&self) -> usize {
        let mut count = 0;
        for stream in self.streams() {
            count += self.run::<usize>(cmd("XLEN").arg(stream)).await;
        }
        count
    }

    /// Events that were delivered to a consumer and not acknowledged.
    async fn pending(&self, consumer: &str) -> usize {
        let mut count = 0;
        for stream in self.streams() {
            let groups: Vec<BTreeMap<String, Value>> = self.run(cmd("XINFO").arg("GROUPS").arg(stream)).await;
            let is_it = |group: &&BTreeMap<String, Value>| group["name"] == Value::BulkString(consumer.into());
            if let Some(Value::Int(pending)) = groups.iter().find(is_it).map(|group| &group["pending"]) {
                count += usize::try_from(*pending).unwrap();
            }
        }
        count
    }

    /// Waits until all that was delivered is acknowledged.
    async fn acknowledged(&self, consumer: &str) {
        until("every event is acknowledged", async || self.pending(consumer).await == 0).await;
    }

    fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.consumer.clone(), self.source.clone())
    }

    /// Rows of the outbox that are kept.
    async fn kept(&self) -> i64 {
        let mut conn = self.emitter.read().await.unwrap();
        store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM outbox").await.unwrap()
    }
}

struct RunningRelay {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningRelay {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Dropped, it is killed: none of its tasks runs on, and none says good-bye.
struct Replica {
    running: Option<Running>,
    runtime: Option<Runtime>,
}

impl Replica {
    async fn stop(mut self) {
        self.running.take().unwrap().stop().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

struct Worker {
    inbox: Inbox,
    before: Before,
}

#[async_trait]
impl Handler for Worker {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        (self.before)(event.clone()).await?;
        let Some(mut tx) = self.inbox.begin(event).await? else { return Ok(()) };
        let (key, version) = (event.key.as_str(), event.version);
        store::execute!(tx, "INSERT INTO effect (key, version) VALUES ($1, $2)", key, version).await?;
        Ok(tx.commit().await?)
    }
}

/// A broadcast handler: what it got, in its order.
#[derive(Default)]
struct Listener(watch::Sender<Vec<(String, i64)>>);

#[async_trait]
impl Handler for Listener {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        self.0.send_modify(|got| got.push((event.key.clone(), event.version)));
        Ok(())
    }
}

/// Holds up whoever comes to it, until it is opened.
#[derive(Default)]
struct Gate {
    came: watch::Sender<Vec<(String, i64)>>,
    open: AtomicBool,
    opened: Notify,
}

impl Gate {
    async fn pass(&self, event: &Envelope) {
        let opened = self.opened.notified();
        self.came.send_modify(|came| came.push((event.key.clone(), event.version)));
        if !self.open.load(Ordering::SeqCst) {
            opened.await;
        }
    }

    async fn came(&self, count: usize) -> Vec<(String, i64)> {
        let mut came = self.came.subscribe();
        let enough = came.wait_for(|came| came.len() >= count);
        tokio::time::timeout(PATIENCE, enough).await.expect("they come").unwrap().clone()
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    /// For events of the keys that `holds` names.
    fn holds(self: &Arc<Self>, holds: impl Fn(&Envelope) -> bool + Send + Sync + 'static) -> Before {
        let gate = Arc::clone(self);
        let holds = Arc::new(holds);
        before(move |event| {
            let (gate, holds) = (Arc::clone(&gate), Arc::clone(&holds));
            async move {
                if holds(&event) {
                    gate.pass(&event).await;
                }
                Ok(())
            }
        })
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it never came true that {what}"));
}

/// A metric of this process, whose tests have consumers of their own.
fn metric(name: &str, consumer: &str) -> f64 {
    let settings = telemetry::Settings {
        format: telemetry::Format::Auto,
        filter: "off".to_owned(),
        otlp_endpoint: None,
        service_name: "test".to_owned(),
    };
    let rendered = telemetry::init(&settings).unwrap().metrics().render();
    let label = format!("consumer=\"{consumer}\"");
    let lines = rendered.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Keys enough to be in every stream.
const KEYS: [&str; 8] = ["key-0", "key-1", "key-2", "key-3", "key-4", "key-5", "key-6", "key-7"];

/// Redis trims whatever it is told to; nothing may go that somebody is not done with, or that a broadcast may still want.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimming_spares_what_is_pending_or_undelivered_or_young_and_the_outbox_keeps_it_too() {
    let world = World::new().await;
    let gate = Arc::new(Gate::default());
    let slow = world.replica("content.slow", gate.holds(|event| event.key == "key-0")).await;
    // It has its groups, and has seen nothing.
    let away = world.replica("content.away", nothing()).await;
    until("both have groups", async || {
        let mut groups = 0;
        for stream in world.streams() {
            let found: keyspace::Result<Vec<Value>> = world.keyspace.run(cmd("XINFO").arg("GROUPS").arg(stream)).await;
            groups += found.map_or(0, |found| found.len());
        }
        groups == 2 * usize::from(STREAMS)
    })
    .await;
    away.stop().await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=2).await;
    world.settled().await;
    until("one key waits, with all else handled", async || world.pending("content.slow").await == 2).await;
    relay.stop().await;

    let bus = world.bus();
    let newest = async || {
        let mut conn = world.emitter.read().await.unwrap();
        let rows = store::fetch_all!(conn, (i32, i64), "SELECT stream, MAX(receipt) FROM outbox GROUP BY stream").await;
        rows.unwrap().into_iter().map(|(stream, number)| events::Receipt { stream, number }).collect::<Vec<_>>()
    };
    bus.resume("auth", &newest().await).await.unwrap();
    let later = world.source.now() + DAY;
    bus.trim("auth", later).await.unwrap();
    assert_eq!(world.entries().await, 16, "one consumer has seen nothing");

    let away = world.replica("content.away", nothing()).await;
    until("that one has caught up", async || {
        world.pending("content.away").await == 0 && metric("guildhall_events_handled_total", "content.away") >= 16.0
    })
    .await;
    bus.trim("auth", later - 2 * DAY).await.unwrap();
    assert_eq!(world.entries().await, 16, "broadcasts may want it");
    bus.trim("auth", later).await.unwrap();
    let left = world.entries().await;
    assert!((2..16).contains(&left), "{left} are left");
    assert_eq!(world.pending("content.slow").await, 2);

    // A day later the outbox lets go of the rest, but for that stream.
    world.clock.advance(DAY + Duration::from_mins(1));
    let relay = world.relay();
    until("the outbox is purged", async || world.kept().await < 16).await;
    assert!(world.kept().await >= 2, "Redis may lose what is pending");
    relay.stop().await;
    gate.open();
    world.acknowledged("content.slow").await;
    let relay = world.relay();
    until("the outbox is empty", async || world.kept().await == 0).await;
    assert!(world.entries().await <= usize::from(STREAMS), "the newest stay, for the relay to find");
    // Of the events of a key that waited, neither was lost.
    let mut effects = world.effects().await;
    effects.sort();
    let twice = KEYS.iter().flat_map(|key| [1, 1, 2, 2].map(|version| ((*key).to_owned(), version)));
    assert_eq!(effects, twice.collect::<Vec<_>>(), "each of two consumers had each effect once");
    relay.stop().await;
    slow.stop().await;
    away.stop().await;
}

/// `XAUTOCLAIM` leaves out what was deleted, without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_it_was_pending_is_counted_and_holds_nothing_up() {
    const CONSUMER: &str = "content.deleted";
    let world = World::new().await;
    let gate = Arc::new(Gate::default());
    let first = world.replica(CONSUMER, gate.holds(|_| true)).await;
    let relay = world.relay();
    world.emit_all(&["key-0"], 1..=3).await;
    until("all are delivered", async || world.pending(CONSUMER).await == 3).await;
    drop(first);
    for stream in world.streams() {
        let entries: Vec<(String, Value)> = world.run(cmd("XRANGE").arg(&stream).arg("-").arg("+")).await;
        if let [_, (second, _), _] = &entries[..] {
            world.run::<()>(cmd("XDEL").arg(&stream).arg(second)).await;
        }
    }
    let second = world.replica(CONSUMER, nothing()).await;
    until("the others have their effects", async || world.effects().await.len() == 2).await;
    world.acknowledged(CONSUMER).await;
    assert_eq!(world.effects().await, [("key-0".to_owned(), 1), ("key-0".to_owned(), 3)]);
    assert!((metric("guildhall_events_lost_total", CONSUMER) - 1.0).abs() < f64::EPSILON);
    relay.stop().await;
    second.stop().await;
}

/// Idle time counts from the delivery, not from the handling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_outlasts_the_lease_gets_no_event_twice() {
    let world = World::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let slow = |calls: &Arc<AtomicUsize>| {
        let calls = Arc::clone(calls);
        before(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            // Not synchronisation: a handler that takes its time.
            async {
                tokio::time::sleep(2 * LEASE).await;
                Ok(())
            }
        })
    };
    let replicas =
        [world.replica("content.slow", slow(&calls)).await, world.replica("content.slow", slow(&calls)).await];
    let relay = world.relay();
    world.emit_all(&["key-0", "key-1", "key-2"], 1..=2).await;
    world.has_effects(&["key-0", "key-1", "key-2"], 1..=2).await;
    world.acknowledged("content.slow").await;
    assert_eq!(calls.load(Ordering::SeqCst), 6);
    relay.stop().await;
    for replica in replicas {
        replica.stop().await;
    }
}

/// And what a dead process had begun, another one begins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_its_effect_is_committed() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let gate = Arc::new(Gate::default());
    let first = world.replica(CONSUMER, gate.holds(|_| true)).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=1).await;
    gate.came(KEYS.len()).await;
    assert_eq!((world.pending(CONSUMER).await, world.effects().await.len()), (KEYS.len(), 0));
    drop(first);
    let second = world.replica(CONSUMER, nothing()).await;
    world.has_effects(&KEYS, 1..=1).await;
    world.acknowledged(CONSUMER).await;
    relay.stop().await;
    second.stop().await;
}

/// A retry must not let a later event pass, wherever it happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_key_keeps_its_order_through_a_handover_while_other_keys_go_on() {
    const CONSUMER: &str = "content.test";
    let mut world = World::new().await;
    world.settings.retry.attempts = 100_000;
    let fails = before(async |event: Envelope| match (event.key.as_str(), event.version) {
        ("key-0", 2) => Err(Failure::Retry("not yet".into())),
        _ => Ok(()),
    });
    let first = world.replica(CONSUMER, fails).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=3).await;
    until("the others are through", async || world.effects().await.len() == 3 * KEYS.len() - 2).await;
    first.stop().await;
    assert_eq!(world.pending(CONSUMER).await, 2);
    world.emit("key-0", 4).await;
    let second = world.replica(CONSUMER, nothing()).await;
    until("the failed one is through", async || world.effects().await.len() == 3 * KEYS.len() + 1).await;
    let effects = world.effects().await;
    let of_the_key: Vec<_> = effects.iter().filter(|(key, _)| key == "key-0").map(|(_, version)| *version).collect();
    assert_eq!(of_the_key, [1, 2, 3, 4]);
    assert!(world.dead_letters().list(None, 10).await.unwrap().is_empty());
    relay.stop().await;
    second.stop().await;
}

/// With its reason and its id, and not acknowledged until that is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_a_dead_letter_before_it_is_acknowledged() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let rename = async |from: &str, to: &str| {
        let mut tx = world.consumer.begin().await.unwrap();
        store::execute!(tx, format!("ALTER TABLE {from} RENAME TO {to}")).await.unwrap();
        tx.commit().await.unwrap();
    };
    rename("dead_letter", "elsewhere").await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let rejects = before(move |event: Envelope| {
        let counter = Arc::clone(&counter);
        async move {
            if event.version != 1 {
                return Ok(());
            }
            counter.fetch_add(1, Ordering::SeqCst);
            Err(Failure::Reject("never".into()))
        }
    });
    let replica = world.replica(CONSUMER, rejects).await;
    let relay = world.relay();
    let poison = world.emit("key-0", 1).await;
    world.emit("key-0", 2).await;
    until("it was tried", async || attempts.load(Ordering::SeqCst) == 1).await;
    world.settled().await;
    assert_eq!(world.pending(CONSUMER).await, 2);
    rename("elsewhere", "dead_letter").await;
    world.has_effects(&["key-0"], 2..=2).await;
    world.acknowledged(CONSUMER).await;
    let letters = world.dead_letters().list(Some(CONSUMER), 10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.event.id, letter.reason.as_str(), letter.attempts), (poison, "never", 1));
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    relay.stop().await;
    replica.stop().await;
}

/// Attempts are counted where a crash does not reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_takes_its_process_down_becomes_a_dead_letter_and_takes_no_other_with_it() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let relay = world.relay();
    let poison = world.emit("key-0", 1).await;
    world.emit("key-0", 2).await;
    world.emit_all(&KEYS[1..], 1..=2).await;
    world.settled().await;
    let begun = Arc::new(AtomicUsize::new(0));
    for crash in 1..=3 {
        let gate = Arc::new(Gate::default());
        let counted = Arc::clone(&begun);
        let deadly = gate.holds(move |event| {
            let deadly = (event.key.as_str(), event.version) == ("key-0", 1);
            counted.fetch_add(usize::from(deadly), Ordering::SeqCst);
            deadly
        });
        let replica = world.replica(CONSUMER, deadly).await;
        gate.came(1).await;
        drop(replica);
        assert_eq!(begun.load(Ordering::SeqCst), crash);
    }
    let replica = world.replica(CONSUMER, nothing()).await;
    until("all others are handled", async || world.effects().await.len() == 2 * KEYS.len() - 1).await;
    world.acknowledged(CONSUMER).await;
    let letters = world.dead_letters().list(None, 10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.event.id, letter.attempts), (poison, 3));
    assert_eq!(letter.reason, "its attempts began and did not end");
    assert!(!world.effects().await.contains(&("key-0".to_owned(), 1)));
    relay.stop().await;
    replica.stop().await;
}

/// A fail-over, a restart without the last second, an eviction, `FLUSHALL`: the outbox has it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_acknowledged_and_lost_is_published_again_and_has_its_effect_once() {
    const CONSUMER: &str = "content.test";
    let server = Server::start(&[]).await;
    let world = World::on(&server).await;
    let relay = world.relay();
    // Nobody has seen these when they vanish.
    world.emit_all(&KEYS, 1..=2).await;
    world.settled().await;
    world.run::<()>(&cmd("FLUSHALL")).await;
    until("they are there again", async || world.entries().await == 2 * KEYS.len()).await;
    let gate = Arc::new(Gate::default());
    let replica = world.replica(CONSUMER, gate.holds(|event| event.version == 4)).await;
    world.has_effects(&KEYS, 1..=2).await;
    // Of these, only the end vanishes.
    world.emit_all(&KEYS, 3..=3).await;
    world.has_effects(&KEYS, 1..=3).await;
    world.acknowledged(CONSUMER).await;
    for stream in world.streams() {
        let last: Vec<(String, Value)> = world.run(cmd("XREVRANGE").arg(&stream).arg(&["+", "-", "COUNT", "2"])).await;
        for (id, _) in last {
            world.run::<()>(cmd("XDEL").arg(&stream).arg(id)).await;
        }
    }
    until("the end is there again", async || world.entries().await >= 3 * KEYS.len()).await;
    // These vanish while they are being handled, together with the group and the lease.
    world.emit_all(&KEYS, 4..=5).await;
    gate.came(KEYS.len()).await;
    world.run::<()>(&cmd("FLUSHALL")).await;
    gate.open();
    world.has_effects(&KEYS, 1..=5).await;
    // And these come while nobody publishes: the relay asks by itself.
    relay.stop().await;
    world.run::<()>(&cmd("FLUSHALL")).await;
    world.emit_all(&KEYS, 6..=6).await;
    let relay = world.relay();
    world.has_effects(&KEYS, 1..=6).await;
    relay.stop().await;
    replica.stop().await;
}

/// What `XINFO` says is unknown once something was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_told_by_the_clock_also_after_deletes() {
    const CONSUMER: &str = "content.lag";
    let world = World::new().await;
    let gate = Arc::new(Gate::default());
    // The recorder has to be there before the first measurement.
    metric("guildhall_events_lag_seconds", CONSUMER);
    let replica = world.replica(CONSUMER, gate.holds(|event| event.version == 2)).await;
    let relay = world.relay();
    world.emit_all(&["key-0"], 1..=3).await;
    gate.came(1).await;
    for stream in world.streams() {
        let entries: Vec<(String, Value)> = world.run(cmd("XRANGE").arg(&stream).arg("-").arg("+")).await;
        if let Some((first, _)) = entries.first() {
            world.run::<()>(cmd("XDEL").arg(&stream).arg(first)).await;
        }
    }
    world.clock.advance(Duration::from_mins(5));
    until("the lag is five minutes", async || {
        (300.0..310.0).contains(&metric("guildhall_events_lag_seconds", CONSUMER))
    })
    .await;
    assert!((metric("guildhall_events_pending", CONSUMER) - 2.0).abs() < f64::EPSILON);
    gate.open();
    until("there is no lag", async || metric("guildhall_events_lag_seconds", CONSUMER) == 0.0).await;
    relay.stop().await;
    replica.stop().await;
}

/// `NOGROUP`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_gone_is_made_again_from_the_beginning() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let replica = world.replica(CONSUMER, nothing()).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=2).await;
    world.has_effects(&KEYS, 1..=2).await;
    for stream in world.streams() {
        world.run::<()>(cmd("XGROUP").arg("DESTROY").arg(stream).arg(CONSUMER)).await;
    }
    world.emit_all(&KEYS, 3..=4).await;
    world.has_effects(&KEYS, 1..=4).await;
    relay.stop().await;
    replica.stop().await;
}

/// Much longer than commands may take and leases last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_halts_loses_nothing_and_doubles_nothing() {
    let server = Server::start(&[]).await;
    let world = World::on(&server).await;
    let replicas = [world.replica("content.test", nothing()).await, world.replica("content.test", nothing()).await];
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=10).await;
    server.pause().await;
    world.emit_all(&KEYS, 11..=20).await;
    tokio::time::sleep(HALT).await;
    server.resume().await;
    world.emit_all(&KEYS, 21..=25).await;
    world.has_effects(&KEYS, 1..=25).await;
    relay.stop().await;
    for replica in replicas {
        replica.stop().await;
    }
}

async fn survives_a_restart(options: &[&str]) {
    let mut server = Server::start(options).await;
    let world = World::on(&server).await;
    let replicas = [world.replica("content.test", nothing()).await, world.replica("content.test", nothing()).await];
    let relay = world.relay();
    for round in 0..3 {
        world.emit_all(&KEYS, 10 * round + 1..=10 * round + 5).await;
        server.kill().await;
        world.emit_all(&KEYS, 10 * round + 6..=10 * round + 8).await;
        server.restart().await;
        world.emit_all(&KEYS, 10 * round + 9..=10 * round + 10).await;
    }
    world.has_effects(&KEYS, 1..=30).await;
    relay.stop().await;
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_starts_again_with_its_data_loses_nothing_and_doubles_nothing() {
    survives_a_restart(&["--appendonly", "yes", "--appendfsync", "always"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_starts_again_without_its_data_loses_nothing_and_doubles_nothing() {
    survives_a_restart(&[]).await;
}

/// Consumers go on, and new ones come; what cannot be published waits in the outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_memory_is_full_gives_what_it_has_and_takes_the_rest_later() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let world = World::on(&server).await;
    let gate = Arc::new(Gate::default());
    let first = world.replica("content.test", gate.holds(|event| event.version == 2)).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=3).await;
    gate.came(KEYS.len()).await;
    world.settled().await;
    server.fill().await;
    assert!(world.keyspace.run::<()>(cmd("SET").arg("some").arg("thing")).await.is_err());
    world.emit_all(&KEYS, 4..=6).await;
    gate.open();
    world.has_effects(&KEYS, 1..=3).await;
    world.acknowledged("content.test").await;
    first.stop().await;
    let second = world.replica("content.test", nothing()).await;
    let late = world.replica("content.late", nothing()).await;
    until("a new consumer gets it all", async || world.effects().await.len() == 6 * KEYS.len()).await;
    assert_eq!(Outbox::pending(&world.emitter).await.unwrap(), 3 * KEYS.len() as u64);
    server.make_room().await;
    until("the rest comes", async || world.effects().await.len() == 12 * KEYS.len()).await;
    let mut effects = BTreeMap::<_, u32>::new();
    for effect in world.effects().await {
        *effects.entry(effect).or_default() += 1;
    }
    assert!(effects.len() == 6 * KEYS.len() && effects.values().all(|count| *count == 2), "{effects:?}");
    relay.stop().await;
    second.stop().await;
    late.stop().await;
}

/// Nothing doubled, and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_the_work_and_one_takes_over_from_one_that_is_killed() {
    let world = World::new().await;
    let seen = Arc::new(Mutex::new([BTreeSet::new(), BTreeSet::new()]));
    let watching = |replica: usize| {
        let seen = Arc::clone(&seen);
        before(move |event: Envelope| {
            seen.lock().unwrap_or_else(PoisonError::into_inner)[replica].insert((event.key, event.version));
            async { Ok(()) }
        })
    };
    let (first, second) =
        (world.replica("content.test", watching(0)).await, world.replica("content.test", watching(1)).await);
    let relay = world.relay();
    let both_work = || seen.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|seen| !seen.is_empty());
    let mut version = 0;
    // Whoever came first had it all until the other came.
    while version < 10 || !both_work() {
        version += 1;
        assert!(version < 1000, "only one of them works");
        world.emit_all(&KEYS, version..=version).await;
    }
    drop(first);
    let killed = Instant::now();
    world.emit_all(&KEYS, version + 1..=version + 5).await;
    world.has_effects(&KEYS, 1..=version + 5).await;
    let taken_over = killed.elapsed();
    assert!(taken_over < 5 * LEASE, "it took {taken_over:?}");
    relay.stop().await;
    second.stop().await;
}

/// What it has begun ends, somewhere once; what it has not begun is another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_lease_while_it_handled_disturbs_no_order() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let gate = Arc::new(Gate::default());
    let first = world.replica(CONSUMER, gate.holds(|_| true)).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=3).await;
    gate.came(KEYS.len()).await;
    until("all are delivered", async || world.pending(CONSUMER).await == 3 * KEYS.len()).await;
    let second = world.replica(CONSUMER, nothing()).await;
    let members = world.keyspace.key(&format!("events/{CONSUMER}"), "members");
    until("both are known", async || world.run::<usize>(cmd("ZCARD").arg(&members)).await == 2).await;
    for lease in world.leases(CONSUMER) {
        world.run::<()>(cmd("DEL").arg(lease)).await;
    }
    until("the second has taken some over", async || world.effects().await.iter().any(|(_, version)| *version == 3))
        .await;
    assert_eq!(gate.came.borrow().len(), KEYS.len(), "the first begins nothing more");
    gate.open();
    world.has_effects(&KEYS, 1..=3).await;
    world.acknowledged(CONSUMER).await;
    relay.stop().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_every_replica() {
    let world = World::new().await;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let (bus, listener) = (world.bus(), Arc::new(Listener::default()));
        let delivery = Delivery::Broadcast { replay: Duration::ZERO };
        let subscription = Subscription { consumer: "content.heard", topics: TOPICS, delivery };
        let running = bus.subscribe(subscription, Arc::clone(&listener) as _, DeadLetters::log_only()).await.unwrap();
        running.caught_up().await;
        replicas.push((running, listener));
    }
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=5).await;
    for (running, listener) in replicas {
        let mut got = listener.0.subscribe();
        let all = got.wait_for(|got| got.len() == 5 * KEYS.len());
        let got = tokio::time::timeout(PATIENCE, all).await.expect("all arrive").unwrap().clone();
        for key in KEYS {
            let versions: Vec<_> = got.iter().filter(|(of, _)| of == key).map(|(_, version)| *version).collect();
            assert_eq!(versions, [1, 2, 3, 4, 5], "{key}");
        }
        running.stop().await;
    }
    relay.stop().await;
}

/// Nobody waits for the end of its leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_stopped_hands_over_at_once() {
    const CONSUMER: &str = "content.test";
    let mut world = World::new().await;
    world.settings.lease = Duration::from_secs(10);
    let first = world.replica(CONSUMER, nothing()).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=1).await;
    world.has_effects(&KEYS, 1..=1).await;
    let second = world.replica(CONSUMER, nothing()).await;
    first.stop().await;
    let stopped = Instant::now();
    world.emit_all(&KEYS, 2..=2).await;
    world.has_effects(&KEYS, 1..=2).await;
    let taken_over = stopped.elapsed();
    assert!(taken_over < world.settings.lease / 2, "it took {taken_over:?}");
    relay.stop().await;
    second.stop().await;
}

/// One consumer's streams lie in slots of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_will_do() {
    let server = Server::start_cluster().await;
    let mut world = World::on(&server).await;
    world.redis.cluster = true;
    world.keyspace = Keyspace::open(&world.redis).unwrap();
    let replicas = [world.replica("content.test", nothing()).await, world.replica("content.test", nothing()).await];
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=5).await;
    world.has_effects(&KEYS, 1..=5).await;
    relay.stop().await;
    for replica in replicas {
        replica.stop().await;
    }
}

/// A bus that cannot be reached takes nothing, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_does_not_take_is_an_error() {
    let mut server = Server::start(&[]).await;
    let world = World::on(&server).await;
    let bus = world.bus();
    server.kill().await;
    let event = Envelope {
        id: world.source.id(),
        source: "auth".into(),
        topic: UserUpdated::TOPIC.into(),
        key: "key-0".into(),
        version: 1,
        time: world.source.now(),
        traceparent: None,
        payload: Vec::new().into(),
    };
    let refused = bus.publish(&[event]).await;
    assert!(matches!(&refused, Err(Error::Redis(error)) if error.is_unavailable()), "{refused:?}");
}

/// Neither the next beat, which is minutes away here, nor the next poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_process_that_is_gone_is_taken_over_when_its_lease_ends() {
    const CONSUMER: &str = "content.test";
    let mut world = World::new().await;
    world.settings.lease = Duration::from_hours(1);
    world.settings.poll = Duration::from_hours(1);
    // One that came first by its name, and is never heard of again.
    let members = world.keyspace.key(&format!("events/{CONSUMER}"), "members");
    let ends = (SystemClock.now() + Duration::from_millis(1500)).micros() / 1000;
    world.run::<()>(cmd("ZADD").arg(&members).arg(ends).arg("0")).await;
    for lease in world.leases(CONSUMER) {
        world.run::<()>(cmd("SET").arg(lease).arg("another's").arg("PX").arg(3000)).await;
    }
    let replica = world.replica(CONSUMER, nothing()).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=1).await;
    world.has_effects(&KEYS, 1..=1).await;
    relay.stop().await;
    replica.stop().await;
}

/// Redis keeps the ends of leases by the time of day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_holds_up_no_takeover() {
    const CONSUMER: &str = "content.test";
    let world = World::new().await;
    let members = world.keyspace.key(&format!("events/{CONSUMER}"), "members");
    let ends = (SystemClock.now() + DAY).micros() / 1000;
    world.run::<()>(cmd("ZADD").arg(&members).arg(ends).arg("0")).await;
    for lease in world.leases(CONSUMER) {
        world.run::<()>(cmd("SET").arg(lease).arg("another's").arg("EX").arg(DAY.as_secs())).await;
    }
    let replica = world.replica(CONSUMER, nothing()).await;
    let relay = world.relay();
    world.emit_all(&KEYS, 1..=1).await;
    world.has_effects(&KEYS, 1..=1).await;
    relay.stop().await;
    replica.stop().await;
}

/// A process that could not renew its lease in time leaves events undone; if it is told later that it had the lease all the time, none
/// of their keys may go on without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ownership_that_seemed_to_be_over_leaves_no_event_behind() {
    const CONSUMER: &str = "content.test";
    let server = Server::start(&[]).await;
    let mut world = World::on(&server).await;
    world.redis.timeout = PATIENCE;
    world.settings.retry.attempts = 100_000;
    let (gate, failed) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (passes, fails) = (Arc::clone(&gate), Arc::clone(&failed));
    let fails_once = before(move |event: Envelope| {
        let (gate, failed) = (Arc::clone(&passes), Arc::clone(&fails));
        async move {
            if event.version > 1 || failed.load(Ordering::SeqCst) > 0 {
                return Ok(());
            }
            gate.pass(&event).await;
            failed.fetch_add(1, Ordering::SeqCst);
            Err(Failure::Retry("not yet".into()))
        }
    });
    let replica = world.replica(CONSUMER, fails_once).await;
    let relay = world.relay();
    world.emit_all(&["key-0"], 1..=3).await;
    gate.came(1).await;
    until("all are delivered", async || world.pending(CONSUMER).await == 3).await;
    relay.stop().await;
    for lease in world.leases(CONSUMER) {
        world.run::<()>(cmd("PERSIST").arg(lease)).await;
    }
    server.pause().await;
    // Not synchronisation: longer than the lease.
    tokio::time::sleep(2 * LEASE).await;
    gate.open();
    until("it has failed", async || failed.load(Ordering::SeqCst) == 1).await;
    // Nor this: so that it is looked at before Redis answers again. If it is not, the test proves less.
    tokio::time::sleep(LEASE / 4).await;
    server.resume().await;
    world.has_effects(&["key-0"], 1..=3).await;
    world.acknowledged(CONSUMER).await;
    replica.stop().await;
}

/// The relay that publishes is in another process than the one that commits. Its poll would take a second for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_in_another_process_hears_of_a_commit_at_once() {
    const EVENTS: u32 = 30;
    let world = World::new().await;
    let publishes = world.relay();
    world.emit("key-0", 0).await;
    world.settled().await;
    let other = Db::open(store::Settings::new(world.emitter.url())).await.unwrap();
    let stop = CancellationToken::new();
    let waits = Relay::new(other.clone(), "auth", Arc::new(world.bus()), world.source.clone());
    let waits = tokio::spawn(waits.run(stop.clone()));
    let outbox = Outbox::new("auth", world.source.clone());
    let began = Instant::now();
    for version in 1..=EVENTS {
        let mut tx = other.begin().await.unwrap();
        outbox.append(&mut tx, version.into(), &UserUpdated { user_id: "key-0".into() }).await.unwrap();
        tx.commit().await.unwrap();
        world.settled().await;
    }
    let took = began.elapsed();
    assert!(took < EVENTS * Duration::from_secs(1) / 2, "it took {took:?}");
    stop.cancel();
    waits.await.unwrap();
    publishes.stop().await;
}
