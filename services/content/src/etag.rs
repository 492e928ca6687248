//! Optimistic concurrency: an etag is the count of a resource's changes.

/// The etag belongs to an earlier state of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the etag is stale")]
pub struct Stale;

/// The etag of a resource that has changed `revision` times.
pub fn of(revision: i64) -> String {
    format!("r{revision}")
}

/// Whether a change that was made in view of `given` may go on. The empty etag is unconditional; quotes, as HTTP writes them,
/// do not count.
pub fn check(given: &str, revision: i64) -> Result<(), Stale> {
    let given = given.trim_matches('"');
    if given.is_empty() || given == of(revision) { Ok(()) } else { Err(Stale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_etag_and_none_pass() {
        assert_eq!(check("", 3), Ok(()));
        assert_eq!(check(&of(3), 3), Ok(()));
        assert_eq!(check("\"r3\"", 3), Ok(()));
        assert_eq!(check(&of(2), 3), Err(Stale));
        assert_eq!(check("anything", 3), Err(Stale));
    }
}
