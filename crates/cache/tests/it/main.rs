//! The cache through its public surface: what it does in a process alone, and with a second level on Redis.

mod replicas;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache::{Cache, Settings};
use futures_util::future::join_all;
use ids::Source;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::sync::oneshot;

const SETTINGS: Settings = Settings { capacity: 1000, ttl: Duration::from_hours(1) };

/// Makes an empty cache.
type Make = fn(Settings) -> Cache<u8, u32>;

/// Writes a test for each case on one level and on two.
macro_rules! on_each {
    ($($case:ident),+) => { $(
        mod $case {
            #[tokio::test]
            async fn in_process() {
                super::$case(super::near).await;
            }

            #[tokio::test]
            async fn on_redis() {
                super::$case(super::far).await;
            }
        }
    )+ };
}

on_each!(
    callers_that_ask_at_the_same_time_share_one_load,
    an_error_is_not_kept,
    a_load_that_began_before_an_invalidation_is_not_used_after_it,
    entries_end_with_their_time
);

fn near(settings: Settings) -> Cache<u8, u32> {
    Cache::new("test", settings)
}

fn far(settings: Settings) -> Cache<u8, u32> {
    near(settings).shared(keyspace::testing::keyspace(), Source::system(), Duration::from_secs(30))
}

async fn get(cache: &Cache<u8, u32>, key: u8, value: u32) -> u32 {
    cache.get_or_load(key, async { Ok::<_, Infallible>(value) }).await.unwrap()
}

async fn callers_that_ask_at_the_same_time_share_one_load(make: Make) {
    let cache = make(SETTINGS);
    let loads = AtomicU32::new(0);
    let answers = join_all((0..32).map(|_| {
        cache.get_or_load(1_u8, async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(loads.fetch_add(1, Ordering::SeqCst))
        })
    }));
    assert!(answers.await.into_iter().all(|answer| answer == Ok(0)));
    assert_eq!(loads.into_inner(), 1);
}

async fn an_error_is_not_kept(make: Make) {
    let cache = make(SETTINGS);
    assert_eq!(cache.get_or_load(1, async { Err("no") }).await, Err(Arc::new("no")));
    assert_eq!(get(&cache, 1, 2).await, 2);
}

async fn a_load_that_began_before_an_invalidation_is_not_used_after_it(make: Make) {
    let cache = make(SETTINGS);
    let (answer, waiting) = oneshot::channel::<u32>();
    let (started, is_started) = oneshot::channel();
    let loading = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = async {
                started.send(()).unwrap();
                waiting.await
            };
            cache.get_or_load(1, load).await
        }
    });
    is_started.await.unwrap();
    cache.invalidate(&1).await;
    assert_eq!(get(&cache, 1, 2).await, 2, "it does not wait for the old load");
    answer.send(1).unwrap();
    assert_eq!(loading.await.unwrap(), Ok(1));
    assert_eq!(get(&cache, 1, 3).await, 2, "the old load has not replaced the new value");
}

async fn entries_end_with_their_time(make: Make) {
    let cache = make(Settings { ttl: Duration::from_millis(20), ..SETTINGS });
    assert_eq!(get(&cache, 1, 0).await, 0);
    let ended = async {
        while get(&cache, 1, 1).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the entry ends");
}

/// An invalidation may forget more than it was asked to, so a value is the model's or the one just loaded; never an older one.
fn no_history_shows_a_value_from_before_its_invalidation(make: Make) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) });
    let outcome = runner.run(&prop::collection::vec((0..4_u8, any::<bool>()), 1..60), |steps| {
        runtime.block_on(async {
            let cache = make(SETTINGS);
            let mut model = HashMap::new();
            for (number, (key, invalidates)) in steps.into_iter().enumerate() {
                let loaded = u32::try_from(number).unwrap();
                if invalidates {
                    cache.invalidate(&key).await;
                    model.remove(&key);
                } else {
                    let found = get(&cache, key, loaded).await;
                    let expected = model.insert(key, found).unwrap_or(loaded);
                    prop_assert!(found == expected || found == loaded);
                }
            }
            Ok(())
        })
    });
    outcome.unwrap();
}

#[test]
fn no_history_in_process_shows_a_value_from_before_its_invalidation() {
    no_history_shows_a_value_from_before_its_invalidation(near);
}

#[test]
fn no_history_on_redis_shows_a_value_from_before_its_invalidation() {
    no_history_shows_a_value_from_before_its_invalidation(far);
}
