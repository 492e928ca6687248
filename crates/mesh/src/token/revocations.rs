use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use ids::{SessionId, Source, Timestamp, UserId};

/// How long an entry is needed: longer than any access token lives.
const KEPT: Duration = Duration::from_hours(1);
/// How many entries are kept at most.
const CAPACITY: usize = 100_000;

type Key = (UserId, Option<SessionId>);

/// Logins and people whose tokens no longer count, though they have not expired.
///
/// Bounded: an entry is forgotten when no token of its time can still be valid. Should there be more than 100,000, the
/// oldest goes, and every token as old as it is refused, whoever's it is: a lost revocation must not bring a token back,
/// and whoever is refused by that gets a new token with the refresh token.
pub struct Revocations {
    source: Source,
    capacity: usize,
    entries: RwLock<Entries>,
}

#[derive(Default)]
struct Entries {
    at: HashMap<Key, Timestamp>,
    /// The same entries, oldest first.
    by_age: BTreeSet<(Timestamp, Key)>,
    /// Tokens issued up to here are refused without looking.
    floor: Option<Timestamp>,
}

impl Revocations {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, capacity: CAPACITY, entries: RwLock::default() }
    }

    /// Refuses every token of one session; or, without a session, every token of the user that was issued up to `at`.
    /// May be told twice, and in any order.
    pub fn revoke(&self, user: UserId, session: Option<SessionId>, at: Timestamp) {
        let key = (user, session);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let known = entries.at.get(&key).copied();
        if known.is_some_and(|known| known >= at) {
            return;
        }
        if let Some(known) = known {
            entries.by_age.remove(&(known, key));
        }
        entries.at.insert(key, at);
        entries.by_age.insert((at, key));
        entries.trim(self.source.now() - KEPT, self.capacity);
    }

    /// Whether a token is among the revoked.
    pub(crate) fn covers(&self, user: UserId, session: Option<SessionId>, issued: Timestamp) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let by_user = entries.at.get(&(user, None)).is_some_and(|at| issued <= *at);
        let by_session = session.is_some() && entries.at.contains_key(&(user, session));
        by_user || by_session || entries.floor.is_some_and(|floor| issued <= floor)
    }
}

impl Entries {
    fn trim(&mut self, expired: Timestamp, capacity: usize) {
        while let Some(&(at, key)) = self.by_age.first() {
            let full = self.by_age.len() > capacity;
            if at >= expired && !full {
                return;
            }
            self.by_age.pop_first();
            self.at.remove(&key);
            if at >= expired {
                tracing::warn!(mesh.revocations = capacity, "Too many revocations: older tokens are refused unseen");
                self.floor = self.floor.max(Some(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ids::{ManualClock, SeededRandom};
    use proptest::prelude::*;

    use super::*;

    fn small(capacity: usize) -> (Revocations, Arc<ManualClock>, Source) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000_000)));
        let source = Source::new(clock.clone(), Arc::new(SeededRandom::new(1)));
        (Revocations { capacity, ..Revocations::new(source.clone()) }, clock, source)
    }

    #[test]
    fn a_session_ends_alone_and_a_user_ends_with_all_sessions() {
        let (revocations, _, source) = small(100);
        let (user, other): (UserId, UserId) = (source.id(), source.id());
        let (one, two): (SessionId, SessionId) = (source.id(), source.id());
        let now = source.now();
        revocations.revoke(user, Some(one), now);
        assert!(revocations.covers(user, Some(one), now + Duration::from_secs(1)));
        assert!(!revocations.covers(user, Some(two), now));
        assert!(!revocations.covers(user, None, now));

        revocations.revoke(user, None, now);
        assert!(revocations.covers(user, Some(two), now));
        assert!(!revocations.covers(user, Some(two), now + Duration::from_millis(1)));
        assert!(!revocations.covers(other, None, now));
    }

    #[test]
    fn an_entry_is_forgotten_after_any_token_of_its_time() {
        let (revocations, clock, source) = small(100);
        let user: UserId = source.id();
        let revoked = source.now();
        revocations.revoke(user, None, revoked);
        clock.advance(KEPT + Duration::from_secs(1));
        revocations.revoke(source.id(), None, source.now());
        assert!(!revocations.covers(user, None, revoked));
        assert_eq!(revocations.entries.read().unwrap().at.len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_revoked_stays_refused_however_many_follow(ages in prop::collection::vec(0_u64..3000, 1..60)) {
            let (revocations, _, source) = small(10);
            let now = source.now();
            let revoked: Vec<_> = ages.iter().map(|age| (source.id::<UserId>(), now - Duration::from_secs(*age))).collect();
            for (user, at) in &revoked {
                revocations.revoke(*user, None, *at);
            }
            for (user, at) in &revoked {
                prop_assert!(revocations.covers(*user, None, *at));
            }
            prop_assert!(revocations.entries.read().unwrap().at.len() <= 10);
        }
    }
}
