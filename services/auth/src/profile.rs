//! What everybody sees of a person.

use ids::{Timestamp, UserId};

use crate::account::{self, Account};

/// A public profile. It never holds the address. Of a suspended person only the name is shown: what they wrote is hidden.
#[derive(Clone, Debug)]
pub struct Profile {
    pub id: UserId,
    pub display_name: String,
    pub biography: String,
    pub suspended: bool,
    pub version: i64,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// A change that a person makes to their profile: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub display_name: Option<String>,
    pub biography: Option<String>,
}

impl From<Account> for Profile {
    fn from(account: Account) -> Self {
        let suspended = !account.is_active();
        Self {
            id: account.id,
            suspended,
            display_name: account.display_name,
            biography: if suspended { String::new() } else { account.biography },
            version: account.version,
            created: account.created,
            updated: account.updated,
        }
    }
}

impl Edit {
    /// Applies the change. Answers whether it changes anything.
    pub fn apply(self, account: &mut Account, now: Timestamp) -> bool {
        let display_name =
            self.display_name.map_or_else(|| account.display_name.clone(), |name| account::display_name(&name));
        let biography = self.biography.unwrap_or_else(|| account.biography.clone());
        let changes = (&display_name, &biography) != (&account.display_name, &account.biography);
        account.display_name = display_name;
        account.biography = biography;
        account.touch(changes, now)
    }
}
