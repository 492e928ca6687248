//! Former addresses of posts.

use std::fmt;

use percent_encoding::percent_decode_str;
use unicode_normalization::UnicodeNormalization;

/// The most characters of an alias.
pub const MAX_CHARS: usize = 400;

/// A path that once led to a post, such as `2020/06/10/x.html`: without slashes at its ends, percent-decoded, in NFC, so that
/// every way to write one address finds the same post.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(String);

/// Why a path is no alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("an alias needs at least one character beside slashes")]
    Empty,
    #[error("an alias has at most {MAX_CHARS} characters")]
    TooLong,
    #[error("an alias has no control characters")]
    Control,
}

impl Alias {
    /// The alias that a path stands for.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let mut path = path.to_owned();
        // What was escaped twice is the same address, so that an alias is its own alias.
        loop {
            let plain = normalise(&path);
            if plain == path {
                break;
            }
            path = plain;
        }
        if path.is_empty() {
            return Err(Error::Empty);
        }
        if path.chars().any(char::is_control) {
            return Err(Error::Control);
        }
        if path.chars().count() > MAX_CHARS {
            return Err(Error::TooLong);
        }
        Ok(Self(path))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn normalise(path: &str) -> String {
    // Bytes that are no UTF-8 once decoded were meant as they stand.
    let decoded = percent_decode_str(path).decode_utf8().unwrap_or(path.into());
    decoded.trim().trim_matches('/').nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_write_an_address_is_one_alias() {
        for path in [
            "2020/한글.html",
            "/2020/한글.html",
            "2020/%ED%95%9C%EA%B8%80.html",
            "/2020/한글.html/",
            "2020%2F한글.html",
            "2020/%25ED%2595%259C%EA%B8%80.html",
            " /%20/2020/한글.html",
        ] {
            assert_eq!(Alias::parse(path).unwrap().as_str(), "2020/한글.html", "{path}");
        }
    }

    #[test]
    fn a_stray_percent_sign_stands_for_itself() {
        assert_eq!(Alias::parse("100%").unwrap().as_str(), "100%");
        assert_eq!(Alias::parse("a%FFb").unwrap().as_str(), "a%FFb");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(Alias::parse("//"), Err(Error::Empty));
        assert_eq!(Alias::parse("a%0Ab"), Err(Error::Control));
        assert_eq!(Alias::parse(&"x".repeat(401)), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn an_alias_is_its_own_alias(parts in prop::collection::vec(
            prop_oneof![Just("%"), Just("25"), Just("2F"), Just("41"), Just("/"), Just(" "), Just("a"), Just("%E1%84%92"), Just("\u{1161}")],
            0..20,
        )) {
            if let Ok(first) = Alias::parse(&parts.concat()) {
                prop_assert_eq!(&Alias::parse(first.as_str()).unwrap(), &first);
            }
        }
    }
}
