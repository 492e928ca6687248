//! Buckets in Redis, which all replicas take from.

use std::{
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use keyspace::{
    Error, Keyspace,
    redis::{Script, cmd},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{Claim, InProcess, Key, Level, Limits, Refused, UNLIMITED, stricter};

/// What Redis may add to a call before the call goes on without it.
const PATIENCE: Duration = Duration::from_millis(50);
/// For how long each call tries anew while none is answered in time. Less is a busy machine, not a Redis that is away.
const SILENCE: Duration = Duration::from_secs(1);
/// How often Redis is asked whether it is back.
const PAUSE: Duration = Duration::from_secs(1);

static BUCKET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("bucket.lua")));

/// Buckets in Redis. While it is away, full or slow, calls are counted in this process, which has kept count of what it let through
/// before: a client gets the limit once per process then, and never more.
///
/// Each key has a slot of its own, so that a cluster spreads them; and so several claims are taken one after the other, in their
/// order, and given back if a later one is refused. Meanwhile others see one call less in a bucket than there is, never one more.
pub struct OnRedis {
    shared: Arc<Shared>,
    patience: Duration,
}

struct Shared {
    keyspace: Keyspace,
    secret: hmac::Key,
    here: InProcess,
    away: AtomicBool,
    /// Since when no call was answered in time.
    silent_since: Mutex<Option<Instant>>,
}

impl OnRedis {
    /// Buckets in `keyspace`, and in `here` while it is away. `secret` is the same for all replicas: with it the names of the
    /// buckets are hashed once more, since whoever reads them in Redis could try all IPv4 addresses against a plain hash.
    pub fn new(keyspace: Keyspace, secret: &[u8; 32], here: InProcess) -> Self {
        metrics::gauge!("guildhall_limit_shared").set(1);
        metrics::counter!("guildhall_limit_unshared_total").increment(0);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let shared = Shared { keyspace, secret, here, away: AtomicBool::new(false), silent_since: Mutex::new(None) };
        Self { shared: Arc::new(shared), patience: PATIENCE }
    }

    /// Waits so long for Redis: 50 ms unless this is called. Tests do, whose machine may be busy.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What Redis answers; nothing while it is away, or when it takes too long. What it does later all the same is to take a call
    /// that nobody made: stricter, and gone within an interval.
    async fn ask<T>(&self, work: impl Future<Output = keyspace::Result<T>>) -> Option<T> {
        if self.shared.away.load(Ordering::Relaxed) {
            return None;
        }
        match timeout(self.patience, work).await.unwrap_or(Err(Error::Timeout)) {
            Ok(answer) => {
                *self.shared.silent_since() = None;
                return Some(answer);
            }
            Err(Error::Timeout) if self.shared.is_only_slow() => {}
            Err(error) => self.shared.leave(&error),
        }
        None
    }
}

#[async_trait]
impl Limits for OnRedis {
    async fn take(&self, claims: &[Claim]) -> Result<Level, Refused> {
        match self.ask(self.shared.take(claims)).await {
            Some(Ok(level)) => {
                let _ = self.shared.here.take(claims).await;
                Ok(level)
            }
            Some(refused) => refused,
            None => {
                metrics::counter!("guildhall_limit_unshared_total").increment(1);
                self.shared.here.take(claims).await
            }
        }
    }

    async fn give_back(&self, claims: &[Claim]) {
        self.shared.here.give_back(claims).await;
        self.ask(self.shared.give_back(claims)).await;
    }

    async fn restore(&self, claims: &[Claim]) {
        self.shared.here.restore(claims).await;
        self.ask(self.shared.restore(claims)).await;
    }
}

impl Shared {
    async fn take(&self, claims: &[Claim]) -> keyspace::Result<Result<Level, Refused>> {
        let mut answer = UNLIMITED;
        for (at, claim) in claims.iter().enumerate() {
            // After a refusal the others are only looked at: the longest wait is the one to tell.
            let next = self.step(claim, i64::from(answer.is_ok())).await?;
            if answer.is_ok() && next.is_err() {
                self.give_back(&claims[..at]).await?;
            }
            answer = stricter(answer, next);
        }
        Ok(answer)
    }

    async fn give_back(&self, claims: &[Claim]) -> keyspace::Result<()> {
        for claim in claims {
            let _ = self.step(claim, -1).await?;
        }
        Ok(())
    }

    async fn restore(&self, claims: &[Claim]) -> keyspace::Result<()> {
        for claim in claims {
            self.keyspace.run::<()>(cmd("DEL").arg(self.name(&claim.key))).await?;
        }
        Ok(())
    }

    async fn step(&self, claim: &Claim, calls: i64) -> keyspace::Result<Result<Level, Refused>> {
        let rate = claim.rate;
        let mut script = BUCKET.key(self.name(&claim.key));
        let (missing, wait) = self.keyspace.script(script.arg(rate.interval).arg(rate.depth()).arg(calls)).await?;
        Ok(rate.judge(missing, wait))
    }

    fn name(&self, key: &Key) -> String {
        let hash = hmac::sign(&self.secret, &key.0);
        let half = hash.as_ref()[..16].try_into().expect("SHA-256 gives 32 bytes");
        self.keyspace.key(&format!("limit/{:032x}", u128::from_be_bytes(half)), "full-at")
    }

    fn silent_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody was answered in time a moment ago.
    fn is_only_slow(&self) -> bool {
        self.silent_since().get_or_insert_with(Instant::now).elapsed() < SILENCE
    }

    /// Goes on without Redis until it takes writes again.
    fn leave(self: &Arc<Self>, error: &Error) {
        if self.away.swap(true, Ordering::Relaxed) {
            return;
        }
        metrics::gauge!("guildhall_limit_shared").set(0);
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "Each process counts calls against the limits by itself, since Redis is away");
        tokio::spawn(come_back(Arc::downgrade(self)));
    }
}

async fn come_back(limits: Weak<Shared>) {
    loop {
        sleep(PAUSE).await;
        let Some(limits) = limits.upgrade() else { return };
        // A full Redis answers, but has no room.
        let write = cmd("SET").arg(limits.keyspace.key("limit", "probe")).arg("").arg("PX").arg(1).to_owned();
        if limits.keyspace.run::<()>(&write).await.is_ok() {
            *limits.silent_since() = None;
            limits.away.store(false, Ordering::Relaxed);
            tracing::info!("Redis is back: all processes count calls against the limits together");
            metrics::gauge!("guildhall_limit_shared").set(1);
            return;
        }
    }
}
