//! Limits against guessing: how often something may be tried.
//!
//! Log-ins are counted by account and by address, and so are mails that anybody can ask for. A session that is open already is
//! none of this module's business: somebody else's guesses never shut its owner out.

use std::{net::IpAddr, time::Duration};

use limit::{Claim, Key, Rate};
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
        Claim { key: Key::new(&format!("auth {kind}"), &value), rate: allowance.times(self.factor) }
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
    fn times(self, factor: u32) -> Rate {
        let attempts = self.attempts.saturating_mul(factor).max(1);
        Rate::new(attempts, Duration::from_secs(self.window.into()) / attempts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ids::{ManualClock, Source, SystemRandom, Timestamp};
    use limit::{InProcess, Limits, Refused};

    use super::*;

    const SETTINGS: Settings = Settings {
        factor: 1,
        log_in_account: Allowance { attempts: 3, window: 60 },
        log_in_address: Allowance { attempts: 5, window: 60 },
        mail_account: Allowance { attempts: 1, window: 60 },
        mail_address: Allowance { attempts: 1, window: 60 },
    };

    /// Takes attempts at the second that a test says.
    struct Attempts {
        limits: InProcess,
        clock: Arc<ManualClock>,
    }

    impl Attempts {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(Timestamp::EPOCH));
            let source = Source::new(clock.clone(), Arc::new(SystemRandom));
            Self { limits: InProcess::new(100, source), clock }
        }

        /// The wait in seconds if there is one.
        async fn take(&self, second: i64, claims: &[Claim]) -> Result<(), u64> {
            self.clock.set(Timestamp::from_seconds(second));
            self.limits.take(claims).await.map(drop).map_err(|Refused { retry_after, .. }| retry_after.as_secs())
        }
    }

    fn log_in(email: &str, ip: &str) -> Vec<Claim> {
        SETTINGS.claims(Action::LogIn, &[Subject::account(email), Subject::Address(ip.parse().unwrap())])
    }

    #[tokio::test]
    async fn an_account_is_shut_after_its_attempts_and_opens_again_with_time() {
        let attempts = Attempts::new();
        let claims = log_in("ada@example.org", "192.0.2.1");
        for _ in 0..3 {
            assert_eq!(attempts.take(0, &claims).await, Ok(()));
        }
        assert_eq!(attempts.take(0, &claims).await, Err(20));
        assert_eq!(attempts.take(19, &log_in("ADA@example.org ", "192.0.2.2")).await, Err(1));
        assert_eq!(attempts.take(20, &claims).await, Ok(()));
        assert_eq!(attempts.take(20, &claims).await, Err(20));
    }

    #[tokio::test]
    async fn an_address_is_shut_for_every_account() {
        let attempts = Attempts::new();
        for n in 0..5 {
            assert_eq!(attempts.take(0, &log_in(&format!("{n}@example.org"), "2001:db8::1")).await, Ok(()));
        }
        assert!(attempts.take(0, &log_in("6@example.org", "2001:db8::ffff")).await.is_err(), "the same /64");
        assert_eq!(attempts.take(0, &log_in("6@example.org", "2001:db8:0:1::1")).await, Ok(()));
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

    #[test]
    fn the_factor_multiplies_the_attempts_of_a_window() {
        let allowance = Allowance { attempts: 3, window: 60 };
        assert_eq!(allowance.times(1), Rate::new(3, Duration::from_secs(20)));
        assert_eq!(allowance.times(10), Rate::new(30, Duration::from_secs(2)));
        assert_eq!(allowance.times(0), Rate::new(1, Duration::from_mins(1)));
    }
}
