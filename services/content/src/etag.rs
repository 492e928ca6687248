//! Optimistic concurrency: an etag is the count of a resource's changes.

use aws_lc_rs::digest;

/// The etag belongs to an earlier state of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the etag is stale")]
pub struct Stale;

/// The etag of a resource that has changed `revision` times.
pub fn of(revision: i64) -> String {
    format!("r{revision}")
}

/// The etag of a resource that is shown with a text which is not its own and changes without it: a copy that was made before is
/// not fresh any more, but a change in view of it may go on.
pub fn beside(revision: i64, text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let digits = digest.as_ref().iter().take(4).fold(0, |digits: u32, byte| digits << 8 | u32::from(*byte));
    format!("{}.{digits:08x}", of(revision))
}

/// Whether a change that was made in view of `given` may go on. The empty etag is unconditional; quotes, as HTTP writes them,
/// do not count, nor does the part of [`beside`].
pub fn check(given: &str, revision: i64) -> Result<(), Stale> {
    let given = given.trim_matches('"');
    let given = given.split_once('.').map_or(given, |(own, _)| own);
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

    #[test]
    fn what_stands_beside_makes_a_copy_stale_and_no_change() {
        let (before, after) = (beside(3, "민지"), beside(3, "김민지"));
        assert_ne!(before, after);
        assert_eq!((check(&before, 3), check(&after, 3)), (Ok(()), Ok(())));
        assert_eq!(check(&before, 4), Err(Stale));
        assert_ne!(beside(3, "민지"), beside(4, "민지"));
    }
}
