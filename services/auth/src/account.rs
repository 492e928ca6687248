//! A person's account: who they are to us, and what may happen to it.

use std::fmt;

use contracts::Role;
use ids::{Timestamp, UserId};
use mesh::Tier;

use crate::{password, role::Roles};

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: UserId,
    pub email: Email,
    /// When the owner proved that the address is theirs.
    pub email_verified: Option<Timestamp>,
    pub password: password::Hash,
    /// When the password was set; renewing its hash does not count.
    pub password_set: Timestamp,
    pub display_name: String,
    pub biography: String,
    pub roles: Roles,
    pub tier: Tier,
    pub state: State,
    /// Counts changes from 1. It is the etag, and orders the account's events.
    pub version: i64,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// Whether a person is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    Suspended { since: Timestamp, reason: String },
}

/// Why an account does not do what was asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the account has changed since it was read")]
    EtagMismatch,
    #[error("the last admin can be neither demoted nor suspended")]
    LastAdmin,
    #[error("{field}: {description}")]
    Invalid { field: &'static str, description: &'static str },
}

/// Whether an active admin other than the account in question exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherAdmins {
    Some,
    None,
}

/// An e-mail address.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    written: String,
    key: String,
}

impl Email {
    /// An address that a mail can be sent to.
    pub fn parse(text: &str) -> Result<Self, Error> {
        text.parse::<lettre::Address>()
            .map(|_| Self { written: text.to_owned(), key: Self::key_of(text) })
            .map_err(|_| Error::Invalid { field: "email", description: "is not an e-mail address" })
    }

    /// The form by which accounts are found, whatever was typed: addresses that differ in case alone are one.
    pub fn key_of(text: &str) -> String {
        text.trim().to_lowercase()
    }

    /// An address that [`Self::parse`] took before.
    pub fn stored(written: String, key: String) -> Self {
        Self { written, key }
    }

    /// As its owner wrote it: where mails go.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Its normal form.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(redacted)")
    }
}

impl Account {
    /// A new member's account. The name is taken without the blanks around it.
    pub fn register(id: UserId, email: Email, password: password::Hash, name: &str, now: Timestamp) -> Self {
        Self {
            id,
            email,
            email_verified: None,
            password,
            password_set: now,
            display_name: display_name(name),
            biography: String::new(),
            roles: Roles::MEMBER,
            tier: Tier::Free,
            state: State::Active,
            version: 1,
            created: now,
            updated: now,
        }
    }

    /// The account's etag.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }

    /// Refuses a stale etag; none at all passes.
    pub fn check_etag(&self, etag: &str) -> Result<(), Error> {
        check_etag(&self.etag(), etag)
    }

    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// Gives the account these roles instead of its own. Answers whether that changes anything.
    pub fn set_roles(&mut self, roles: Roles, others: OtherAdmins, now: Timestamp) -> Result<bool, Error> {
        if !roles.contains(Role::Admin) {
            self.check_not_last_admin(others)?;
        }
        let changes = self.roles != roles;
        self.roles = roles;
        Ok(self.touch(changes, now))
    }

    /// Sets the tier. Answers whether that changes anything.
    pub fn set_tier(&mut self, tier: Tier, now: Timestamp) -> bool {
        let changes = self.tier != tier;
        self.tier = tier;
        self.touch(changes, now)
    }

    /// Shuts the person out. Answers whether that changes anything: a suspension keeps its first time and reason.
    pub fn suspend(&mut self, reason: String, others: OtherAdmins, now: Timestamp) -> Result<bool, Error> {
        self.check_not_last_admin(others)?;
        let changes = self.is_active();
        if changes {
            self.state = State::Suspended { since: now, reason };
        }
        Ok(self.touch(changes, now))
    }

    /// Lets the person in again. Answers whether that changes anything.
    pub fn reinstate(&mut self, now: Timestamp) -> bool {
        let changes = !self.is_active();
        self.state = State::Active;
        self.touch(changes, now)
    }

    /// Notes that the address was proved to be the owner's. Answers whether that is news.
    pub fn verify_email(&mut self, now: Timestamp) -> bool {
        let changes = self.email_verified.is_none();
        self.email_verified.get_or_insert(now);
        self.touch(changes, now)
    }

    /// Sets the password. The mailed code that this takes also proves the address.
    pub fn reset_password(&mut self, password: password::Hash, now: Timestamp) {
        self.password = password;
        self.password_set = now;
        self.email_verified.get_or_insert(now);
        self.touch(true, now);
    }

    /// Notes a change, if there is one.
    pub(crate) fn touch(&mut self, changes: bool, now: Timestamp) -> bool {
        if changes {
            self.version += 1;
            self.updated = now;
        }
        changes
    }

    fn check_not_last_admin(&self, others: OtherAdmins) -> Result<(), Error> {
        let is_admin = self.is_active() && self.roles.contains(Role::Admin);
        if is_admin && others == OtherAdmins::None { Err(Error::LastAdmin) } else { Ok(()) }
    }
}

/// Refuses an etag that is not the `current` one; none at all passes.
pub fn check_etag(current: &str, given: &str) -> Result<(), Error> {
    if given.is_empty() || given == current { Ok(()) } else { Err(Error::EtagMismatch) }
}

/// The name without the blanks around it. The contract has checked that it is fit to be shown.
pub fn display_name(text: &str) -> String {
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use ids::Source;
    use proptest::prelude::*;

    use super::*;

    fn account(roles: Roles) -> Account {
        let source = Source::system();
        let email = Email::parse("ada@example.org").unwrap();
        let mut account =
            Account::register(source.id(), email, password::Hash::stored(String::new()), "Ada", source.now());
        account.roles = roles;
        account
    }

    #[test]
    fn the_last_admin_stays_admin_and_active() {
        let (source, mut admin) = (Source::system(), account(Roles::ADMIN));
        assert_eq!(admin.set_roles(Roles::MEMBER, OtherAdmins::None, source.now()), Err(Error::LastAdmin));
        assert_eq!(admin.suspend(String::new(), OtherAdmins::None, source.now()), Err(Error::LastAdmin));
        assert_eq!((admin.roles, admin.is_active(), admin.version), (Roles::ADMIN, true, 1));
        assert_eq!(admin.set_roles(Roles::MEMBER, OtherAdmins::Some, source.now()), Ok(true));
        assert_eq!(admin.suspend(String::new(), OtherAdmins::None, source.now()), Ok(true));
    }

    #[test]
    fn only_a_change_makes_a_new_version() {
        let (source, mut account) = (Source::system(), account(Roles::MEMBER));
        assert_eq!(account.set_roles(Roles::MEMBER, OtherAdmins::None, source.now()), Ok(false));
        assert!(!account.set_tier(Tier::Free, source.now()));
        assert!(!account.reinstate(source.now()));
        assert_eq!(account.version, 1);
        assert_eq!(account.suspend("spam".into(), OtherAdmins::None, source.now()), Ok(true));
        assert_eq!(account.suspend("again".into(), OtherAdmins::None, source.now()), Ok(false));
        assert!(matches!(&account.state, State::Suspended { reason, .. } if reason == "spam"));
        assert!(account.reinstate(source.now()));
        assert_eq!(account.version, 3);
    }

    #[test]
    fn a_stale_etag_is_refused_and_none_passes() {
        let account = account(Roles::MEMBER);
        assert_eq!(account.check_etag(""), Ok(()));
        assert_eq!(account.check_etag("1"), Ok(()));
        assert_eq!(account.check_etag("2"), Err(Error::EtagMismatch));
        assert_eq!(account.check_etag("01"), Err(Error::EtagMismatch));
    }

    proptest! {
        #[test]
        fn the_key_of_an_address_is_stable_and_blind_to_ascii_case(local in "[a-zA-Z0-9.]{1,20}", domain in "[a-zA-Z]{1,10}\\.org") {
            let text = format!("{local}@{domain}");
            let key = Email::key_of(&text);
            prop_assert_eq!(&Email::key_of(&key), &key);
            prop_assert_eq!(&Email::key_of(&text.to_ascii_uppercase()), &key);
        }
    }
}
