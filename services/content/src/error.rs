//! What can go wrong in this service, and what a client is told of it.

use status::{Problem, Reason};

use crate::permit::Refusal;
use crate::{alias, category, etag, markdown, portfolio, post, resume, slug, tag};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or the caller may not know of it. The name says what: `post`.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// The caller may see the resource and no more, by the rule of this name.
    #[error("the rule {0} does not let the caller do this")]
    Forbidden(&'static str),
    /// A field says what cannot be.
    #[error("{field}: {description}")]
    Field {
        /// The field's JSON path: `post.slug`.
        field: String,
        /// What is wrong, fit for a person.
        description: String,
    },
    /// The caller's etag is stale.
    #[error(transparent)]
    Stale(#[from] etag::Stale),
    /// The slug that was asked for belongs to another.
    #[error("the slug is taken")]
    SlugTaken,
    /// The name that was asked for belongs to another.
    #[error("the name is taken")]
    NameTaken,
    /// An alias leads to another post.
    #[error("the alias is taken")]
    AliasTaken,
    /// The post's state does not allow it.
    #[error(transparent)]
    State(#[from] post::Error),
    /// The tree of categories does not allow it.
    #[error(transparent)]
    Category(#[from] category::Error),
    /// A refusal that has its reason with it.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The outbox.
    #[error(transparent)]
    Event(#[from] events::Error),
    /// A defect of ours.
    #[error("{0}")]
    Defect(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A field that says what cannot be.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Field { field: field.into(), description: description.into() }
    }

    /// A refusal by a rule about one resource, of which the name says what it is.
    pub fn refusal(refusal: Refusal, noun: &'static str) -> Self {
        match refusal {
            Refusal::Missing => Self::Missing(noun),
            Refusal::Forbidden(rule) => Self::Forbidden(rule),
        }
    }
}

/// Gives a parser's refusal the field that it is about.
pub trait InField<T> {
    /// The value, or the refusal of `field`.
    fn in_field(self, field: impl Into<String>) -> Result<T>;
}

/// Refusals whose text is fit for a client.
trait Readable: std::fmt::Display {}
impl Readable for slug::Empty {}
impl Readable for alias::Error {}
impl Readable for tag::Blank {}
impl Readable for markdown::Error {}
impl Readable for portfolio::NoHost {}
impl Readable for resume::NoMonth {}
impl Readable for resume::EndsEarly {}
impl Readable for ids::OutOfRange {}

impl<T, E: Readable> InField<T> for Result<T, E> {
    fn in_field(self, field: impl Into<String>) -> Result<T> {
        self.map_err(|refusal| Error::field(field, refusal.to_string()))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Missing(noun) => Self::new(Reason::NotFound).message(format!("There is no such {noun}")),
            Error::Forbidden(rule) => Self::new(Reason::ResourceForbidden).metadata("rule", rule),
            Error::Field { field, description } => Self::new(Reason::InvalidFields).violation(field, description),
            Error::Stale(_) => Self::new(Reason::EtagMismatch),
            Error::SlugTaken => Self::new(Reason::SlugTaken),
            Error::NameTaken => Self::new(Reason::NameTaken),
            Error::AliasTaken => Self::new(Reason::AliasTaken),
            Error::State(post::Error::AlreadyPublished) => {
                Self::new(Reason::StateConflict).message("The post is published already")
            }
            Error::Category(error) => error.into(),
            Error::Refused(problem) => problem,
            Error::Store(error) => error.into(),
            Error::Event(error) => error.into(),
            Error::Defect(..) => Self::new(Reason::Internal).because(error),
        }
    }
}

impl From<category::Error> for Problem {
    fn from(error: category::Error) -> Self {
        use category::Error::{Cycle, NameTaken, NoParent, NotEmpty, SlugTaken, TooDeep, TooLong, TooMany};
        match error {
            NoParent => Self::new(Reason::InvalidFields).violation("parentId", error.to_string()),
            Cycle => Self::new(Reason::TreeCycle),
            TooMany | TooDeep | TooLong => {
                Self::new(Reason::LimitReached).message(format!("The most is reached: {error}"))
            }
            NameTaken => Self::new(Reason::NameTaken),
            SlugTaken => Self::new(Reason::SlugTaken),
            NotEmpty => Self::new(Reason::NotEmpty),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Problem, Reason};

    #[test]
    fn a_database_that_goes_away_is_unavailable_whichever_table_was_being_written() {
        let gone = || store::Error::from(sqlx::Error::PoolClosed);
        for error in [Error::from(gone()), Error::from(events::Error::from(gone()))] {
            let problem = Problem::from(error);
            assert_eq!(problem.reason(), Reason::Unavailable);
            assert!(problem.retry_delay().is_some());
        }
    }
}
