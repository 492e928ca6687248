//! Buckets in Redis: what every place does, and what happens when Redis is slow, away or full.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ids::Source;
use keyspace::{
    Keyspace,
    redis::Script,
    redis::cmd,
    testing::{HALT, Server},
};
use limit::{Claim, InProcess, Key, Limits, OnRedis, Rate, conformance};

const SECRET: [u8; 32] = [7; 32];
/// Far longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn replica(keyspace: &Keyspace) -> OnRedis {
    OnRedis::new(keyspace.clone(), &SECRET, InProcess::new(1000, Source::system()))
}

/// Two replicas on one Redis.
struct World {
    keyspace: Keyspace,
    replicas: [Arc<OnRedis>; 2],
}

impl World {
    fn new(keyspace: Keyspace) -> Self {
        let replicas = [(); 2].map(|()| Arc::new(replica(&keyspace).patience(SOON)));
        Self { keyspace, replicas }
    }

    /// The keys of this world.
    async fn keys(&self) -> Vec<String> {
        let prefix = self.keyspace.key("", "").replace("{}:", "*");
        self.keyspace.run(cmd("KEYS").arg(prefix)).await.expect("Redis answers")
    }
}

impl conformance::World for World {
    fn replicas(&self) -> [Arc<dyn Limits>; 2] {
        [Arc::clone(&self.replicas[0]) as _, Arc::clone(&self.replicas[1]) as _]
    }

    /// Redis' clock cannot be moved, but what was written can be made older.
    async fn shift(&self, seconds: i64) {
        let age = Script::new(
            "local full_at = redis.call('GET', KEYS[1]) - ARGV[1] * 1000000
            local left = redis.call('PTTL', KEYS[1]) - ARGV[1] * 1000
            if left > 0 then
                redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', string.format('%.0f', left))
            else
                redis.call('DEL', KEYS[1])
            end",
        );
        for key in self.keys().await {
            self.keyspace.script::<()>(age.key(key).arg(seconds)).await.expect("Redis answers");
        }
    }
}

limit::conformance!(async || World::new(keyspace::testing::keyspace()));

fn claim(subject: &str, burst: u32) -> Claim {
    Claim { key: Key::new("test", subject), rate: Rate::new(burst, Duration::from_hours(1)) }
}

/// How many of `calls` are let through.
async fn allowed(limits: &OnRedis, claim: Claim, calls: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..calls {
        allowed += usize::from(limits.take(&[claim]).await.is_ok());
    }
    allowed
}

/// Waits until both see what the other takes.
async fn are_together(one: &OnRedis, other: &OnRedis) {
    let together = async {
        for number in 0.. {
            let claim = claim(&format!("together {number}"), 1);
            if one.take(&[claim]).await.is_ok() && other.take(&[claim]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, together).await.expect("they share buckets again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_several_buckets_are_taken_from_together_or_not_at_all() {
    let server = Server::start_cluster().await;
    let world = World::new(server.keyspace());
    conformance::where_one_bucket_has_no_room_nothing_is_taken_from_the_others(&world).await;
    conformance::concurrent_claims_on_several_buckets_get_exactly_the_smallest_burst(&world).await;
}

#[tokio::test]
async fn a_bucket_fills_by_the_clock_of_redis() {
    let limits = replica(&keyspace::testing::keyspace()).patience(SOON);
    let quick = Claim { key: Key::new("test", "quick"), rate: Rate::new(1, Duration::from_millis(300)) };
    let began = Instant::now();
    limits.take(&[quick]).await.expect("a full bucket");
    let wait = limits.take(&[quick]).await.expect_err("an empty bucket").retry_after;
    assert!(wait <= Duration::from_millis(300));
    let full = async { while limits.take(&[quick]).await.is_err() {} };
    tokio::time::timeout(SOON, full).await.expect("it fills");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn keys_name_nobody_and_go_when_the_bucket_is_full() {
    let world = World::new(keyspace::testing::keyspace());
    let key = Key::new("log-in account", "ada@example.org");
    let rate = Rate::new(100, Duration::from_secs(36));
    world.replicas[0].take(&[Claim { key, rate }]).await.expect("a full bucket");
    let names = world.keys().await;
    let [name] = names.as_slice() else { panic!("one key, not {names:?}") };
    assert!(!name.contains("ada"));
    let stranger = OnRedis::new(world.keyspace.clone(), &[8; 32], InProcess::new(1000, Source::system()));
    stranger.take(&[Claim { key, rate }]).await.expect("another bucket");
    assert_eq!(world.keys().await.len(), 2, "without the secret nobody can tell whose a bucket is");
    stranger.give_back(&[Claim { key, rate }]).await;
    let left: i64 = world.keyspace.run(cmd("PTTL").arg(name)).await.expect("Redis answers");
    assert!((1..=36_000).contains(&left), "{left}");
    world.replicas[1].give_back(&[Claim { key, rate }]).await;
    assert_eq!(world.keys().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_paused_calls_are_counted_here_and_soon_decided() {
    let server = Server::start(&[]).await;
    let [one, other] = [replica(&server.keyspace()), replica(&server.keyspace())];
    assert_eq!(allowed(&one, claim("known", 10), 4).await, 4);
    server.pause().await;

    let began = Instant::now();
    assert_eq!(allowed(&one, claim("known", 10), 100).await, 6, "it goes on from what it has let through");
    assert_eq!(allowed(&one, claim("unknown", 10), 100).await, 10);
    // 50 ms each would be ten seconds, and the keyspace's own limit a hundred: after one second nobody waits.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    one.give_back(&[claim("unknown", 10)]).await;
    assert_eq!(allowed(&one, claim("unknown", 10), 2).await, 1);
    one.restore(&[claim("unknown", 10)]).await;
    assert_eq!(allowed(&one, claim("unknown", 10), 100).await, 10);
    assert_eq!(allowed(&other, claim("known", 10), 100).await, 10, "once per process");

    tokio::time::sleep(HALT).await;
    assert_eq!(allowed(&other, claim("after that", 10), 100).await, 10);
    server.resume().await;
    are_together(&one, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_empty_is_used_again() {
    let mut server = Server::start(&[]).await;
    let [one, other] = World::new(server.keyspace()).replicas;
    assert_eq!(allowed(&one, claim("a", 3), 2).await, 2);
    server.kill().await;
    assert_eq!(allowed(&one, claim("a", 3), 10).await, 1);
    assert_eq!(allowed(&other, claim("a", 3), 10).await, 3);
    server.restart().await;
    are_together(&one, &other).await;
    assert_eq!(allowed(&one, claim("b", 3), 2).await + allowed(&other, claim("b", 3), 2).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_from_the_start_is_used_when_it_is_there() {
    let mut server = Server::start(&[]).await;
    server.kill().await;
    let [one, other] = World::new(server.keyspace()).replicas;
    assert_eq!(allowed(&one, claim("a", 3), 10).await, 3);
    server.restart().await;
    assert_eq!(allowed(&other, claim("a", 3), 10).await, 3);
    are_together(&one, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_counts_as_away_until_it_has_room() {
    let server = Server::start(&[]).await;
    let [one, other] = World::new(server.keyspace()).replicas;
    assert_eq!(allowed(&one, claim("a", 3), 2).await, 2);
    server.fill().await;
    assert_eq!(allowed(&one, claim("a", 3), 10).await, 1);
    assert_eq!(allowed(&one, claim("b", 3), 10).await, 3);
    server.make_room().await;
    are_together(&one, &other).await;
}
