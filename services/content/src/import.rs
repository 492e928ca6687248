//! Imports: posts that were published elsewhere.

use aws_lc_rs::digest;
use ids::Timestamp;

use crate::alias::Alias;
use crate::language::Language;
use crate::tag;

/// A post as its source describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Names the post at its source, for ever.
    pub source_id: String,
    pub title: String,
    pub markdown: String,
    /// Who is named as the author.
    pub byline: String,
    pub publish_time: Timestamp,
    /// The name of a category; `None` leaves the post without one.
    pub category: Option<String>,
    pub tags: Vec<tag::Name>,
    pub aliases: Vec<Alias>,
    /// The wished slug; empty makes one from the title.
    pub slug: String,
    pub language: Option<Language>,
}

/// What was imported, in 32 bytes (SHA-256): the same hash means that nothing has changed at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Import {
    /// The hash of all that the source said.
    pub fn hash(&self) -> Hash {
        let mut context = digest::Context::new(&digest::SHA256);
        // Each part goes with its length, so that moving text from one field to the next changes the hash.
        let mut part = |text: &str| {
            context.update(&text.len().to_be_bytes());
            context.update(text.as_bytes());
        };
        for text in [&self.title, &self.markdown, &self.byline, &self.slug, &self.publish_time.to_string()] {
            part(text);
        }
        part(self.category.as_deref().unwrap_or_default());
        part(self.language.as_ref().map_or("", Language::as_str));
        part(&self.tags.len().to_string());
        self.tags.iter().for_each(|tag| part(tag.as_str()));
        self.aliases.iter().for_each(|alias| part(alias.as_str()));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Hash(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts_and_so_does_where_it_ends() {
        let import = Import {
            source_id: "a".to_owned(),
            title: "ab".to_owned(),
            markdown: "c".to_owned(),
            byline: String::new(),
            publish_time: Timestamp::EPOCH,
            category: None,
            tags: Vec::new(),
            aliases: Vec::new(),
            slug: String::new(),
            language: None,
        };
        let tag = tag::Name::parse("x").unwrap();
        let others = [
            Import { title: "a".to_owned(), markdown: "bc".to_owned(), ..import.clone() },
            Import { byline: "x".to_owned(), ..import.clone() },
            Import { publish_time: Timestamp::from_seconds(1), ..import.clone() },
            Import { category: Some("x".to_owned()), ..import.clone() },
            Import { tags: vec![tag], ..import.clone() },
            Import { aliases: vec![Alias::parse("x").unwrap()], ..import.clone() },
            Import { slug: "x".to_owned(), ..import.clone() },
            Import { language: Language::parse("ko"), ..import.clone() },
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(other.hash(), import.hash(), "{at}");
            assert!(others[..at].iter().all(|earlier| earlier.hash() != other.hash()), "{at}");
        }
        assert_eq!(Import { source_id: "b".to_owned(), ..import.clone() }.hash(), import.hash());
    }
}
