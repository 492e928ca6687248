//! Portfolios: what people say of their work.

use ids::{Timestamp, UserId};

use crate::revision::Revision;

/// A person's portfolio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portfolio {
    /// Whose it is.
    pub owner: UserId,
    /// One line.
    pub headline: String,
    /// CommonMark with GitHub's extensions.
    pub markdown: String,
    /// Rendered from the Markdown and sanitised.
    pub html: String,
    /// Absolute addresses, in the owner's order.
    pub links: Vec<Link>,
    /// How often it has changed, and when.
    pub revision: Revision,
}

/// The absolute address of something on the web.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Link(String);

/// The address leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the http or https address of a host")]
pub struct NoHost;

impl Link {
    /// Of a URI (RFC 3986), as the contract has checked it: one that names a host.
    pub fn parse(uri: &str) -> Result<Self, NoHost> {
        let host = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://")).ok_or(NoHost)?;
        if host.is_empty() || host.starts_with(['/', '?', '#', ':', '@']) {
            Err(NoHost)
        } else {
            Ok(Self(uri.to_owned()))
        }
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.0
    }
}

impl Portfolio {
    /// The portfolio of somebody who never wrote one.
    pub fn empty(owner: UserId, now: Timestamp) -> Self {
        Self {
            owner,
            headline: String::new(),
            markdown: String::new(),
            html: String::new(),
            links: Vec::new(),
            revision: Revision::none(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_a_host() {
        for uri in ["https://example.org", "http://[::1]:8080/x?y#z"] {
            assert_eq!(Link::parse(uri).map(String::from).as_deref(), Ok(uri));
        }
        for uri in
            ["https://", "https:///path", "http://?q", "https://#f", "https://:80", "ftp://example.org", "example.org"]
        {
            assert_eq!(Link::parse(uri), Err(NoHost), "{uri}");
        }
    }
}
