//! What changed between two texts, line by line.

use std::time::Duration;

use similar::{ChangeTag, TextDiff};

/// Unchanged lines shown around each change.
const CONTEXT: usize = 3;

/// After this the shortest difference is no longer looked for; any true one will do.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most bytes of a difference: it is given as text and as data, which must fit into a message of 4 MiB together.
const MAX_BYTES: usize = 3_500_000;

/// The most bytes that a line and a hunk cost beside what stands in them.
const LINE: usize = 16;
const HUNK: usize = 100;

/// The texts differ in too much to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the texts differ in too much to be shown")]
pub struct TooLong;

/// The difference of two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// In the format of `diff -u`; empty when the texts are the same.
    pub unified: String,
    /// The same as data, in order.
    pub hunks: Vec<Hunk>,
}

/// Lines that changed, and those around them. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk {
    /// The first line in the base and how many.
    pub base: (usize, usize),
    /// The first line in the target and how many.
    pub target: (usize, usize),
    /// In order, without their line ends.
    pub lines: Vec<(Change, String)>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Kept,
    Removed,
    Added,
}

/// Compares two texts, named `base_name` and `target_name` in the unified form. Takes at most about a second.
pub fn compare(base: &str, target: &str, base_name: &str, target_name: &str) -> Result<Diff, TooLong> {
    let base: Vec<&str> = base.split_inclusive('\n').collect();
    let target: Vec<&str> = target.split_inclusive('\n').collect();
    let diff = TextDiff::configure().timeout(PATIENCE).newline_terminated(true).diff_slices(&base, &target);
    let groups = diff.grouped_ops(CONTEXT);
    let lines = groups.iter().flatten().flat_map(|op| diff.iter_changes(op));
    let bytes: usize = lines.map(|change| LINE + 2 * change.value().len()).sum();
    if bytes + groups.len() * HUNK > MAX_BYTES {
        return Err(TooLong);
    }
    let unified = diff.unified_diff().context_radius(CONTEXT).header(base_name, target_name).to_string();
    let hunks = groups
        .iter()
        .filter_map(|group| {
            let (first, last) = (group.first()?, group.last()?);
            let base = first.old_range().start..last.old_range().end;
            let target = first.new_range().start..last.new_range().end;
            Some(Hunk {
                base: (base.start + 1, base.len()),
                target: (target.start + 1, target.len()),
                lines: group
                    .iter()
                    .flat_map(|op| diff.iter_changes(op))
                    .map(|change| line(change.tag(), change.value()))
                    .collect(),
            })
        })
        .collect();
    Ok(Diff { unified, hunks })
}

fn line(tag: ChangeTag, text: &str) -> (Change, String) {
    let change = match tag {
        ChangeTag::Equal => Change::Kept,
        ChangeTag::Delete => Change::Removed,
        ChangeTag::Insert => Change::Added,
    };
    (change, text.strip_suffix('\n').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of the target, made from the base's and the hunks alone.
    fn apply(base: &str, hunks: &[Hunk]) -> Vec<String> {
        let base: Vec<&str> = base.lines().collect();
        let mut target = Vec::new();
        let mut at = 0;
        for hunk in hunks {
            target.extend(base[at..hunk.base.0 - 1].iter().map(ToString::to_string));
            assert_eq!(target.len() + 1, hunk.target.0, "hunks name where they stand");
            let (kept_or_removed, kept_or_added) = (
                hunk.lines
                    .iter()
                    .filter(|(change, _)| *change != Change::Added)
                    .map(|(_, text)| text.as_str())
                    .collect::<Vec<_>>(),
                hunk.lines.iter().filter(|(change, _)| *change != Change::Removed).map(|(_, text)| text.clone()),
            );
            at = hunk.base.0 - 1 + hunk.base.1;
            assert_eq!(base[hunk.base.0 - 1..at], kept_or_removed, "hunks repeat the base");
            target.extend(kept_or_added);
        }
        target.extend(base[at..].iter().map(ToString::to_string));
        target
    }

    #[test]
    fn the_unified_form_is_that_of_diff_u() {
        let diff = compare("제목\na\nb\nc\n", "제목\na\nB\nc\nd", "version 1", "version 2").unwrap();
        assert_eq!(
            diff.unified,
            "--- version 1\n+++ version 2\n@@ -1,4 +1,5 @@\n 제목\n a\n-b\n+B\n c\n+d\n\\ No newline at end of file\n"
        );
        assert_eq!((diff.hunks[0].base, diff.hunks[0].target), ((1, 4), (1, 5)));
        assert_eq!(diff.hunks[0].lines[2], (Change::Removed, "b".to_owned()));
    }

    #[test]
    fn the_same_text_differs_in_nothing() {
        assert_eq!(compare("a\n", "a\n", "x", "y"), Ok(Diff { unified: String::new(), hunks: Vec::new() }));
    }

    #[test]
    fn texts_that_differ_in_more_than_a_message_holds_are_refused() {
        let lines = |letter: &str, count| format!("{letter}\n").repeat(count);
        assert_eq!(compare(&lines("a", 500_000), &lines("b", 500_000), "x", "y"), Err(TooLong));
        assert_eq!(compare(&"a".repeat(1_000_000), &"b".repeat(1_000_000), "x", "y"), Err(TooLong));
        let diff = compare(&lines("a", 80_000), &lines("b", 80_000), "x", "y").unwrap();
        assert_eq!(diff.hunks[0].lines.len(), 160_000);
        assert!(compare(&"a".repeat(1_000_000), "b", "x", "y").is_ok());
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let base = format!("title\n{}", "line\n".repeat(100));
        let target = format!("Title\n{}end\n", "line\n".repeat(100));
        assert_eq!(compare(&base, &target, "x", "y").unwrap().hunks.len(), 2);
    }

    proptest! {
        #[test]
        fn base_and_hunks_give_the_target(
            title in "[a-z]{1,3}", other in "[a-z]{1,3}",
            base in prop::collection::vec("[ab]{0,1}", 0..40), target in prop::collection::vec("[ab]{0,1}", 0..40),
        ) {
            let base = format!("{title}\n{}\n", base.join("\n"));
            let target = format!("{other}\n{}\n", target.join("\n"));
            let diff = compare(&base, &target, "base", "target").unwrap();
            prop_assert_eq!(apply(&base, &diff.hunks), target.lines().map(str::to_owned).collect::<Vec<_>>());
            prop_assert_eq!(diff.hunks.is_empty(), base == target);
        }
    }
}
