//! Names of categories and tags.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

/// A name with single spaces, in NFC. That it can be seen, and is what it seems to be, is for the contract to check.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Name(String);

/// The name is blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name must not be blank")]
pub struct Blank;

impl Name {
    /// The name in NFC, its white space reduced to single spaces.
    pub fn parse(text: &str) -> Result<Self, Blank> {
        let name: String = text.split_whitespace().collect::<Vec<_>>().join(" ").nfc().collect();
        if name.is_empty() { Err(Blank) } else { Ok(Self(name)) }
    }

    /// What names have in common that count as the same: NFKC, lower case.
    pub fn key(&self) -> String {
        self.0.nfkc().flat_map(char::to_lowercase).nfkc().collect()
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that was parsed before it was stored.
impl From<String> for Name {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_becomes_single_spaces() {
        assert_eq!(Name::parse(" 러스트 \u{3000}\t 언어\n").unwrap().as_str(), "러스트 언어");
        assert_eq!(Name::parse(" \n\u{3000}"), Err(Blank));
    }

    #[test]
    fn names_that_only_look_different_have_one_key() {
        let key = |text: &str| Name::parse(text).unwrap().key();
        assert_eq!(key("Rust  LANG"), key("rust lang"));
        assert_eq!(key("ＲＵＳＴ"), key("rust"));
        let decomposed: String = "한글".nfd().collect();
        assert_eq!(key("한글"), key(&decomposed));
        assert_ne!(key("rust"), key("rüst"));
    }
}
