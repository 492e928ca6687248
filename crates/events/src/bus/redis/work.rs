//! A work consumer in one process: which streams it is to own, and how it handles an event.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use keyspace::redis::{Script, cmd};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{LANES, Shared, millis, owner};
use crate::DeadLetters;
use crate::bus::Handler;

/// Beats within a lease: so much faster than by its end do others hear of a process that has left, or come.
const BEATS: u32 = 10;

/// Says that a member is alive, by Redis' own clock. Returns all that are, and after how many milliseconds the first of them is not
/// unless it says so again. One that is said to live for longer than that comes from before the clock went back.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now + ARGV[2], '+inf')
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
        return {redis.call('ZRANGE', KEYS[1], 0, -1), first[2] - now}",
    )
});

/// A work consumer.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) consumer: &'static str,
    pub(super) topics: &'static [&'static str],
    pub(super) handler: Arc<dyn Handler>,
    pub(super) dead_letters: DeadLetters,
    /// Shared by all of its streams.
    pub(super) lanes: Semaphore,
    member: String,
    members: String,
}

/// The task that owns a stream, or tries to.
struct Owner {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Work {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: &'static str,
        topics: &'static [&'static str],
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Self {
        let member = Uuid::from_bytes(shared.source.bytes()).simple().to_string();
        let members = shared.keyspace.key(&format!("events/{consumer}"), "members");
        let lanes = Semaphore::new(LANES as usize);
        Self { shared, consumer, topics, handler, dead_letters, lanes, member, members }
    }

    /// Owns its share of the streams with these tags until `stop`.
    pub(super) async fn run(self: Arc<Self>, tags: Vec<String>, stop: CancellationToken) {
        let mut owners: Vec<Option<Owner>> = tags.iter().map(|_| None).collect();
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = self.shared.settings.lease / BEATS;
            // Without an answer everything stays as it is: leases say who owns what, this only who is to.
            match self.beat().await {
                Ok((members, first_ends)) => {
                    self.divide(&tags, &members, &mut owners);
                    pause = pause.min(first_ends);
                }
                Err(error) => {
                    tracing::debug!(consumer = self.consumer, error = %error, "Cannot ask Redis for other replicas; trying again");
                }
            }
        }
        self.leave().await;
        let owners: Vec<_> = owners.into_iter().flatten().collect();
        for owner in &owners {
            owner.stop.cancel();
        }
        for owner in owners {
            // An error is a panic, of which the runtime has told.
            let _panicked = owner.task.await;
        }
    }

    /// Gives every member each n-th stream; each comes to the same result by itself.
    fn divide(self: &Arc<Self>, tags: &[String], members: &[String], owners: &mut [Option<Owner>]) {
        let place = members.iter().position(|member| *member == self.member);
        for (number, (tag, owner)) in tags.iter().zip(owners).enumerate() {
            let mine = place == Some(number % members.len().max(1));
            if owner.as_ref().is_some_and(|owner| owner.task.is_finished()) {
                *owner = None;
            }
            match owner {
                Some(owner) if !mine => owner.stop.cancel(),
                None if mine => {
                    let stop = CancellationToken::new();
                    let task = tokio::spawn(owner::own(Arc::clone(self), tag.clone(), stop.clone()));
                    *owner = Some(Owner { stop, task });
                }
                // One that was to go and is still at it comes again once it has gone.
                _ => {}
            }
        }
    }

    async fn beat(&self) -> keyspace::Result<(Vec<String>, Duration)> {
        let mut beat = BEAT.key(&self.members);
        beat.arg(&self.member).arg(millis(self.shared.settings.lease));
        let (mut members, first_ends): (Vec<String>, u64) = self.shared.keyspace.script(&beat).await?;
        members.sort_unstable();
        Ok((members, Duration::from_millis(first_ends)))
    }

    /// Others take over at their next beat.
    async fn leave(&self) {
        let left = self.shared.keyspace.run::<()>(cmd("ZREM").arg(&self.members).arg(&self.member)).await;
        if let Err(error) = left {
            tracing::debug!(consumer = self.consumer, error = %error, "Could not say good-bye to other replicas; they wait for the lease's end");
        }
    }
}
