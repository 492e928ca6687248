//! Field masks: which fields of a resource an update changes.

use std::collections::BTreeSet;

use prost_types::FieldMask;

use crate::error::{Error, Result};

/// Characters of a path that are said again in its refusal.
const MAX_SHOWN: usize = 60;

/// The fields to change, of those that can be, by their names in the `.proto`. No mask, or an empty one, means all that are populated; `*` means all.
pub fn fields(
    mask: Option<FieldMask>,
    mutable: &[&'static str],
    populated: impl Fn(&str) -> bool,
) -> Result<BTreeSet<&'static str>> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Ok(mutable.iter().copied().filter(|field| populated(field)).collect());
    }
    let mut fields = BTreeSet::new();
    for path in paths {
        match mutable.iter().find(|field| **field == path) {
            Some(field) => _ = fields.insert(*field),
            None if path == "*" => fields.extend(mutable),
            None => {
                let path: String = path.chars().take(MAX_SHOWN).collect();
                return Err(Error::field(
                    "updateMask",
                    format!("names `{path}`, which is none of: {}", mutable.join(", ")),
                ));
            }
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTABLE: [&str; 2] = ["title", "markdown"];

    fn of(paths: &[&str]) -> FieldMask {
        FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_mask_names_fields_and_no_mask_means_the_populated_ones() {
        let populated = |field: &str| field == "title";
        assert_eq!(fields(None, &MUTABLE, populated).unwrap(), BTreeSet::from(["title"]));
        assert_eq!(fields(Some(of(&[])), &MUTABLE, populated).unwrap(), BTreeSet::from(["title"]));
        assert_eq!(fields(Some(of(&["markdown"])), &MUTABLE, populated).unwrap(), BTreeSet::from(["markdown"]));
        assert_eq!(fields(Some(of(&["*"])), &MUTABLE, populated).unwrap(), BTreeSet::from(MUTABLE));
    }

    #[test]
    fn a_field_that_is_not_mutable_is_refused() {
        assert!(
            matches!(fields(Some(of(&["title", "author_id"])), &MUTABLE, |_| true), Err(Error::Field { field, .. }) if field == "updateMask")
        );
        let long = "x".repeat(1_000_000);
        assert!(
            matches!(fields(Some(of(&[&long])), &MUTABLE, |_| true), Err(Error::Field { description, .. }) if description.len() < 200)
        );
    }
}
