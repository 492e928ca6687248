//! Every error of this service, as the reason that a client gets.

use std::time::Duration;

use status::{Problem, Reason};

use crate::{account, password, permit, signing_key};

impl From<account::Error> for Problem {
    fn from(error: account::Error) -> Self {
        match error {
            account::Error::EtagMismatch => Self::new(Reason::EtagMismatch),
            account::Error::LastAdmin => Self::new(Reason::LastAdmin),
            account::Error::Invalid { field, description } => {
                Self::new(Reason::InvalidFields).violation(field, description)
            }
        }
    }
}

impl From<password::Error> for Problem {
    fn from(error: password::Error) -> Self {
        match error {
            password::Error::Overloaded => {
                Self::new(Reason::Unavailable).retry_after(password::Hasher::RETRY_AFTER).because(error)
            }
            _ => Self::new(Reason::Internal).because(error),
        }
    }
}

impl From<permit::Forbidden> for Problem {
    fn from(forbidden: permit::Forbidden) -> Self {
        Self::new(Reason::ResourceForbidden).because(forbidden)
    }
}

impl From<signing_key::Error> for Problem {
    fn from(error: signing_key::Error) -> Self {
        match error {
            signing_key::Error::NoKey => {
                Self::new(Reason::Unavailable).retry_after(Duration::from_secs(1)).because(error)
            }
            _ => Self::new(Reason::Internal).because(error),
        }
    }
}
