//! The cache through its public surface.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache::{Cache, Settings};
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::oneshot;

const SETTINGS: Settings = Settings { capacity: 1000, ttl: Duration::from_hours(1) };

async fn get(cache: &Cache<u8, u32>, key: u8, value: u32) -> u32 {
    cache.get_or_load(key, async { Ok::<_, Infallible>(value) }).await.unwrap()
}

#[tokio::test]
async fn callers_that_ask_at_the_same_time_share_one_load() {
    let cache = Cache::new("test", SETTINGS);
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

#[tokio::test]
async fn an_error_is_not_kept() {
    let cache = Cache::new("test", SETTINGS);
    assert_eq!(cache.get_or_load(1, async { Err("no") }).await, Err(Arc::new("no")));
    assert_eq!(get(&cache, 1, 2).await, 2);
}

#[tokio::test]
async fn a_load_that_began_before_an_invalidation_is_not_used_after_it() {
    let cache = Cache::new("test", SETTINGS);
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
    cache.invalidate(&1);
    assert_eq!(get(&cache, 1, 2).await, 2, "it does not wait for the old load");
    answer.send(1).unwrap();
    assert_eq!(loading.await.unwrap(), Ok(1));
    assert_eq!(get(&cache, 1, 3).await, 2, "the old load has not replaced the new value");
}

#[tokio::test]
async fn entries_end_with_their_time() {
    let cache = Cache::new("test", Settings { ttl: Duration::from_millis(20), ..SETTINGS });
    assert_eq!(get(&cache, 1, 0).await, 0);
    let ended = async {
        while get(&cache, 1, 1).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the entry ends");
}

#[tokio::test]
async fn everything_is_forgotten_at_once() {
    let cache = Cache::new("test", SETTINGS);
    for key in 0..=u8::MAX {
        get(&cache, key, 1).await;
    }
    cache.invalidate_all();
    for key in 0..=u8::MAX {
        assert_eq!(get(&cache, key, 2).await, 2);
    }
}

proptest! {
    /// An invalidation may forget more than it was asked to, so a value is the model's or the one just loaded; never an older one.
    #[test]
    fn no_history_shows_a_value_from_before_its_invalidation(steps in prop::collection::vec((0..4_u8, any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cache = Cache::new("test", SETTINGS);
            let mut model = HashMap::new();
            for (number, (key, invalidates)) in steps.into_iter().enumerate() {
                let loaded = u32::try_from(number).unwrap();
                if invalidates {
                    cache.invalidate(&key);
                    model.remove(&key);
                } else {
                    let found = get(&cache, key, loaded).await;
                    let expected = model.insert(key, found).unwrap_or(loaded);
                    prop_assert!(found == expected || found == loaded);
                }
            }
            Ok(())
        })?;
    }
}
