//! What every place that keeps buckets must hold to.

use std::{sync::Arc, time::Duration};

use ids::Timestamp;

use super::{Buckets, Level, Rate};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const RATE: Rate = Rate { per_second: 2.0, burst: 4 };

pub(crate) async fn suite<B: Buckets + 'static>(make: impl Fn() -> B) {
    lets_a_burst_through_and_then_refuses(&make()).await;
    fills_at_its_rate_up_to_its_burst(&make()).await;
    a_call_after_the_told_wait_is_let_through(&make()).await;
    refused_calls_cost_nothing(&make()).await;
    keys_do_not_touch_each_other(&make()).await;
    a_clock_set_back_does_not_shut_a_bucket_for_longer_than_it_takes_to_fill(&make()).await;
    concurrent_calls_get_exactly_the_burst(make()).await;
}

async fn take(buckets: &impl Buckets, key: &str, now: Timestamp) -> Level {
    buckets.take(key, RATE, now).await.expect("the buckets can be reached")
}

async fn lets_a_burst_through_and_then_refuses(buckets: &impl Buckets) {
    for left in (0..4).rev() {
        let level = take(buckets, "burst", START).await;
        assert!(level.allowed);
        assert_eq!(level.remaining, left);
        assert_eq!(level.retry_after, Duration::ZERO);
    }
    let level = take(buckets, "burst", START).await;
    assert!(!level.allowed);
    assert_eq!(
        (level.remaining, level.full_after, level.retry_after),
        (0, Duration::from_secs(2), Duration::from_millis(500))
    );
}

async fn fills_at_its_rate_up_to_its_burst(buckets: &impl Buckets) {
    for _ in 0..4 {
        take(buckets, "fill", START).await;
    }
    assert_eq!(
        take(buckets, "fill", START + Duration::from_secs(1)).await.remaining,
        1,
        "two flowed in, one was taken"
    );
    assert_eq!(take(buckets, "fill", START + Duration::from_hours(1)).await.remaining, 3, "never more than the burst");
}

async fn a_call_after_the_told_wait_is_let_through(buckets: &impl Buckets) {
    for _ in 0..4 {
        take(buckets, "wait", START).await;
    }
    let wait = take(buckets, "wait", START).await.retry_after;
    assert!(!take(buckets, "wait", START + wait.saturating_sub(Duration::from_micros(1))).await.allowed);
    assert!(take(buckets, "wait", START + wait).await.allowed);
}

async fn refused_calls_cost_nothing(buckets: &impl Buckets) {
    for _ in 0..100 {
        take(buckets, "refused", START).await;
    }
    assert!(take(buckets, "refused", START + Duration::from_millis(500)).await.allowed);
}

async fn keys_do_not_touch_each_other(buckets: &impl Buckets) {
    for _ in 0..5 {
        take(buckets, "one", START).await;
    }
    assert_eq!(take(buckets, "other", START).await.remaining, 3);
}

async fn a_clock_set_back_does_not_shut_a_bucket_for_longer_than_it_takes_to_fill(buckets: &impl Buckets) {
    take(buckets, "back", START + Duration::from_hours(24)).await;
    assert!(take(buckets, "back", START).await.retry_after <= Duration::from_millis(500));
    assert!(take(buckets, "back", START + Duration::from_millis(500)).await.allowed);
}

async fn concurrent_calls_get_exactly_the_burst(buckets: impl Buckets + 'static) {
    let buckets = Arc::new(buckets);
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let buckets = Arc::clone(&buckets);
            tokio::spawn(async move { take(buckets.as_ref(), "crowd", START).await.allowed })
        })
        .collect();
    let mut allowed = 0;
    for call in calls {
        allowed += u32::from(call.await.expect("no panic"));
    }
    assert_eq!(allowed, RATE.burst);
}
