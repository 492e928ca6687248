//! Limits against guessing: how often something may be tried.
//!
//! Log-ins are counted by account and by address, and so are mails that anybody can ask for. A session that is open already is
//! none of this module's business: somebody else's guesses never shut its owner out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use ids::{Source, Timestamp};
use serde::Deserialize;

use crate::account::Email;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    LogIn,
    /// Something that makes us send a mail.
    Mail,
}

/// By what attempts are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An e-mail address in normal form, whether or not it has an account.
    Account(String),
    /// A client's network address.
    Address(IpAddr),
}

impl Subject {
    /// The account of an address as it was typed.
    pub fn account(email: &str) -> Self {
        Self::Account(Email::key_of(email))
    }
}

/// One attempt's claim on one allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Names the action and its subject; a hash, so that no store of attempts holds personal data.
    pub key: [u8; 32],
    pub allowance: Allowance,
}

/// So many attempts at once, and as many again spread over `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub attempts: u32,
    /// Seconds.
    pub window: u32,
}

/// The allowances.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Multiplies every allowance.
    pub factor: u32,
    pub log_in_account: Allowance,
    pub log_in_address: Allowance,
    pub mail_account: Allowance,
    pub mail_address: Allowance,
}

/// An allowance is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    pub retry_after: Duration,
}

/// Where attempts are counted.
pub trait Attempts: Send + Sync + 'static {
    /// Takes one attempt from each allowance, or, if one of them has none left, from none. An attempt counts from its
    /// beginning, so that concurrent guesses do not outrun the limit.
    fn take<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<(), Exhausted>>;
    /// Gives back what [`Self::take`] took: the attempt succeeded.
    fn give_back<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, ()>;
    /// Makes the allowances whole: those who used them up do not count any more.
    fn restore<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, ()>;
}

impl Settings {
    /// The claims of an action by these subjects.
    pub fn claims(&self, action: Action, subjects: &[Subject]) -> Vec<Claim> {
        subjects.iter().map(|subject| self.claim(action, subject)).collect()
    }

    fn claim(&self, action: Action, subject: &Subject) -> Claim {
        let (allowance, kind, value) = match (action, subject) {
            (Action::LogIn, Subject::Account(key)) => (self.log_in_account, "log-in account", key.clone()),
            (Action::LogIn, Subject::Address(ip)) => (self.log_in_address, "log-in address", network(*ip)),
            (Action::Mail, Subject::Account(key)) => (self.mail_account, "mail account", key.clone()),
            (Action::Mail, Subject::Address(ip)) => (self.mail_address, "mail address", network(*ip)),
        };
        let hash = digest::digest(&digest::SHA256, format!("{kind} {value}").as_bytes());
        Claim {
            key: hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"),
            allowance: Allowance { attempts: allowance.attempts.saturating_mul(self.factor), ..allowance },
        }
    }
}

/// An IPv4 address, or the /64 that an IPv6 client chooses its addresses from.
fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

impl Allowance {
    /// The time by which one attempt uses the allowance up, in microseconds.
    fn cost(self) -> i64 {
        self.window() / i64::from(self.attempts.max(1))
    }

    fn window(self) -> i64 {
        i64::from(self.window) * 1_000_000
    }
}

/// Attempts counted in this process, by the generic cell rate algorithm: each key holds the one moment at which its allowance
/// is whole again.
pub struct InProcess {
    whole_at: Mutex<HashMap<[u8; 32], i64>>,
    capacity: usize,
    source: Source,
}

impl InProcess {
    /// Counts at most `capacity` keys at a time; beyond, those that are nearest to whole are forgotten.
    pub fn new(capacity: usize, source: Source) -> Self {
        Self { whole_at: Mutex::default(), capacity, source }
    }

    fn try_take(&self, claims: &[Claim], now: Timestamp) -> Result<(), Exhausted> {
        let (mut whole_at, now) = (self.whole_at.lock().unwrap_or_else(PoisonError::into_inner), now.micros());
        let after = |claim: &Claim| whole_at.get(&claim.key).map_or(now, |at| now.max(*at)) + claim.allowance.cost();
        let excess = claims.iter().map(|claim| after(claim) - now - claim.allowance.window()).max().unwrap_or(0);
        if excess > 0 {
            return Err(Exhausted { retry_after: Duration::from_micros(excess.unsigned_abs()) });
        }
        let taken: Vec<_> = claims.iter().map(|claim| (claim.key, after(claim))).collect();
        whole_at.extend(taken);
        if whole_at.len() > self.capacity {
            forget(&mut whole_at, self.capacity, now);
        }
        Ok(())
    }
}

/// Forgets keys whose allowance is whole, and, if that is not enough, the half that is nearest to it.
fn forget(whole_at: &mut HashMap<[u8; 32], i64>, capacity: usize, now: i64) {
    whole_at.retain(|_, at| *at > now);
    if whole_at.len() > capacity {
        let mut moments: Vec<_> = whole_at.values().copied().collect();
        let (_, median, _) = moments.select_nth_unstable(capacity / 2);
        let median = *median;
        whole_at.retain(|_, at| *at > median);
    }
}

impl Attempts for InProcess {
    fn take<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<(), Exhausted>> {
        Box::pin(async { self.try_take(claims, self.source.now()) })
    }

    fn give_back<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
            for claim in claims {
                whole_at.entry(claim.key).and_modify(|at| *at -= claim.allowance.cost());
            }
        })
    }

    fn restore<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
            for claim in claims {
                whole_at.remove(&claim.key);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings {
        factor: 1,
        log_in_account: Allowance { attempts: 3, window: 60 },
        log_in_address: Allowance { attempts: 5, window: 60 },
        mail_account: Allowance { attempts: 1, window: 60 },
        mail_address: Allowance { attempts: 1, window: 60 },
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn log_in(email: &str, ip: &str) -> Vec<Claim> {
        SETTINGS.claims(Action::LogIn, &[Subject::account(email), Subject::Address(ip.parse().unwrap())])
    }

    #[test]
    fn an_account_is_shut_after_its_attempts_and_opens_again_with_time() {
        let attempts = InProcess::new(100, Source::system());
        let claims = log_in("ada@example.org", "192.0.2.1");
        for _ in 0..3 {
            assert_eq!(attempts.try_take(&claims, at(0)), Ok(()));
        }
        assert_eq!(attempts.try_take(&claims, at(0)), Err(Exhausted { retry_after: Duration::from_secs(20) }));
        assert_eq!(
            attempts.try_take(&log_in("ADA@example.org ", "192.0.2.2"), at(19)),
            Err(Exhausted { retry_after: Duration::from_secs(1) })
        );
        assert_eq!(attempts.try_take(&claims, at(20)), Ok(()));
        assert!(attempts.try_take(&claims, at(20)).is_err());
    }

    #[test]
    fn an_address_is_shut_for_every_account() {
        let attempts = InProcess::new(100, Source::system());
        for n in 0..5 {
            assert_eq!(attempts.try_take(&log_in(&format!("{n}@example.org"), "2001:db8::1"), at(0)), Ok(()));
        }
        assert!(attempts.try_take(&log_in("6@example.org", "2001:db8::ffff"), at(0)).is_err(), "the same /64");
        assert_eq!(attempts.try_take(&log_in("6@example.org", "2001:db8:0:1::1"), at(0)), Ok(()));
    }

    #[tokio::test]
    async fn a_success_gives_its_attempt_back_and_a_refusal_takes_none() {
        let attempts = InProcess::new(100, Source::system());
        let claims = log_in("ada@example.org", "192.0.2.1");
        for _ in 0..20 {
            attempts.take(&claims).await.unwrap();
            attempts.give_back(&claims).await;
        }
        for _ in 0..3 {
            attempts.take(&claims).await.unwrap();
        }
        for _ in 0..20 {
            attempts.take(&claims).await.unwrap_err();
        }
        let same_address = log_in("bob@example.org", "192.0.2.1");
        assert_eq!(attempts.take(&same_address).await, Ok(()));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_the_same_address() {
        assert_eq!(log_in("a@b", "::ffff:192.0.2.1"), log_in("a@b", "192.0.2.1"));
    }

    #[test]
    fn actions_do_not_share_allowances() {
        let subjects = [Subject::account("ada@example.org")];
        assert_ne!(SETTINGS.claims(Action::LogIn, &subjects)[0].key, SETTINGS.claims(Action::Mail, &subjects)[0].key);
    }

    proptest! {
        /// No client gets more than its burst and what has refilled since, however it times its attempts.
        #[test]
        fn no_timing_outruns_the_allowance(waits in prop::collection::vec(0_i64..30, 1..200)) {
            let attempts = InProcess::new(10, Source::system());
            let claims = SETTINGS.claims(Action::LogIn, &[Subject::account("ada@example.org")]);
            let (mut now, mut taken) = (0, 0);
            for wait in waits {
                now += wait;
                taken += i64::from(attempts.try_take(&claims, at(now)).is_ok());
                prop_assert!(taken <= 3 + now / 20, "{taken} in {now} s");
            }
        }

        #[test]
        fn memory_is_bounded(keys in prop::collection::vec(any::<u16>(), 1..300)) {
            let attempts = InProcess::new(16, Source::system());
            for (n, key) in keys.into_iter().enumerate() {
                let claims = SETTINGS.claims(Action::LogIn, &[Subject::Account(key.to_string())]);
                let _ = attempts.try_take(&claims, at(i64::try_from(n).unwrap() / 50));
                prop_assert!(attempts.whole_at.lock().unwrap().len() <= 16);
            }
        }
    }
}
