//! The language that a post is written in.

use std::fmt;

/// A BCP 47 tag in its customary case: `ko`, `zh-Hant`, `pt-BR`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Language(String);

impl Language {
    /// The tag in its customary case; `None` for the empty text, which says nothing of a language. The contract has checked
    /// its form.
    pub fn parse(tag: &str) -> Option<Self> {
        let parts = tag.split('-').enumerate().map(|(at, part)| match (at, part.len()) {
            (1.., 2) => part.to_ascii_uppercase(),
            (1.., 4) if part.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                part[..1].to_ascii_uppercase() + &part[1..].to_ascii_lowercase()
            }
            _ => part.to_ascii_lowercase(),
        });
        (!tag.is_empty()).then(|| Self(parts.collect::<Vec<_>>().join("-")))
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_get_their_customary_case() {
        for (given, tag) in [("KO", "ko"), ("zh-hANT-tw", "zh-Hant-TW"), ("pt-br", "pt-BR"), ("de-1996", "de-1996")] {
            assert_eq!(Language::parse(given).unwrap().as_str(), tag);
        }
        assert_eq!(Language::parse(""), None);
    }
}
