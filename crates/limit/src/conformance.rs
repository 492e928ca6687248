//! What every place for buckets has to do, as a suite that runs against the [`Limits`] interface.
//!
//! A new place is held against it by one line in a test of its own:
//!
//! ```text
//! limit::conformance!(async || -> impl World { … });
//! ```
//!
//! A place may have a clock of its own, and that one goes on while the suite runs. So buckets take hours to fill here, and what the
//! clock does in the meantime is at most [`SLACK`].

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{Claim, Key, Level, Limits, Rate, Refused};

/// A place for buckets, and a hand on its clock.
pub trait World: Send + Sync + 'static {
    /// Two of the replicas that share the place; the same twice where it is for one process.
    fn replicas(&self) -> [Arc<dyn Limits>; 2];
    /// Moves the place's clock by so many seconds, back if they are less than none.
    fn shift(&self, seconds: i64) -> impl Future<Output = ()> + Send;
}

/// Writes a test for each case of the suite over the world that the closure makes.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::conformance!($make;
            a_burst_is_let_through_and_then_none,
            a_bucket_fills_at_its_rate_up_to_its_burst,
            a_call_after_the_told_wait_is_let_through,
            refused_calls_cost_nothing,
            what_is_given_back_can_be_taken_again_and_no_more,
            a_restored_bucket_is_full,
            buckets_do_not_touch_each_other,
            where_one_bucket_has_no_room_nothing_is_taken_from_the_others,
            the_strictest_of_several_buckets_is_told,
            a_clock_set_back_does_not_shut_a_bucket_for_longer_than_it_takes_to_fill,
            a_higher_tier_gets_its_own_burst_from_the_same_bucket,
            concurrent_calls_of_replicas_get_exactly_the_burst,
            concurrent_claims_on_several_buckets_get_exactly_the_smallest_burst
        );

        #[test]
        fn every_history_is_that_of_a_plain_model() {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let history = $crate::conformance::history();
            let outcome = $crate::conformance::runner().run(&history, |steps| {
                runtime.block_on(async { $crate::conformance::follows_the_model(&$make().await, steps).await })
            });
            assert!(outcome.is_ok(), "{}", outcome.expect_err("just seen"));
        }
    };
    ($make:expr; $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$case(&$make().await).await;
            }
        )+
    };
}

const HOUR: i64 = 3600;
/// Longer than a test takes.
const SLACK: Duration = Duration::from_mins(10);

fn claim(key: &str, burst: u32) -> Claim {
    Claim { key: Key::new("test", key), rate: Rate::new(burst, Duration::from_hours(1)) }
}

/// Whether the time is this one, less what has gone by since.
fn about(time: Duration, hours: u64) -> bool {
    let expected = Duration::from_hours(hours);
    (expected.saturating_sub(SLACK)..=expected).contains(&time)
}

async fn allowed(world: &impl World, claims: &[Claim]) -> Level {
    let [limits, _] = world.replicas();
    limits.take(claims).await.expect("there is room")
}

async fn refused(world: &impl World, claims: &[Claim]) -> Refused {
    let [limits, _] = world.replicas();
    limits.take(claims).await.expect_err("there is no room")
}

/// Takes this many calls.
async fn drain(world: &impl World, claim: Claim, calls: u32) {
    for _ in 0..calls {
        allowed(world, &[claim]).await;
    }
}

pub async fn a_burst_is_let_through_and_then_none(world: &impl World) {
    let bucket = claim("burst", 4);
    for left in (0..4).rev() {
        let level = allowed(world, &[bucket]).await;
        assert_eq!(level.remaining, left);
        assert!(about(level.full_after, 4 - u64::from(left)), "{level:?}");
    }
    let Refused { level, retry_after } = refused(world, &[bucket]).await;
    assert_eq!(level.remaining, 0);
    assert!(about(level.full_after, 4) && about(retry_after, 1), "{level:?} {retry_after:?}");
}

pub async fn a_bucket_fills_at_its_rate_up_to_its_burst(world: &impl World) {
    let bucket = claim("fill", 4);
    drain(world, bucket, 4).await;
    world.shift(2 * HOUR).await;
    assert_eq!(allowed(world, &[bucket]).await.remaining, 1, "two flowed in, one was taken");
    world.shift(1000 * HOUR).await;
    assert_eq!(allowed(world, &[bucket]).await.remaining, 3, "never more than the burst");
}

pub async fn a_call_after_the_told_wait_is_let_through(world: &impl World) {
    let bucket = claim("wait", 4);
    drain(world, bucket, 4).await;
    let wait = i64::try_from(refused(world, &[bucket]).await.retry_after.as_secs()).expect("an hour");
    let slack = i64::try_from(SLACK.as_secs()).expect("minutes");
    world.shift(wait - slack).await;
    refused(world, &[bucket]).await;
    world.shift(slack + 1).await;
    allowed(world, &[bucket]).await;
    refused(world, &[bucket]).await;
}

pub async fn refused_calls_cost_nothing(world: &impl World) {
    let bucket = claim("refused", 2);
    drain(world, bucket, 2).await;
    for _ in 0..50 {
        refused(world, &[bucket]).await;
    }
    world.shift(HOUR).await;
    allowed(world, &[bucket]).await;
}

pub async fn what_is_given_back_can_be_taken_again_and_no_more(world: &impl World) {
    let bucket = claim("given back", 3);
    let [limits, other] = world.replicas();
    for _ in 0..10 {
        allowed(world, &[bucket]).await;
        limits.give_back(&[bucket]).await;
    }
    drain(world, bucket, 3).await;
    refused(world, &[bucket]).await;
    other.give_back(&[bucket]).await;
    drain(world, bucket, 1).await;
    refused(world, &[bucket]).await;
    for _ in 0..10 {
        limits.give_back(&[bucket]).await;
    }
    drain(world, bucket, 3).await;
    refused(world, &[bucket]).await;
}

pub async fn a_restored_bucket_is_full(world: &impl World) {
    let (bucket, untouched) = (claim("restored", 3), claim("not restored", 1));
    drain(world, bucket, 3).await;
    drain(world, untouched, 1).await;
    let [limits, _] = world.replicas();
    limits.restore(&[bucket, claim("never seen", 3)]).await;
    drain(world, bucket, 3).await;
    refused(world, &[bucket]).await;
    refused(world, &[untouched]).await;
}

pub async fn buckets_do_not_touch_each_other(world: &impl World) {
    drain(world, claim("one", 4), 4).await;
    assert_eq!(allowed(world, &[claim("other", 4)]).await.remaining, 3);
}

pub async fn where_one_bucket_has_no_room_nothing_is_taken_from_the_others(world: &impl World) {
    let (before, narrow, after) = (claim("before", 3), claim("narrow", 1), claim("after", 3));
    let together = [before, narrow, after];
    allowed(world, &together).await;
    for _ in 0..10 {
        refused(world, &together).await;
    }
    for bucket in [before, after] {
        assert_eq!(allowed(world, &[bucket]).await.remaining, 1);
    }
}

pub async fn the_strictest_of_several_buckets_is_told(world: &impl World) {
    let (wide, narrow) = (claim("wide", 5), claim("narrower", 2));
    let slow = Claim { key: Key::new("test", "slow"), rate: Rate::new(1, Duration::from_hours(7)) };
    assert_eq!(allowed(world, &[wide, narrow]).await.remaining, 1);
    drain(world, slow, 1).await;
    drain(world, narrow, 1).await;
    for claims in [[narrow, slow], [slow, narrow]] {
        let answer = refused(world, &claims).await;
        assert!(about(answer.retry_after, 7), "{answer:?}");
    }
}

pub async fn a_clock_set_back_does_not_shut_a_bucket_for_longer_than_it_takes_to_fill(world: &impl World) {
    let bucket = claim("back", 4);
    drain(world, bucket, 4).await;
    world.shift(-24 * HOUR).await;
    let answer = refused(world, &[bucket]).await;
    assert!(about(answer.retry_after, 1) && about(answer.level.full_after, 4), "{answer:?}");
}

pub async fn a_higher_tier_gets_its_own_burst_from_the_same_bucket(world: &impl World) {
    let (free, premium) = (claim("tiers", 2), claim("tiers", 6));
    drain(world, free, 2).await;
    refused(world, &[free]).await;
    assert_eq!(allowed(world, &[premium]).await.remaining, 3);
    refused(world, &[free]).await;
}

pub async fn concurrent_calls_of_replicas_get_exactly_the_burst(world: &impl World) {
    assert_eq!(crowd(world, &[claim("crowd", 7)]).await, 7);
}

pub async fn concurrent_claims_on_several_buckets_get_exactly_the_smallest_burst(world: &impl World) {
    let (small, large) = (claim("small", 5), claim("large", 100));
    assert_eq!(crowd(world, &[small, large]).await, 5);
    assert_eq!(allowed(world, &[large]).await.remaining, 94, "what was refused has been given back");
}

/// How many of 64 calls that come at once are let through.
async fn crowd(world: &impl World, claims: &[Claim]) -> usize {
    let calls: Vec<_> = (0..64)
        .map(|number| {
            let limits = Arc::clone(&world.replicas()[number % 2]);
            let claims = claims.to_vec();
            tokio::spawn(async move { limits.take(&claims).await.is_ok() })
        })
        .collect();
    let mut allowed = 0;
    for call in calls {
        allowed += usize::from(call.await.expect("no panic"));
    }
    allowed
}

/// One step of a history, on some of [`BUCKETS`].
#[derive(Clone, Debug)]
pub enum Step {
    Take { by: usize, buckets: Vec<usize> },
    GiveBack { by: usize, buckets: Vec<usize> },
    Restore { buckets: Vec<usize> },
    Pass { hours: i64 },
}

/// Burst, and hours for one call to flow in.
const BUCKETS: [(i64, i64); 4] = [(1, 1), (2, 3), (5, 1), (3, 24)];

/// Fewer than usual: a case may make hundreds of calls to another process.
pub fn runner() -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

pub fn history() -> impl Strategy<Value = Vec<Step>> {
    let some = || subsequence((0..BUCKETS.len()).collect::<Vec<_>>(), 1..=BUCKETS.len()).prop_shuffle();
    let step = prop_oneof![
        6 => (0..2_usize, some()).prop_map(|(by, buckets)| Step::Take { by, buckets }),
        1 => (0..2_usize, some()).prop_map(|(by, buckets)| Step::GiveBack { by, buckets }),
        1 => some().prop_map(|buckets| Step::Restore { buckets }),
        3 => (0..30_i64).prop_map(|hours| Step::Pass { hours }),
    ];
    vec(step, 1..60)
}

/// Against the definition: a level of water that rises steadily, is capped, and of which a call takes a fixed part. All amounts are
/// whole hours, so that what the place's clock does on the way decides nothing.
pub async fn follows_the_model(world: &impl World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let claims = |buckets: &[usize]| -> Vec<Claim> {
        let claim = |&at: &usize| {
            let (burst, hours) = BUCKETS[at];
            let interval = Duration::from_hours(hours.unsigned_abs());
            Claim {
                key: Key::new("model", &at.to_string()),
                rate: Rate::new(u32::try_from(burst).expect("small"), interval),
            }
        };
        buckets.iter().map(claim).collect()
    };
    let mut levels = BUCKETS.map(|(burst, hours)| burst * hours);
    for step in steps {
        match step {
            Step::Take { by, buckets } => {
                let answer = world.replicas()[by].take(&claims(&buckets)).await;
                let wait = buckets.iter().map(|&at| BUCKETS[at].1 - levels[at]).max().expect("at least one");
                if wait > 0 {
                    let refused = answer.expect_err("there is no room");
                    prop_assert!(about(refused.retry_after, wait.unsigned_abs()), "{refused:?}, not {wait} h");
                    continue;
                }
                for &at in &buckets {
                    levels[at] -= BUCKETS[at].1;
                }
                let left = buckets.iter().map(|&at| levels[at] / BUCKETS[at].1).min().expect("at least one");
                prop_assert_eq!(i64::from(answer.expect("there is room").remaining), left);
            }
            Step::GiveBack { by, buckets } => {
                world.replicas()[by].give_back(&claims(&buckets)).await;
                for at in buckets {
                    let (burst, hours) = BUCKETS[at];
                    levels[at] = (levels[at] + hours).min(burst * hours);
                }
            }
            Step::Restore { buckets } => {
                world.replicas()[0].restore(&claims(&buckets)).await;
                for at in buckets {
                    levels[at] = BUCKETS[at].0 * BUCKETS[at].1;
                }
            }
            Step::Pass { hours } => {
                world.shift(hours * HOUR).await;
                for (level, (burst, every)) in levels.iter_mut().zip(BUCKETS) {
                    *level = (*level + hours).min(burst * every);
                }
            }
        }
    }
    Ok(())
}
