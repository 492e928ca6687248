use std::time::Duration;

use contracts::Event;
use contracts::auth::v1::TokenRevoked;
use events::{Delivery, Envelope, Failure, Handler, Subscription};
use ids::Timestamp;
use mesh::token::Verifier;

/// How far back a process looks when it starts: longer than any access token lives.
const REPLAY: Duration = Duration::from_mins(15);

/// Every process that verifies tokens hears of revoked ones.
pub(crate) const SUBSCRIPTION: Subscription = Subscription {
    consumer: "chassis.revocations",
    topics: &[TokenRevoked::TOPIC],
    delivery: Delivery::Broadcast { replay: REPLAY },
};

/// Hands revocations to the verifier.
pub(crate) struct Revoker(pub(crate) Verifier);

#[tonic::async_trait]
impl Handler for Revoker {
    async fn handle(&self, event: &Envelope) -> Result<(), Failure> {
        let revoked: TokenRevoked = event.decode()?;
        let rejected = |what: &str| Failure::Reject(format!("auth.token.revoked without a valid {what}"));
        let user = revoked.user_id.parse().map_err(|_| rejected("user_id"))?;
        let session = match revoked.session_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| rejected("session_id"))?),
        };
        let at = revoked.revoke_time.and_then(|time| Timestamp::try_from(time).ok());
        self.0.revocations().revoke(user, session, at.ok_or_else(|| rejected("revoke_time"))?);
        Ok(())
    }
}
