//! What this service tells others, and what it hears.
//!
//! Emitted, each in the transaction of its change and under the account's lock, keyed by the user's id, with the account's version:
//! `auth.user.registered`, `auth.user.updated`, `auth.user.suspended`, `auth.user.reinstated`, `auth.token.revoked`.
//!
//! Consumed: `auth.token.revoked`, as every service does with its verifier, for what other replicas revoke.

use contracts::{Event, auth::v1};
use events::Outbox;
use ids::{SessionId, Timestamp};
use mesh::token::Verifier;
use status::Problem;
use store::Tx;

use crate::account::Account;

/// Tells others what happened to accounts.
pub struct Announcer {
    outbox: Outbox,
    verifier: Verifier,
}

impl Announcer {
    pub fn new(outbox: Outbox, verifier: Verifier) -> Self {
        Self { outbox, verifier }
    }

    pub async fn registered(&self, tx: &mut Tx, account: &Account) -> Result<(), Problem> {
        self.append(tx, account, &v1::UserRegistered { user_id: account.id.to_string() }).await
    }

    /// A public profile has changed.
    pub async fn updated(&self, tx: &mut Tx, account: &Account) -> Result<(), Problem> {
        self.append(tx, account, &v1::UserUpdated { user_id: account.id.to_string() }).await
    }

    pub async fn suspended(&self, tx: &mut Tx, account: &Account) -> Result<(), Problem> {
        self.append(tx, account, &v1::UserSuspended { user_id: account.id.to_string() }).await
    }

    pub async fn reinstated(&self, tx: &mut Tx, account: &Account) -> Result<(), Problem> {
        self.append(tx, account, &v1::UserReinstated { user_id: account.id.to_string() }).await
    }

    /// Access tokens issued until `at` are no longer good: those of `session`, or all of the account's. Here they are refused from
    /// the commit on, elsewhere once the event arrives.
    pub async fn revoked(
        &self,
        tx: &mut Tx,
        account: &Account,
        session: Option<SessionId>,
        at: Timestamp,
    ) -> Result<(), Problem> {
        let session_id = session.map(|id| id.to_string()).unwrap_or_default();
        let event = v1::TokenRevoked { user_id: account.id.to_string(), session_id, revoke_time: Some(at.into()) };
        self.append(tx, account, &event).await?;
        let (verifier, user) = (self.verifier.clone(), account.id);
        tx.after_commit(move || verifier.revocations().revoke(user, session, at));
        Ok(())
    }

    async fn append<E: Event>(&self, tx: &mut Tx, account: &Account, event: &E) -> Result<(), Problem> {
        self.outbox.append(tx, account.version, event).await?;
        Ok(())
    }
}
