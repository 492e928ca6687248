//! Keeps the key ring fresh: loads keys, makes the next one in time, and deletes spent ones.

use std::{sync::Arc, time::Duration};

use chassis::{BoxError, Gate};
use events::Lease;
use ids::Source;
use store::Db;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    seal::Seal,
    signing_key::{Error, KeyRing, Private, Schedule, SigningKey},
    store::signing_key::{self, Sealed},
};

/// How long a replica may take to make a key.
pub const LEASE: Duration = Duration::from_secs(30);
/// The wait while there is no key at all: another replica makes the first one.
const FIRST_KEY_INTERVAL: Duration = Duration::from_millis(50);

/// A key that is being made in advance.
pub type Spare = JoinHandle<Result<Private, Error>>;

/// The rotation of signing keys.
pub struct Rotation {
    pub db: Db,
    pub source: Source,
    pub seal: Seal,
    pub schedule: Schedule,
    pub lease: Lease,
    pub ring: Arc<KeyRing>,
    /// How often keys are looked at. It bounds how late a replica learns of a new key, so it is far below the publishing time.
    pub check_every: Duration,
}

impl Rotation {
    /// Looks at the keys again and again until `drain`; `gate` opens with the first one. `spare` is the first key, if it is being made already.
    pub async fn run(self, mut spare: Option<Spare>, gate: Gate, drain: CancellationToken) {
        loop {
            match self.turn(&mut spare).await {
                Ok(()) if !self.ring.ids().is_empty() => gate.ready(),
                Ok(()) => {}
                Err(error) => tracing::warn!(error, "Signing keys could not be looked at: those at hand stay in use"),
            }
            let wait = if self.ring.ids().is_empty() { FIRST_KEY_INTERVAL } else { self.check_every };
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn turn(&self, spare: &mut Option<Spare>) -> Result<(), BoxError> {
        let mut keys = self.load().await?;
        if self.is_work_due(&keys) && self.lease.acquire().await? {
            self.rotate(&keys, spare).await?;
            self.lease.release().await?;
            keys = self.load().await?;
        }
        let (ids, held) = (keys.iter().map(|key| key.id), self.ring.ids());
        if !ids.eq(held) {
            self.ring.replace(keys.iter().map(|key| self.open(key)).collect::<Result<_, _>>()?)?;
        }
        Ok(())
    }

    async fn load(&self) -> store::Result<Vec<Sealed>> {
        signing_key::list(&mut self.db.read().await?).await
    }

    fn is_work_due(&self, keys: &[Sealed]) -> bool {
        let newest = keys.last().map(|key| key.sign_time);
        self.schedule.due(newest, self.source.now()).is_some() || self.spent(keys).next().is_some()
    }

    /// Keys whose successor has signed for long enough.
    fn spent<'a>(&self, keys: &'a [Sealed]) -> impl Iterator<Item = &'a Sealed> {
        let (schedule, now) = (self.schedule, self.source.now());
        keys.windows(2).filter(move |pair| schedule.is_spent(pair[1].sign_time, now)).map(|pair| &pair[0])
    }

    /// Under the lease. A key is made before the transaction, which looks once more whether it is due: a holder that was halted and
    /// goes on after its lease has ended makes no second one.
    async fn rotate(&self, keys: &[Sealed], spare: &mut Option<Spare>) -> Result<(), BoxError> {
        let due = |newest| self.schedule.due(newest, self.source.now());
        let private = match due(keys.last().map(|key| key.sign_time)) {
            Some(_) => Some(spare.take().unwrap_or_else(|| tokio::task::spawn_blocking(Private::generate)).await??),
            None => None,
        };
        let mut tx = self.db.begin().await?;
        for key in self.spent(keys) {
            signing_key::delete(&mut tx, key.id).await?;
            tracing::info!(key.id = %key.id, "A signing key is spent and was deleted");
        }
        if let (Some(private), Some(sign_time)) = (private, due(signing_key::newest(&mut tx).await?)) {
            let id = self.source.id();
            let private = self.seal.seal(binding(id).as_bytes(), private.pkcs8(), &self.source);
            signing_key::insert(&mut tx, &Sealed { id, private, sign_time }, self.source.now()).await?;
            tracing::info!(key.id = %id, key.signs_from = %sign_time, "A signing key was made");
        }
        Ok(tx.commit().await?)
    }

    fn open(&self, key: &Sealed) -> Result<SigningKey, BoxError> {
        let private = Private::stored(self.seal.open(binding(key.id).as_bytes(), &key.private)?);
        Ok(SigningKey::load(key.id, &private, key.sign_time)?)
    }
}

/// What a sealed key is bound to, so that a row cannot take another's place.
fn binding(id: ids::SigningKeyId) -> String {
    format!("signing key {id}")
}
