use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contracts::Event as _;
use contracts::auth::v1::{TokenRevoked, UserUpdated};
use events::{
    Bus, DeadLetters, Delivery, EmbeddedBus, Envelope, Error, Failure, Handler, Inbox, Lease, MAX_PAYLOAD, MIGRATIONS,
    Outbox, Receipt, Relay, Running, Subscription, async_trait,
};
use ids::{EventId, Source};
use store::testing::{Backend, database};
use store::{Db, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Counts how often each event was published; takes nothing the first time if it is told so.
#[derive(Default)]
struct CountingBus {
    published: watch::Sender<BTreeMap<EventId, u32>>,
    refuses: AtomicBool,
}

#[async_trait]
impl Bus for CountingBus {
    async fn publish(&self, events: &[Envelope]) -> Result<Vec<Receipt>, Error> {
        if self.refuses.swap(false, Ordering::SeqCst) {
            return Err(Error::Taken("away"));
        }
        self.published.send_modify(|published| {
            for event in events {
                *published.entry(event.id).or_default() += 1;
            }
        });
        Ok(Vec::new())
    }

    async fn subscribe(&self, _: Subscription, _: Arc<dyn Handler>, _: DeadLetters) -> Result<Running, Error> {
        unreachable!("nobody subscribes to it")
    }
}

impl CountingBus {
    async fn published(&self, count: usize) -> BTreeMap<EventId, u32> {
        let mut published = self.published.subscribe();
        let enough = published.wait_for(|published| published.len() >= count);
        tokio::time::timeout(Duration::from_secs(30), enough).await.expect("all are published").unwrap().clone()
    }
}

async fn emit(db: &Db, key: &str) -> EventId {
    let mut tx = db.begin().await.unwrap();
    let event = UserUpdated { user_id: key.into() };
    let id = Outbox::new("auth", Source::system()).append(&mut tx, 1, &event).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn relay(db: &Db, bus: &Arc<CountingBus>) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let relay = Relay::new(db.clone(), "auth", Arc::clone(bus) as _, Source::system());
    (stop.clone(), tokio::spawn(relay.run(stop)))
}

async fn settled(db: &Db) {
    let settled = async {
        while Outbox::pending(db).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("every event is published");
}

/// Gives receipts, and keeps nothing of what it takes.
struct Forgetful;

#[async_trait]
impl Bus for Forgetful {
    async fn publish(&self, _: &[Envelope]) -> Result<Vec<Receipt>, Error> {
        Ok(vec![Receipt { stream: 1, number: 7 }])
    }

    async fn subscribe(&self, _: Subscription, _: Arc<dyn Handler>, _: DeadLetters) -> Result<Running, Error> {
        unreachable!("nobody subscribes to it")
    }
}

/// Tells which events came.
struct Collects(watch::Sender<Vec<EventId>>);

#[async_trait]
impl Handler for Collects {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        self.0.send_modify(|came| came.push(event.id));
        Ok(())
    }
}

store::on_both! {
    migrations: &[&MIGRATIONS];

    async fn what_only_an_earlier_bus_has_is_delivered_by_the_embedded_one(db: Db) {
        let id = emit(&db, "key").await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(Relay::new(db.clone(), "auth", Arc::new(Forgetful), Source::system()).run(stop.clone()));
        settled(&db).await;
        stop.cancel();
        task.await.unwrap();

        let bus = Arc::new(EmbeddedBus::new(Source::system()));
        let collects = Arc::new(Collects(watch::Sender::default()));
        let subscription = Subscription { consumer: "content.test", topics: &[UserUpdated::TOPIC], delivery: Delivery::Work };
        let dead_letters = DeadLetters::new(db.clone(), Source::system());
        let running = bus.subscribe(subscription, Arc::clone(&collects) as _, dead_letters).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(Relay::new(db.clone(), "auth", bus, Source::system()).run(stop.clone()));
        let mut came = collects.0.subscribe();
        let arrived = tokio::time::timeout(Duration::from_secs(30), came.wait_for(|came| !came.is_empty())).await;
        assert_eq!(*arrived.expect("it arrives").unwrap(), [id]);
        settled(&db).await;
        stop.cancel();
        task.await.unwrap();
        running.stop().await;
    }

    async fn two_relays_on_one_database_publish_each_event_once_and_one_takes_over_from_the_other(db: Db) {
        let bus = Arc::new(CountingBus::default());
        let relays = [relay(&db, &bus), relay(&db, &bus)];
        let mut expected = BTreeMap::new();
        for round in 1..=3 {
            for number in 0..50 {
                expected.insert(emit(&db, &format!("key-{number}")).await, 1);
            }
            assert_eq!(bus.published(50 * round).await, expected);
            settled(&db).await;
            if round == 1 {
                relays[0].0.cancel();
            }
            if round == 2 {
                relays[1].0.cancel();
                let _third = tokio::spawn(Relay::new(db.clone(), "auth", Arc::clone(&bus) as _, Source::system()).run(CancellationToken::new()));
            }
        }
        for (_, task) in relays {
            task.await.unwrap();
        }
    }

    async fn a_bus_that_takes_nothing_for_a_while_gets_the_events_later(db: Db) {
        let bus = Arc::new(CountingBus { refuses: AtomicBool::new(true), ..CountingBus::default() });
        let id = emit(&db, "key").await;
        let (stop, task) = relay(&db, &bus);
        assert_eq!(bus.published(1).await, BTreeMap::from([(id, 1)]));
        settled(&db).await;
        stop.cancel();
        task.await.unwrap();
    }

    async fn a_commit_rings_the_bell_and_a_rollback_does_not(db: Db) {
        let outbox = Outbox::new("auth", Source::system());
        let event = UserUpdated { user_id: "key".into() };
        let mut tx = db.begin().await.unwrap();
        outbox.append(&mut tx, 1, &event).await.unwrap();
        drop(tx);
        let mut rung = std::pin::pin!(db.bell().notified());
        assert!(futures_util::poll!(rung.as_mut()).is_pending());
        emit(&db, "key").await;
        tokio::time::timeout(Duration::from_secs(5), rung).await.expect("the commit rings");
        assert_eq!(Outbox::pending(&db).await.unwrap(), 1);
    }

    async fn an_event_without_a_key_or_over_the_size_limit_is_refused(db: Db) {
        let outbox = Outbox::new("auth", Source::system());
        let mut tx = db.begin().await.unwrap();
        let unkeyed = outbox.append(&mut tx, 1, &UserUpdated::default()).await;
        assert!(matches!(unkeyed, Err(Error::NoKey("auth.user.updated"))), "{unkeyed:?}");
        let large = TokenRevoked { user_id: "key".into(), session_id: "x".repeat(MAX_PAYLOAD), revoke_time: None };
        let large = outbox.append(&mut tx, 1, &large).await;
        assert!(matches!(large, Err(Error::TooLarge { topic: "auth.token.revoked", .. })), "{large:?}");
        tx.commit().await.unwrap();
        assert_eq!(Outbox::pending(&db).await.unwrap(), 0);
    }

    async fn a_lease_has_one_holder_until_it_ends_or_is_released(db: Db) {
        let source = Source::system();
        let lease = |duration| Lease::new(db.clone(), "rotation", duration, &source);
        let (brief, other) = (lease(Duration::from_millis(50)), lease(Duration::from_mins(1)));
        assert!(brief.acquire().await.unwrap());
        let taken_over = async {
            while !other.acquire().await.unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), taken_over).await.expect("a lease ends");
        assert!(!brief.acquire().await.unwrap());
        assert!(other.acquire().await.unwrap(), "its holder may renew it");
        brief.release().await.unwrap();
        assert!(!brief.acquire().await.unwrap(), "only its holder releases it");
        other.release().await.unwrap();
        assert!(brief.acquire().await.unwrap());
    }

    async fn a_lease_tells_how_long_it_is_held(db: Db) {
        let lease = Lease::new(db.clone(), "rotation", Duration::from_mins(1), &Source::system());
        assert_eq!(lease.left().await.unwrap(), Duration::ZERO);
        assert!(lease.acquire().await.unwrap());
        let left = lease.left().await.unwrap();
        assert!(Duration::ZERO < left && left <= Duration::from_mins(1), "{left:?}");
        lease.release().await.unwrap();
        assert_eq!(lease.left().await.unwrap(), Duration::ZERO);
    }

    async fn what_was_taken_long_ago_is_forgotten_in_parts(db: Db) {
        let source = Source::system();
        let old = source.now() - Duration::from_hours(31 * 24);
        let mut tx = db.begin().await.unwrap();
        for (count, time) in [(2500, old), (1, source.now())] {
            for _ in 0..count {
                let insert = "INSERT INTO inbox (consumer, event_id, time) VALUES ('content.test', $1, $2)";
                store::execute!(tx, insert, source.id::<EventId>(), time).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
        let (stop, task) = relay(&db, &Arc::new(CountingBus::default()));
        let forgotten = async {
            let taken = async || {
                let mut conn = db.read().await.unwrap();
                store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM inbox").await.unwrap()
            };
            while taken().await != 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("what is old is forgotten");
        stop.cancel();
        task.await.unwrap();
    }

    async fn of_two_handlers_of_one_event_at_the_same_time_one_has_the_effect(db: Db) {
        let inbox = Inbox::new(db.clone(), "content.test", Source::system());
        let other = Inbox::new(db.clone(), "content.other", Source::system());
        let event = Envelope {
            id: Source::system().id(),
            source: "auth".into(),
            topic: "auth.user.updated".into(),
            key: "key".into(),
            version: 1,
            time: Source::system().now(),
            traceparent: None,
            payload: Vec::new().into(),
        };
        let takes = (0..8).map(async |_| match inbox.begin(&event).await.unwrap() {
            Some(tx) => tx.commit().await.is_ok(),
            None => false,
        });
        let taken = futures_util::future::join_all(takes).await;
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
        assert!(other.begin(&event).await.unwrap().is_some(), "another consumer takes it too");
    }
}

/// Whether the lease of a process that was killed can be taken at once.
async fn is_free_after_a_kill(backend: Backend) -> bool {
    let db = database(backend, &[&MIGRATIONS]).await;
    let lease = |db: Db| Lease::new(db, "rotation", Duration::from_mins(10), &Source::system());
    assert!(lease(db.clone()).acquire().await.unwrap());
    assert!(!lease(db.clone()).acquire().await.unwrap(), "another holder in the same process waits");
    db.close().await;
    let next = Db::open(Settings::new(db.url())).await.unwrap();
    let taken = lease(next.clone()).acquire().await.unwrap();
    next.close().await;
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_the_lease_of_a_process_that_is_gone_is_free_at_once() {
    assert!(is_free_after_a_kill(Backend::Sqlite).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_the_lease_of_another_process_holds() {
    assert!(!is_free_after_a_kill(Backend::Postgres).await);
}
