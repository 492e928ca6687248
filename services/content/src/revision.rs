//! Revisions: how often a resource has changed, and when.

use ids::Timestamp;

use crate::etag::{self, Stale};

/// Where a resource stands in the row of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Counts changes, from 1. It is the version of the resource's events too.
    pub number: i64,
    /// When the resource came into being.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
}

impl Revision {
    /// That of a new resource.
    pub fn first(now: Timestamp) -> Self {
        Self { number: 1, create_time: now, update_time: now }
    }

    /// That of a resource which comes into being with its first change.
    pub fn none(now: Timestamp) -> Self {
        Self { number: 0, ..Self::first(now) }
    }

    /// Counts a change.
    pub fn advance(&mut self, now: Timestamp) {
        self.number += 1;
        // A clock that was set back must not make a later change look earlier.
        self.update_time = now.max(self.update_time);
    }

    /// The present etag.
    pub fn etag(self) -> String {
        etag::of(self.number)
    }

    /// Whether a change that was made in view of `given` may go on.
    pub fn check(self, given: &str) -> Result<(), Stale> {
        etag::check(given, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_makes_the_etag_stale_and_time_does_not_go_back() {
        let mut revision = Revision::first(Timestamp::from_seconds(10));
        let first = revision.etag();
        assert_eq!(revision.check(&first), Ok(()));
        revision.advance(Timestamp::from_seconds(5));
        assert_eq!(revision.check(&first), Err(Stale));
        assert_eq!((revision.number, revision.update_time), (2, Timestamp::from_seconds(10)));
        revision.advance(Timestamp::from_seconds(20));
        assert_eq!(
            (revision.create_time, revision.update_time),
            (Timestamp::from_seconds(10), Timestamp::from_seconds(20))
        );
    }
}
