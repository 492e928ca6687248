//! Replicas that share a second level, and what happens when Redis is slow, away, full or has lost its data.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use cache::Cache;
use ids::Source;
use keyspace::Keyspace;
use keyspace::redis::cmd;
use keyspace::testing::{HALT, Server};
use tokio::sync::oneshot;

use crate::{SETTINGS, get};

/// Far longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn replica(keyspace: &Keyspace) -> Cache<u8, u32> {
    Cache::new("test", SETTINGS).shared(keyspace.clone(), Source::system(), SOON)
}

/// A load that waits until it is told its value.
async fn begin(cache: &Cache<u8, u32>, key: u8) -> (oneshot::Sender<u32>, tokio::task::JoinHandle<u32>) {
    let (answer, waiting) = oneshot::channel();
    let (started, is_started) = oneshot::channel();
    let cache = cache.clone();
    let loading = tokio::spawn(async move {
        let load = async {
            started.send(()).unwrap();
            waiting.await
        };
        cache.get_or_load(key, load).await.unwrap()
    });
    is_started.await.unwrap();
    (answer, loading)
}

/// Waits until what one loads is what another finds.
async fn are_together(keyspace: &Keyspace) {
    let together = async {
        for number in 0.. {
            get(&replica(keyspace), 200, number).await;
            if get(&replica(keyspace), 200, number + 1).await == number {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, together).await.expect("they share values again");
}

#[tokio::test]
async fn what_one_has_loaded_the_others_find() {
    let keyspace = keyspace::testing::keyspace();
    let [one, other] = [replica(&keyspace), replica(&keyspace)];
    assert_eq!(get(&one, 1, 1).await, 1);
    assert_eq!(get(&other, 1, 2).await, 1);
    assert_eq!(get(&other, 2, 3).await, 3, "another key");
    let elsewhere = Cache::new("elsewhere", SETTINGS).shared(keyspace, Source::system(), SOON);
    assert_eq!(get(&elsewhere, 1, 4).await, 4, "another cache");
}

#[tokio::test]
async fn an_invalidation_beats_a_load_of_another_replica_that_began_before_it() {
    let keyspace = keyspace::testing::keyspace();
    let [one, other] = [replica(&keyspace), replica(&keyspace)];
    let (answer, loading) = begin(&one, 1).await;
    other.invalidate(&1).await;
    answer.send(1).unwrap();
    assert_eq!(loading.await.unwrap(), 1, "who asked before gets what there was");
    assert_eq!(get(&other, 1, 2).await, 2);
    let (answer, loading) = begin(&replica(&keyspace), 2).await;
    other.invalidate(&2).await;
    assert_eq!(get(&other, 2, 3).await, 3);
    answer.send(1).unwrap();
    loading.await.unwrap();
    assert_eq!(get(&replica(&keyspace), 2, 4).await, 3, "the old load has not replaced the new value");
}

#[tokio::test]
async fn a_load_that_began_before_redis_lost_its_data_is_not_kept() {
    let server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    let [one, other] = [replica(&keyspace), replica(&keyspace)];
    let (answer, loading) = begin(&one, 1).await;
    other.invalidate(&1).await;
    server.make_room().await;
    answer.send(1).unwrap();
    loading.await.unwrap();
    assert_eq!(get(&other, 1, 2).await, 2);
}

#[tokio::test]
async fn a_value_gets_no_longer_life_by_going_from_one_to_another() {
    let keyspace = keyspace::testing::keyspace();
    assert_eq!(get(&replica(&keyspace), 1, 0).await, 0);
    let key: Vec<String> = keyspace.run(cmd("KEYS").arg(keyspace.key("", "").replace("{}:", "*"))).await.unwrap();
    // Of its hour a moment is left.
    keyspace.run::<()>(cmd("PEXPIRE").arg(&key[0]).arg(200)).await.unwrap();
    let other = replica(&keyspace);
    let ended = async {
        while get(&other, 1, 1).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("it ends at the other too");
}

#[tokio::test]
async fn a_large_value_is_not_shared() {
    let keyspace = keyspace::testing::keyspace();
    let replica = || Cache::<u8, String>::new("test", SETTINGS).shared(keyspace.clone(), Source::system(), SOON);
    let load = async |cache: Cache<u8, String>, length: usize| {
        cache.get_or_load(1, async { Ok::<_, Infallible>("x".repeat(length)) }).await.unwrap().len()
    };
    assert_eq!(load(replica(), 2_000_000).await, 2_000_000);
    assert_eq!(load(replica(), 1_000_000).await, 1_000_000);
    assert_eq!(load(replica(), 1).await, 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_paused_each_loads_for_itself_and_soon() {
    let server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    let impatient =
        || Cache::new("test", SETTINGS).shared(keyspace.clone(), Source::system(), Duration::from_millis(50));
    let [one, other] = [impatient(), impatient()];
    server.pause().await;
    let began = Instant::now();
    for key in 0..10 {
        assert_eq!(get(&one, key, 1).await, 1);
        assert_eq!(get(&other, key, 2).await, 2);
        assert_eq!(get(&one, key, 3).await, 1, "the near level goes on");
    }
    // The keyspace's own limit would make it ten seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    tokio::time::sleep(HALT).await;
    one.invalidate(&1).await;
    assert_eq!(get(&one, 1, 4).await, 4);
    server.resume().await;
    are_together(&keyspace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_dead_each_loads_for_itself() {
    let mut server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    assert_eq!(get(&replica(&keyspace), 1, 1).await, 1);
    server.kill().await;
    assert_eq!(get(&replica(&keyspace), 1, 2).await, 2);
    server.restart().await;
    are_together(&keyspace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_full_each_loads_for_itself_and_an_invalidation_still_works() {
    let server = Server::start(&[]).await;
    let keyspace = server.keyspace();
    assert_eq!(get(&replica(&keyspace), 1, 1).await, 1);
    server.fill().await;
    assert_eq!(get(&replica(&keyspace), 2, 1).await, 1);
    assert_eq!(get(&replica(&keyspace), 2, 2).await, 2);
    assert_eq!(get(&replica(&keyspace), 1, 2).await, 1, "what is there can be read");
    replica(&keyspace).invalidate(&1).await;
    assert_eq!(get(&replica(&keyspace), 1, 3).await, 3);
    server.make_room().await;
    are_together(&keyspace).await;
}
