//! What every bus has to do, as a suite that runs against the [`Bus`] interface on both databases.
//!
//! A new bus is held against it by one line in a test of its own:
//!
//! ```text
//! events::conformance!(async |log: &Db, source: Source, retry: Retry| -> Arc<dyn Bus> { … });
//! ```
//!
//! `log` is the database of the service `auth`, which emits the events.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::auth::v1::UserUpdated;
use contracts::{Event as _, auth::v1::UserRegistered};
use ids::{Clock as _, EventId, ManualClock, Source, SystemClock, SystemRandom};
use prost::Message as _;
use store::Db;
use store::testing::{Backend, TestDb, database};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;

use crate::{
    Bus, DeadLetters, Delivery, Envelope, Error, Failure, Handler, Inbox, Outbox, Relay, Retry, Running, Selection,
    Subscription,
};

/// Writes a test for each case of the suite and each database, over the bus that the closure makes.
#[macro_export]
macro_rules! conformance {
    ($make_bus:expr) => {
        $crate::conformance!($make_bus;
            events_arrive_once_and_in_order_per_key,
            a_failed_event_is_tried_again_before_the_next_of_its_key_and_holds_up_no_other_key,
            an_event_waits_for_what_is_away_however_often_it_is_tried,
            a_poisonous_event_becomes_a_dead_letter_and_its_key_goes_on,
            dead_letters_are_replayed_and_those_that_fail_again_stay,
            a_consumer_has_one_subscription_and_a_place_for_its_dead_letters,
            an_event_that_is_published_again_has_one_effect,
            every_broadcast_subscriber_gets_every_event,
            a_broadcast_subscriber_first_gets_the_events_of_its_replay_window,
            a_consumer_that_was_stopped_in_the_middle_loses_nothing,
            a_crash_loses_nothing_and_repeats_no_effect,
            few_events_are_handled_at_the_same_time,
            a_consumer_gets_only_its_topics
        );
    };
    ($make_bus:expr; $($case:ident),+) => {
        $(
            mod $case {
                #[allow(unused_imports, reason = "the closure may need nothing from around it")]
                use super::*;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    let make_bus = $crate::conformance::maker($make_bus);
                    $crate::conformance::$case($crate::conformance::World::new(store::testing::Backend::Sqlite, make_bus).await).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    let make_bus = $crate::conformance::maker($make_bus);
                    $crate::conformance::$case($crate::conformance::World::new(store::testing::Backend::Postgres, make_bus).await).await;
                }
            }
        )+
    };
}

/// Makes a bus over the outbox of `auth`.
type MakeBus = Box<dyn Fn(Db, Source, Retry) -> Pin<Box<dyn Future<Output = Arc<dyn Bus>> + Send>> + Send + Sync>;

/// Boxes the closure that makes the bus.
pub fn maker<F, R>(make_bus: F) -> MakeBus
where
    F: Fn(Db, Source, Retry) -> R + Send + Sync + 'static,
    R: Future<Output = Arc<dyn Bus>> + Send + 'static,
{
    Box::new(move |log, source, retry| Box::pin(make_bus(log, source, retry)))
}

const CONSUMER: &str = "content.test";
const TOPICS: &[&str] = &[UserUpdated::TOPIC];
/// No bus may run more handlers of one consumer at a time.
const MOST_AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_mins(1);

/// An emitting service, a consuming service, and a bus between them.
pub struct World {
    emitter: TestDb,
    consumer: TestDb,
    clock: Arc<ManualClock>,
    source: Source,
    make_bus: MakeBus,
    retry: Retry,
    dead_letters: DeadLetters,
}

impl World {
    /// Two new databases.
    pub async fn new(backend: Backend, make_bus: MakeBus) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let source = Source::new(Arc::clone(&clock) as _, Arc::new(SystemRandom));
        let emitter = database(backend, &[&crate::MIGRATIONS]).await;
        let consumer = database(backend, &[&crate::MIGRATIONS]).await;
        let mut tx = consumer.begin().await.expect("a transaction");
        store::execute!(tx, "CREATE TABLE effect (key VARCHAR(100) NOT NULL, version BIGINT NOT NULL)")
            .await
            .expect("a table");
        tx.commit().await.expect("a table");
        let dead_letters = DeadLetters::new(consumer.clone(), source.clone());
        let retry = Retry { attempts: 3, pause: Duration::from_millis(1), longest: Duration::from_millis(5) };
        Self { emitter, consumer, clock, source, make_bus, retry, dead_letters }
    }

    async fn bus(&self) -> Arc<dyn Bus> {
        (self.make_bus)(self.emitter.clone(), self.source.clone(), self.retry).await
    }

    fn relay(&self, bus: &Arc<dyn Bus>) -> RunningRelay {
        let stop = CancellationToken::new();
        let relay = Relay::new(self.emitter.clone(), "auth", Arc::clone(bus), self.source.clone());
        let task = tokio::spawn(relay.run(stop.clone()));
        RunningRelay { stop, task }
    }

    /// A change of `key`, with its event.
    async fn emit(&self, key: &str, version: i64) -> EventId {
        let mut tx = self.emitter.begin().await.expect("a transaction");
        let event = UserUpdated { user_id: key.into() };
        let id = Outbox::new("auth", self.source.clone()).append(&mut tx, version, &event).await.expect("an event");
        tx.commit().await.expect("a commit");
        id
    }

    fn envelope(&self, key: &str, version: i64) -> Envelope {
        Envelope {
            id: self.source.id(),
            source: "auth".into(),
            topic: UserUpdated::TOPIC.into(),
            key: key.into(),
            version,
            time: self.source.now(),
            traceparent: None,
            payload: UserUpdated { user_id: key.into() }.encode_to_vec().into(),
        }
    }

    /// A handler that writes down each effect in the consumer's database, and fails as `fails` says.
    fn worker(&self, fails: impl Fn(&Envelope) -> Result<(), Failure> + Send + Sync + 'static) -> Arc<Worker> {
        let inbox = Inbox::new(self.consumer.clone(), CONSUMER, self.source.clone());
        Arc::new(Worker { inbox, fails: Box::new(fails), handled: watch::Sender::default() })
    }

    async fn work(&self, bus: &Arc<dyn Bus>, handler: Arc<dyn Handler>) -> Running {
        let subscription = Subscription { consumer: CONSUMER, topics: TOPICS, delivery: Delivery::Work };
        bus.subscribe(subscription, handler, self.dead_letters.clone()).await.expect("a subscription")
    }

    async fn listen(&self, bus: &Arc<dyn Bus>, handler: Arc<dyn Handler>, replay: Duration) -> Running {
        let subscription =
            Subscription { consumer: CONSUMER, topics: TOPICS, delivery: Delivery::Broadcast { replay } };
        bus.subscribe(subscription, handler, DeadLetters::log_only()).await.expect("a subscription")
    }

    /// How often each event of the consumer's database had its effect.
    async fn effects(&self) -> BTreeMap<(String, i64), i64> {
        let mut conn = self.consumer.read().await.expect("a connection");
        let rows = store::fetch_all!(
            conn,
            (String, i64, i64),
            "SELECT key, version, COUNT(*) FROM effect GROUP BY key, version"
        );
        rows.await.expect("the effects").into_iter().map(|(key, version, count)| ((key, version), count)).collect()
    }

    /// Waits until nothing is left to publish.
    async fn settled(&self) {
        until("every event is published", async || Outbox::pending(&self.emitter).await.expect("a count") == 0).await;
    }
}

struct RunningRelay {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningRelay {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the relay ends");
    }

    /// As `kill -9` would.
    async fn kill(self) {
        self.task.abort();
        let _killed = self.task.await;
    }
}

type Handled = Vec<(String, i64)>;
type Fails = Box<dyn Fn(&Envelope) -> Result<(), Failure> + Send + Sync>;

struct Worker {
    inbox: Inbox,
    fails: Fails,
    handled: watch::Sender<Handled>,
}

impl Worker {
    async fn handled(&self, count: usize) -> Handled {
        let mut handled = self.handled.subscribe();
        let enough = handled.wait_for(|handled| handled.len() >= count);
        tokio::time::timeout(PATIENCE, enough)
            .await
            .unwrap_or_else(|_| panic!("fewer than {count} events were handled"))
            .expect("a worker")
            .clone()
    }
}

#[async_trait]
impl Handler for Worker {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        (self.fails)(event)?;
        let UserUpdated { user_id } = event.decode()?;
        let Some(mut tx) = self.inbox.begin(event).await? else { return Ok(()) };
        store::execute!(tx, "INSERT INTO effect (key, version) VALUES ($1, $2)", user_id.as_str(), event.version)
            .await?;
        tx.commit().await?;
        self.handled.send_modify(|handled| handled.push((user_id, event.version)));
        Ok(())
    }
}

/// A broadcast handler: what it got, in its order.
#[derive(Default)]
struct Listener(watch::Sender<Handled>);

impl Listener {
    async fn got(&self, version: i64) -> Handled {
        let mut got = self.0.subscribe();
        let arrived = got.wait_for(|got| got.iter().any(|(_, arrived)| *arrived == version));
        tokio::time::timeout(PATIENCE, arrived)
            .await
            .unwrap_or_else(|_| panic!("version {version} did not arrive"))
            .expect("a listener")
            .clone()
    }
}

#[async_trait]
impl Handler for Listener {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        self.0.send_modify(|got| got.push((event.key.clone(), event.version)));
        Ok(())
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it never came true that {what}"));
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where others fail")]
fn never_fails(_: &Envelope) -> Result<(), Failure> {
    Ok(())
}

fn assert_in_order(handled: &[(String, i64)]) {
    let mut last = BTreeMap::new();
    for (key, version) in handled {
        let before = last.insert(key, *version);
        assert!(before.is_none_or(|before| before < *version), "{key}: {version} came after {before:?}");
    }
}

fn assert_once(effects: &BTreeMap<(String, i64), i64>, expected: impl IntoIterator<Item = (String, i64)>) {
    let expected: BTreeMap<_, _> = expected.into_iter().map(|event| (event, 1)).collect();
    assert_eq!(*effects, expected);
}

fn grid(keys: usize, versions: i64) -> impl Iterator<Item = (String, i64)> {
    (0..keys).flat_map(move |key| (1..=versions).map(move |version| (format!("key-{key}"), version)))
}

async fn emit_concurrently(world: &World, keys: usize, versions: i64) {
    let emitted = (0..keys).map(async |key| {
        for version in 1..=versions {
            world.emit(&format!("key-{key}"), version).await;
        }
    });
    futures_util::future::join_all(emitted).await;
}

/// At least once, in order per key, with the inbox exactly once; while other keys go on at the same time.
pub async fn events_arrive_once_and_in_order_per_key(world: World) {
    let bus = world.bus().await;
    let worker = world.worker(never_fails);
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    emit_concurrently(&world, 8, 20).await;
    assert_in_order(&worker.handled(160).await);
    world.settled().await;
    assert_once(&world.effects().await, grid(8, 20));
    relay.stop().await;
    running.stop().await;
}

/// A key is parked while its event fails.
pub async fn a_failed_event_is_tried_again_before_the_next_of_its_key_and_holds_up_no_other_key(mut world: World) {
    world.retry.attempts = u32::MAX;
    let bus = world.bus().await;
    let healed = Arc::new(AtomicUsize::new(0));
    let heals = Arc::clone(&healed);
    let worker = world.worker(move |event| match (event.key.as_str(), event.version) {
        ("parked", 2) if heals.load(Ordering::SeqCst) == 0 => Err(Failure::Retry("not yet".into())),
        _ => Ok(()),
    });
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    for version in 1..=3 {
        world.emit("parked", version).await;
        world.emit("free", version).await;
    }
    let handled = worker.handled(4).await;
    assert!(handled.contains(&("free".into(), 3)), "{handled:?}");
    assert!(!handled.contains(&("parked".into(), 3)), "{handled:?}");
    healed.store(1, Ordering::SeqCst);
    assert_in_order(&worker.handled(6).await);
    assert!(world.dead_letters.list(None, 10).await.expect("a list").is_empty());
    relay.stop().await;
    running.stop().await;
}

/// An outage of what a handler needs makes no dead letters.
pub async fn an_event_waits_for_what_is_away_however_often_it_is_tried(world: World) {
    let bus = world.bus().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    // Three attempts are the most that count.
    let worker = world.worker(move |event| match event.version {
        2 if counter.fetch_add(1, Ordering::SeqCst) < 10 => Err(Failure::Later("it is away".into())),
        _ => Ok(()),
    });
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    for version in 1..=3 {
        world.emit("waiting", version).await;
    }
    assert_in_order(&worker.handled(3).await);
    assert_eq!(attempts.load(Ordering::SeqCst), 11);
    assert!(world.dead_letters.list(None, 10).await.expect("a list").is_empty());
    relay.stop().await;
    running.stop().await;
}

/// Rejected at once, or failed too often; a panic is a failure.
pub async fn a_poisonous_event_becomes_a_dead_letter_and_its_key_goes_on(world: World) {
    let bus = world.bus().await;
    let worker = world.worker(|event| match (event.key.as_str(), event.version) {
        ("rejected", 2) => Err(Failure::Reject("never".into())),
        ("failing", 2) => Err(Failure::Retry("not now".into())),
        ("panicking", 2) => panic!("a handler that panics"),
        _ => Ok(()),
    });
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    let mut poison = BTreeSet::new();
    for key in ["rejected", "failing", "panicking"] {
        world.emit(key, 1).await;
        poison.insert(world.emit(key, 2).await);
        world.emit(key, 3).await;
    }
    assert_in_order(&worker.handled(6).await);
    world.settled().await;
    let letters = world.dead_letters.list(Some(CONSUMER), 10).await.expect("a list");
    assert_eq!(letters.iter().map(|letter| letter.event.id).collect::<BTreeSet<_>>(), poison);
    let told: BTreeSet<_> =
        letters.iter().map(|letter| (letter.event.key.as_str(), letter.reason.as_str(), letter.attempts)).collect();
    let expected = [("rejected", "never", 1), ("failing", "not now", 3), ("panicking", "the handler panicked", 3)];
    assert_eq!(told, BTreeSet::from(expected));
    relay.stop().await;
    running.stop().await;
}

/// What is handled now is removed, and has its effect once.
pub async fn dead_letters_are_replayed_and_those_that_fail_again_stay(world: World) {
    let bus = world.bus().await;
    let healed = Arc::new(AtomicUsize::new(0));
    let heals = Arc::clone(&healed);
    let worker = world.worker(move |event| match (event.key.as_str(), heals.load(Ordering::SeqCst)) {
        ("hopeless", _) | ("healing", 0) => Err(Failure::Reject("never".into())),
        _ => Ok(()),
    });
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    world.emit("hopeless", 1).await;
    world.emit("healing", 1).await;
    let letters = async || world.dead_letters.list(None, 10).await.expect("a list").len();
    until("both are dead letters", async || letters().await == 2).await;
    healed.store(1, Ordering::SeqCst);
    let all = || Selection::Consumer(CONSUMER.into());
    let outcome = world.dead_letters.replay(all()).await.expect("a replay");
    assert_eq!((outcome.replayed, outcome.failed), (1, 1));
    assert_once(&world.effects().await, [("healing".to_owned(), 1)]);
    let left = world.dead_letters.list(None, 10).await.expect("a list");
    assert_eq!(
        left.iter().map(|letter| (letter.event.key.as_str(), letter.attempts)).collect::<Vec<_>>(),
        [("hopeless", 2)]
    );
    let outcome =
        world.dead_letters.replay(Selection::Ids(vec![left[0].id, world.source.id()])).await.expect("a replay");
    assert_eq!((outcome.replayed, outcome.failed), (0, 1));
    relay.stop().await;
    running.stop().await;
}

/// In one process; and what cannot be handled must not get lost.
pub async fn a_consumer_has_one_subscription_and_a_place_for_its_dead_letters(world: World) {
    let bus = world.bus().await;
    let subscription = || Subscription { consumer: CONSUMER, topics: TOPICS, delivery: Delivery::Work };
    let nowhere = bus.subscribe(subscription(), world.worker(never_fails), DeadLetters::log_only()).await;
    assert!(matches!(nowhere, Err(Error::NoDeadLetters(CONSUMER))), "{nowhere:?}");
    let running = world.work(&bus, world.worker(never_fails)).await;
    let second = bus.subscribe(subscription(), world.worker(never_fails), world.dead_letters.clone()).await;
    assert!(matches!(second, Err(Error::Taken(CONSUMER))), "{second:?}");
    running.stop().await;
    let running = world.work(&bus, world.worker(never_fails)).await;
    running.stop().await;
}

/// A relay that died before it could mark an event as published comes again with it.
pub async fn an_event_that_is_published_again_has_one_effect(world: World) {
    let bus = world.bus().await;
    let worker = world.worker(never_fails);
    let running = world.work(&bus, worker.clone()).await;
    let events: Vec<_> = (1..=5).map(|version| world.envelope("key-0", version)).collect();
    let (first, second) = tokio::join!(bus.publish(&events), bus.publish(&events));
    first.and(second).expect("published");
    bus.publish(&events[4..]).await.expect("published");
    assert_eq!(worker.handled(5).await.len(), 5);
    running.stop().await;
    assert_once(&world.effects().await, grid(1, 5));
}

/// All of them, in order, whether or not another one is there.
pub async fn every_broadcast_subscriber_gets_every_event(world: World) {
    let bus = world.bus().await;
    let listeners = [Arc::new(Listener::default()), Arc::new(Listener::default())];
    let mut running = Vec::new();
    for listener in &listeners {
        running.push(world.listen(&bus, listener.clone(), Duration::ZERO).await);
    }
    for running in &running {
        running.caught_up().await;
    }
    let relay = world.relay(&bus);
    for version in 1..=20 {
        world.emit("key-0", version).await;
    }
    for listener in &listeners {
        assert_eq!(listener.got(20).await, grid(1, 20).collect::<Vec<_>>());
    }
    relay.stop().await;
    for running in running {
        running.stop().await;
    }
}

/// The window counts from now; what was published before the subscription is in it too.
pub async fn a_broadcast_subscriber_first_gets_the_events_of_its_replay_window(world: World) {
    let bus = world.bus().await;
    let relay = world.relay(&bus);
    world.emit("key-0", 1).await;
    world.settled().await;
    world.clock.advance(Duration::from_mins(10));
    for version in 2..=300 {
        world.emit("key-0", version).await;
    }
    world.settled().await;
    let listener = Arc::new(Listener::default());
    let running = world.listen(&bus, listener.clone(), Duration::from_mins(5)).await;
    tokio::time::timeout(PATIENCE, running.caught_up()).await.expect("it catches up");
    assert_eq!(*listener.0.borrow(), grid(1, 300).skip(1).collect::<Vec<_>>());
    world.emit("key-0", 301).await;
    assert_in_order(&listener.got(301).await);
    relay.stop().await;
    running.stop().await;
}

/// What comes while the consumer is away waits for it.
pub async fn a_consumer_that_was_stopped_in_the_middle_loses_nothing(world: World) {
    let bus = world.bus().await;
    let first = world.worker(never_fails);
    let running = world.work(&bus, first.clone()).await;
    let relay = world.relay(&bus);
    emit_concurrently(&world, 4, 5).await;
    first.handled(1).await;
    running.stop().await;
    let before = first.handled.borrow().clone();
    for key in 0..4 {
        world.emit(&format!("key-{key}"), 6).await;
    }
    let second = world.worker(never_fails);
    let running = world.work(&bus, second.clone()).await;
    let after = second.handled(24 - before.len()).await;
    assert_eq!(*first.handled.borrow(), before, "a consumer that was stopped handles nothing more");
    assert_in_order(&[before, after].concat());
    world.settled().await;
    assert_once(&world.effects().await, grid(4, 6));
    relay.stop().await;
    running.stop().await;
}

/// The relay and the bus go in the middle, with no good-bye.
pub async fn a_crash_loses_nothing_and_repeats_no_effect(world: World) {
    emit_concurrently(&world, 8, 10).await;
    for crash_after in [1, 10, 30] {
        let bus = world.bus().await;
        let worker = world.worker(never_fails);
        let running = world.work(&bus, worker.clone()).await;
        let relay = world.relay(&bus);
        worker.handled(crash_after).await;
        relay.kill().await;
        drop((running, bus));
        // A killed process has let go of its lease as well once that has run out.
        release_leases(&world.emitter).await;
    }
    let bus = world.bus().await;
    let running = world.work(&bus, world.worker(never_fails)).await;
    let relay = world.relay(&bus);
    world.settled().await;
    until("every event has its effect", async || world.effects().await.len() == 80).await;
    assert_once(&world.effects().await, grid(8, 10));
    relay.stop().await;
    running.stop().await;
}

async fn release_leases(db: &Db) {
    let mut tx = db.begin().await.expect("a transaction");
    store::execute!(tx, "DELETE FROM lease").await.expect("no lease");
    tx.commit().await.expect("no lease");
}

/// However many wait.
pub async fn few_events_are_handled_at_the_same_time(world: World) {
    let bus = world.bus().await;
    let crowd = Arc::new(Crowd::default());
    let running = world.work(&bus, crowd.clone()).await;
    let relay = world.relay(&bus);
    emit_concurrently(&world, 300, 1).await;
    let handled = || crowd.handled.lock().unwrap_or_else(PoisonError::into_inner).len();
    until("all are handled", async || handled() == 300).await;
    world.settled().await;
    let most = crowd.most.load(Ordering::SeqCst);
    assert!((2..=MOST_AT_ONCE).contains(&most), "{most} at the same time");
    relay.stop().await;
    running.stop().await;
}

/// Counts how many events are in it.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    handled: Mutex<BTreeSet<EventId>>,
}

#[async_trait]
impl Handler for Crowd {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Not synchronisation: a handler that takes its time, so that others come meanwhile.
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).insert(event.id);
        Ok(())
    }
}

/// And an event of a topic that nobody wants is published all the same.
pub async fn a_consumer_gets_only_its_topics(world: World) {
    let bus = world.bus().await;
    let worker = world.worker(never_fails);
    let running = world.work(&bus, worker.clone()).await;
    let relay = world.relay(&bus);
    let mut tx = world.emitter.begin().await.expect("a transaction");
    let other = UserRegistered { user_id: "key-0".into() };
    Outbox::new("auth", world.source.clone()).append(&mut tx, 1, &other).await.expect("an event");
    tx.commit().await.expect("a commit");
    world.emit("key-0", 2).await;
    world.settled().await;
    assert_eq!(worker.handled(1).await, [("key-0".to_owned(), 2)]);
    assert!(world.dead_letters.list(None, 10).await.expect("a list").is_empty());
    relay.stop().await;
    running.stop().await;
}
