//! Who may do what to which resource: the one table behind every `resource_rule` of this service's contract.
//!
//! A resource that its asker may not even see is missing to them, so that a refusal tells nobody that it exists.

use contracts::Role;
use ids::UserId;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Viewer {
    /// The person.
    pub id: UserId,
    /// The highest of the person's roles.
    pub role: Role,
}

/// What the rules about posts look at.
#[derive(Debug, Clone, Copy)]
pub struct Guarded {
    /// Who wrote the post.
    pub author: UserId,
    /// Whether the author is shut out.
    pub author_suspended: bool,
    /// Whether everybody may read it.
    pub published: bool,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The asker may not know that it exists.
    #[error("there is no such resource")]
    Missing,
    /// The asker may see it, no more.
    #[error("the rule {0} does not let the asker do this")]
    Forbidden(&'static str),
}

/// A rule about posts, under the name that the contract gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostRule {
    /// Published posts for everybody, others for their author and moderators; a suspended author's for moderators alone.
    Visible,
    /// The author alone.
    Author,
    /// The author and moderators.
    AuthorOrModerator,
}

impl PostRule {
    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Visible => "post.visible",
            Self::Author => "post.author",
            Self::AuthorOrModerator => "post.author_or_moderator",
        }
    }

    /// Whether `viewer` passes the rule for `post`.
    pub fn check(self, viewer: Option<Viewer>, post: Guarded) -> Result<(), Refusal> {
        let moderator = viewer.is_some_and(|viewer| viewer.role >= Role::Moderator);
        let author = viewer.is_some_and(|viewer| viewer.id == post.author);
        let visible = moderator || !post.author_suspended && (author || post.published);
        if !visible {
            return Err(Refusal::Missing);
        }
        let allowed = match self {
            Self::Visible => true,
            Self::Author => author,
            Self::AuthorOrModerator => author || moderator,
        };
        if allowed { Ok(()) } else { Err(Refusal::Forbidden(self.name())) }
    }
}

/// The rule `portfolio.owner`: a portfolio is changed by the person it is about.
pub const PORTFOLIO_OWNER: &str = "portfolio.owner";

/// Whether `viewer` passes [`PORTFOLIO_OWNER`] for the portfolio of `owner`. Portfolios are public: nobody is told that it is missing.
pub fn portfolio_owner(viewer: Viewer, owner: UserId) -> Result<(), Refusal> {
    if viewer.id == owner { Ok(()) } else { Err(Refusal::Forbidden(PORTFOLIO_OWNER)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn person(number: u8, role: Role) -> Viewer {
        Viewer { id: format!("00000000-0000-7000-8000-0000000000{number:02}").parse().unwrap(), role }
    }

    #[test]
    fn every_rule_of_the_contract_is_in_the_table_and_no_other() {
        let contract: BTreeSet<_> = contracts::METHODS
            .iter()
            .filter(|method| method.owner == "content")
            .filter_map(|method| method.access.resource_rule)
            .collect();
        let posts = [PostRule::Visible, PostRule::Author, PostRule::AuthorOrModerator];
        let table: BTreeSet<_> = posts.map(PostRule::name).into_iter().chain([PORTFOLIO_OWNER]).collect();
        assert_eq!(contract, table);
    }

    #[test]
    fn each_rule_decides_as_written() {
        use Refusal::{Forbidden, Missing};
        let author = person(1, Role::Member);
        let stranger = Some(person(2, Role::Member));
        let operator = Some(person(3, Role::Operator));
        let moderator = Some(person(4, Role::Moderator));
        let draft = Guarded { author: author.id, author_suspended: false, published: false };
        let published = Guarded { published: true, ..draft };
        let hidden = Guarded { author_suspended: true, ..published };
        let author = Some(author);

        let table = [
            (PostRule::Visible, None, published, Ok(())),
            (PostRule::Visible, stranger, published, Ok(())),
            (PostRule::Visible, None, draft, Err(Missing)),
            (PostRule::Visible, stranger, draft, Err(Missing)),
            (PostRule::Visible, author, draft, Ok(())),
            (PostRule::Visible, moderator, draft, Ok(())),
            (PostRule::Visible, operator, draft, Ok(())),
            (PostRule::Visible, None, hidden, Err(Missing)),
            (PostRule::Visible, author, hidden, Err(Missing)),
            (PostRule::Visible, moderator, hidden, Ok(())),
            (PostRule::Author, author, draft, Ok(())),
            (PostRule::Author, author, published, Ok(())),
            (PostRule::Author, stranger, published, Err(Forbidden(PostRule::Author.name()))),
            (PostRule::Author, moderator, published, Err(Forbidden(PostRule::Author.name()))),
            (PostRule::Author, moderator, draft, Err(Forbidden(PostRule::Author.name()))),
            (PostRule::Author, stranger, draft, Err(Missing)),
            (PostRule::Author, None, published, Err(Forbidden(PostRule::Author.name()))),
            (PostRule::Author, author, hidden, Err(Missing)),
            (PostRule::AuthorOrModerator, author, draft, Ok(())),
            (PostRule::AuthorOrModerator, moderator, draft, Ok(())),
            (PostRule::AuthorOrModerator, moderator, hidden, Ok(())),
            (PostRule::AuthorOrModerator, stranger, draft, Err(Missing)),
            (PostRule::AuthorOrModerator, stranger, published, Err(Forbidden(PostRule::AuthorOrModerator.name()))),
            (PostRule::AuthorOrModerator, None, published, Err(Forbidden(PostRule::AuthorOrModerator.name()))),
            (PostRule::AuthorOrModerator, author, hidden, Err(Missing)),
        ];
        for (rule, viewer, post, outcome) in table {
            assert_eq!(rule.check(viewer, post), outcome, "{} for {viewer:?} of {post:?}", rule.name());
        }
    }

    #[test]
    fn a_portfolio_is_changed_by_its_owner_alone() {
        let owner = person(1, Role::Member);
        assert_eq!(portfolio_owner(owner, owner.id), Ok(()));
        assert_eq!(portfolio_owner(person(2, Role::Admin), owner.id), Err(Refusal::Forbidden(PORTFOLIO_OWNER)));
    }
}
