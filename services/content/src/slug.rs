//! The last part of a post's or a category's address.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The most characters of a slug.
pub const MAX_CHARS: usize = 120;

/// Lower-case letters and digits of any script in NFC, joined by single hyphens. It needs no quoting in an address but for
/// the percent-encoding of what is not ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(String);

/// Nothing of the text can stand in a slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a slug needs at least one letter or digit")]
pub struct Empty;

impl Slug {
    /// The slug nearest to `text`. What is a slug already stays as it is.
    pub fn parse(text: &str) -> Result<Self, Empty> {
        let slug = normalise(text);
        if slug.is_empty() { Err(Empty) } else { Ok(Self(slug)) }
    }

    /// The slug of a title; `fallback` for a title without letters and digits.
    pub fn of_title(title: &str, fallback: &str) -> Self {
        Self::parse(title).unwrap_or_else(|Empty| Self(fallback.to_owned()))
    }

    /// The same slug with a number, for when it is taken: `title-2`. A long one is cut to make room for it.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let number = format!("-{number}");
        let stem: String = self.0.chars().take(MAX_CHARS - number.len()).collect();
        Self(stem.trim_end_matches('-').to_owned() + &number)
    }

    /// The slug's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A slug that was normalised before it was stored.
impl From<String> for Slug {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

fn normalise(text: &str) -> String {
    // Character by character, since the lower case of a word's last sigma depends on where the word ends.
    let lower: String = text.nfc().flat_map(char::to_lowercase).nfc().collect();
    let mut slug = String::new();
    let mut chars = 0;
    let mut gap = false;
    for c in lower.chars() {
        if is_apostrophe(c) {
            continue;
        }
        let marks_a_letter = is_combining_mark(c) && !gap && !slug.is_empty();
        if !c.is_alphanumeric() && !marks_a_letter {
            gap = true;
            continue;
        }
        let hyphen = gap && !slug.is_empty();
        chars += 1 + usize::from(hyphen);
        if chars > MAX_CHARS {
            break;
        }
        if hyphen {
            slug.push('-');
        }
        gap = false;
        slug.push(c);
    }
    slug
}

/// `don't` is one word.
fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’' | '‘' | 'ʼ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slug(text: &str) -> String {
        Slug::parse(text).unwrap().to_string()
    }

    #[test]
    fn letters_of_every_script_stay() {
        assert_eq!(slug("Announcing Rust 1.0 Beta!"), "announcing-rust-1-0-beta");
        assert_eq!(slug("러스트 언어, 시작하기"), "러스트-언어-시작하기");
        assert_eq!(slug("Ärger  über — Öl"), "ärger-über-öl");
        assert_eq!(slug("हिन्दी लेख"), "हिन्दी-लेख");
        assert_eq!(slug("Don't panic"), "dont-panic");
    }

    #[test]
    fn composed_and_decomposed_text_give_one_slug() {
        let composed = "한글 é";
        let decomposed: String = composed.nfd().collect();
        assert_ne!(composed, decomposed);
        assert_eq!(slug(composed), slug(&decomposed));
    }

    #[test]
    fn a_text_without_letters_has_no_slug() {
        assert_eq!(Slug::parse(" !?/.. "), Err(Empty));
        assert_eq!(Slug::of_title("???", "post").as_str(), "post");
    }

    #[test]
    fn a_long_title_is_cut_without_a_trailing_hyphen() {
        let cut = slug(&"ab ".repeat(100));
        assert!(cut.chars().count() <= MAX_CHARS && !cut.ends_with('-'), "{cut}");
        let long = Slug::parse(&"ㄱ".repeat(200)).unwrap();
        assert_eq!(long.numbered(12).to_string(), format!("{}-12", "ㄱ".repeat(MAX_CHARS - 3)));
        let gap = Slug::parse(&format!("{} tail", "a".repeat(MAX_CHARS - 3))).unwrap();
        assert_eq!(gap.numbered(2).to_string(), format!("{}-2", "a".repeat(MAX_CHARS - 3)));
    }

    proptest! {
        #[test]
        fn a_slug_is_its_own_slug_and_safe_in_an_address(text in any::<String>(), number in prop::option::of(2..=u32::MAX)) {
            if let Ok(first) = Slug::parse(&text).map(|slug| number.map_or(slug.clone(), |number| slug.numbered(number))) {
                prop_assert_eq!(&Slug::parse(first.as_str()).unwrap(), &first);
                prop_assert!(first.as_str().chars().all(|c| c == '-' || c.is_alphanumeric() || is_combining_mark(c)));
                prop_assert!(!first.as_str().starts_with('-') && !first.as_str().ends_with('-') && !first.as_str().contains("--"));
                prop_assert!(first.as_str().chars().count() <= MAX_CHARS);
            }
        }
    }
}
