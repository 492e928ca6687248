//! Buckets in memory.

use std::{sync::Arc, time::Duration};

use ids::{Clock, ManualClock, Source, SystemRandom, Timestamp};
use limit::{Claim, InProcess, Key, Limits, Rate, conformance};

struct World {
    limits: Arc<InProcess>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        let source = Source::new(Arc::clone(&clock) as _, Arc::new(SystemRandom));
        Self { limits: Arc::new(InProcess::new(capacity, source)), clock }
    }
}

impl conformance::World for World {
    fn replicas(&self) -> [Arc<dyn Limits>; 2] {
        [Arc::clone(&self.limits) as _, Arc::clone(&self.limits) as _]
    }

    async fn shift(&self, seconds: i64) {
        self.clock.set(Timestamp::from_micros(self.clock.now().micros() + seconds * 1_000_000));
    }
}

limit::conformance!(async || World::new(1000));

fn once(subject: usize) -> Claim {
    Claim { key: Key::new("test", &subject.to_string()), rate: Rate::new(1, Duration::from_hours(1)) }
}

#[tokio::test]
async fn the_buckets_that_were_asked_for_last_are_remembered() {
    let limits = World::new(100).limits;
    for subject in 0..1000 {
        limits.take(&[once(subject)]).await.expect("full");
        for recent in subject.saturating_sub(49)..=subject {
            limits.take(&[once(recent)]).await.expect_err("empty, and remembered");
        }
    }
}

#[tokio::test]
async fn a_flood_of_others_does_not_fill_a_bucket_that_is_asked_for_again_and_again() {
    let limits = World::new(100).limits;
    limits.take(&[once(0)]).await.expect("full");
    for other in 1..1000 {
        limits.take(&[once(other)]).await.expect("full");
        limits.take(&[once(0)]).await.expect_err("empty, and remembered");
    }
}
