//! How a person wants to be served.

use ids::{Timestamp, UserId};

use crate::account;

/// A person's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub user: UserId,
    /// A BCP 47 language tag; empty leaves it to the client.
    pub locale: String,
    /// An IANA time zone name; empty means UTC.
    pub time_zone: String,
    /// Whether mails beyond those about the account itself may be sent.
    pub email_notifications: bool,
    /// Counts changes from 1; the etag.
    pub version: i64,
    pub created: Timestamp,
    pub updated: Timestamp,
}

/// A change of settings: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub locale: Option<String>,
    pub time_zone: Option<String>,
    pub email_notifications: Option<bool>,
}

impl Settings {
    /// What a new account has.
    pub fn new(user: UserId, now: Timestamp) -> Self {
        Self {
            user,
            locale: String::new(),
            time_zone: String::new(),
            email_notifications: true,
            version: 1,
            created: now,
            updated: now,
        }
    }

    /// The settings' etag.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }

    /// Refuses a stale etag; none at all passes.
    pub fn check_etag(&self, etag: &str) -> Result<(), account::Error> {
        account::check_etag(&self.etag(), etag)
    }

    /// Applies a change. Answers whether it changes anything.
    pub fn edit(&mut self, edit: Edit, now: Timestamp) -> bool {
        let locale = edit.locale.unwrap_or_else(|| self.locale.clone());
        let time_zone = edit.time_zone.unwrap_or_else(|| self.time_zone.clone());
        let email_notifications = edit.email_notifications.unwrap_or(self.email_notifications);
        let changes =
            (&locale, &time_zone, email_notifications) != (&self.locale, &self.time_zone, self.email_notifications);
        if changes {
            (self.locale, self.time_zone, self.email_notifications) = (locale, time_zone, email_notifications);
            self.version += 1;
            self.updated = now;
        }
        changes
    }
}
