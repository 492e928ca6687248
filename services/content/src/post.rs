//! Posts: their states, and what may be done to them when.

use std::time::Duration;

use ids::{CategoryId, PostId, Timestamp};

use crate::alias::Alias;
use crate::author::Author;
use crate::language::Language;
use crate::markdown::Rendered;
use crate::permit::Guarded;
use crate::slug::Slug;
use crate::{etag, tag};

/// How long a deleted post can be brought back.
pub const UNDELETE_PERIOD: Duration = Duration::from_hours(30 * 24);

/// The most bytes of Markdown.
pub const MAX_MARKDOWN: usize = 1_000_000;

/// Where a post stands between being written and being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Seen by its author and moderators.
    Draft,
    /// Becomes published at this time.
    Scheduled(Timestamp),
    /// Seen by everybody, since this time.
    Published(Timestamp),
}

impl State {
    /// When the post was or will be published.
    pub fn publish_time(self) -> Option<Timestamp> {
        match self {
            Self::Draft => None,
            Self::Scheduled(at) | Self::Published(at) => Some(at),
        }
    }

    /// Whether everybody may read the post.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Published(_))
    }
}

/// What a person writes, and what versions keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// One line.
    pub title: String,
    /// CommonMark with GitHub's extensions.
    pub markdown: String,
    /// Who is named as the author, where it is not the author; else empty.
    pub byline: String,
    /// The post's category.
    pub category: Option<CategoryId>,
    /// In the author's order, each once.
    pub tags: Vec<tag::Name>,
    /// The language, if it was said.
    pub language: Option<Language>,
}

/// A post.
#[derive(Debug, Clone)]
pub struct Post {
    /// The post's id.
    pub id: PostId,
    /// Who wrote it.
    pub author: Author,
    /// What was written last.
    pub body: Body,
    /// Rendered from the Markdown and sanitised.
    pub html: String,
    /// Its present slug.
    pub slug: Slug,
    /// Former addresses that lead to it.
    pub aliases: Vec<Alias>,
    /// Where it stands.
    pub state: State,
    /// Counts edits, from 1.
    pub version: i32,
    /// Counts changes of any kind, from 1.
    pub revision: i64,
    /// When it was first written.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
    /// When it was deleted, while it can be brought back.
    pub delete_time: Option<Timestamp>,
}

/// What a change was, for those who hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Published,
    Unpublished,
    Deleted,
    Undeleted,
}

/// What a post's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Publishing what is published.
    #[error("the post is published already")]
    AlreadyPublished,
}

impl Post {
    /// A draft, as it is first written.
    pub fn draft(id: PostId, author: Author, body: Body, rendered: &Rendered, slug: Slug, now: Timestamp) -> Self {
        Self {
            id,
            author,
            body,
            html: rendered.html.clone(),
            slug,
            aliases: Vec::new(),
            state: State::Draft,
            version: 1,
            revision: 1,
            create_time: now,
            update_time: now,
            delete_time: None,
        }
    }

    /// The present etag. The author's name is shown with the post.
    pub fn etag(&self) -> String {
        etag::beside(self.revision, self.author.display_name.as_deref().unwrap_or_default())
    }

    /// What the permission rules look at.
    pub fn guarded(&self) -> Guarded {
        Guarded {
            author: self.author.id,
            author_suspended: self.author.suspended,
            published: self.state.is_published(),
        }
    }

    /// Replaces what is written, as a new version.
    pub fn edit(&mut self, body: Body, rendered: Option<&Rendered>, now: Timestamp) -> Change {
        if let Some(rendered) = rendered {
            self.html.clone_from(&rendered.html);
        }
        self.body = body;
        self.version += 1;
        self.touch(now);
        Change::Updated
    }

    /// Publishes the post at `at`, or now when that is absent or past. `None`: it was only scheduled.
    pub fn publish(&mut self, at: Option<Timestamp>, now: Timestamp) -> Result<Option<Change>, Error> {
        if self.state.is_published() {
            return Err(Error::AlreadyPublished);
        }
        self.touch(now);
        if let Some(at) = at.filter(|at| *at > now) {
            self.state = State::Scheduled(at);
            return Ok(None);
        }
        self.state = State::Published(now);
        Ok(Some(Change::Published))
    }

    /// Gives the post the time of its publication, as an import does: one that has been publishes it as of then, one to come
    /// schedules it. `None`: nobody needs to hear of it.
    pub fn publish_as_of(&mut self, time: Timestamp, now: Timestamp) -> Option<Change> {
        let state = if time > now { State::Scheduled(time) } else { State::Published(time) };
        if self.state == state {
            return None;
        }
        let change = match (self.state.is_published(), state.is_published()) {
            (false, true) => Some(Change::Published),
            (true, false) => Some(Change::Unpublished),
            (true, true) => Some(Change::Updated),
            (false, false) => None,
        };
        self.touch(now);
        self.state = state;
        change
    }

    /// Makes the post a draft again. `None`: nobody needs to hear of it, for it was not published.
    pub fn unpublish(&mut self, now: Timestamp) -> Option<Change> {
        if self.state == State::Draft {
            return None;
        }
        let was_published = self.state.is_published();
        self.touch(now);
        self.state = State::Draft;
        was_published.then_some(Change::Unpublished)
    }

    /// Deletes the post; for [`UNDELETE_PERIOD`] it can be brought back. `None`: it was deleted already.
    pub fn delete(&mut self, now: Timestamp) -> Option<Change> {
        if self.delete_time.is_some() {
            return None;
        }
        self.touch(now);
        self.delete_time = Some(now);
        Some(Change::Deleted)
    }

    /// Brings the post back in the state it had. `None`: it was not deleted.
    pub fn undelete(&mut self, now: Timestamp) -> Option<Change> {
        self.delete_time?;
        self.touch(now);
        self.delete_time = None;
        Some(Change::Undeleted)
    }

    /// Takes another slug.
    pub fn rename(&mut self, slug: Slug) {
        self.slug = slug;
    }

    fn touch(&mut self, now: Timestamp) {
        self.revision += 1;
        // A clock that was set back must not make a later change look earlier.
        self.update_time = now.max(self.update_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ids::Source;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
    const LATER: Timestamp = Timestamp::from_seconds(1_000_100);

    fn draft() -> Post {
        let source = Source::system();
        let author = Author { id: source.id(), display_name: None, suspended: false };
        let body = Body {
            title: "A".to_owned(),
            markdown: String::new(),
            byline: String::new(),
            category: None,
            tags: Vec::new(),
            language: None,
        };
        Post::draft(source.id(), author, body, &Rendered::default(), Slug::of_title("A", "post"), NOW)
    }

    #[test]
    fn a_draft_is_published_now_or_at_a_time_to_come() {
        let mut post = draft();
        assert_eq!(post.publish(Some(LATER), NOW), Ok(None));
        assert_eq!(post.state, State::Scheduled(LATER));
        assert_eq!(post.publish(None, NOW), Ok(Some(Change::Published)));
        assert_eq!(post.state, State::Published(NOW));
        assert_eq!(post.publish(None, LATER), Err(Error::AlreadyPublished));
        assert_eq!(post.revision, 3);
    }

    #[test]
    fn a_time_that_is_past_means_now() {
        let mut post = draft();
        assert_eq!(post.publish(Some(NOW), LATER), Ok(Some(Change::Published)));
        assert_eq!(post.state, State::Published(LATER));
    }

    #[test]
    fn an_import_is_published_as_of_its_time_or_scheduled_for_it() {
        let mut post = draft();
        assert_eq!(post.publish_as_of(LATER, NOW), None);
        assert_eq!((post.state, post.revision), (State::Scheduled(LATER), 2));
        assert_eq!(post.publish_as_of(LATER, NOW), None);
        assert_eq!(post.revision, 2, "nothing has changed");
        assert_eq!(post.publish_as_of(NOW, NOW), Some(Change::Published));
        assert_eq!(post.publish_as_of(Timestamp::EPOCH, NOW), Some(Change::Updated));
        assert_eq!(post.state, State::Published(Timestamp::EPOCH));
        assert_eq!(post.publish_as_of(LATER, NOW), Some(Change::Unpublished));
    }

    #[test]
    fn unpublishing_is_heard_of_once_and_only_if_it_was_published() {
        let mut post = draft();
        assert_eq!(post.unpublish(NOW), None);
        assert_eq!(post.revision, 1);
        post.publish(Some(LATER), NOW).unwrap();
        assert_eq!(post.unpublish(NOW), None);
        assert_eq!(post.state, State::Draft);
        post.publish(None, NOW).unwrap();
        assert_eq!(post.unpublish(NOW), Some(Change::Unpublished));
    }

    #[test]
    fn a_deleted_post_comes_back_in_the_state_it_had() {
        let mut post = draft();
        post.publish(None, NOW).unwrap();
        assert_eq!(post.delete(LATER), Some(Change::Deleted));
        assert_eq!(post.delete(LATER), None);
        assert_eq!(post.undelete(LATER), Some(Change::Undeleted));
        assert_eq!(post.undelete(LATER), None);
        assert_eq!(post.state, State::Published(NOW));
        assert_eq!(post.revision, 4);
    }

    #[test]
    fn every_change_makes_the_etag_stale_and_only_edits_make_versions() {
        let mut post = draft();
        let first = post.etag();
        post.publish(None, NOW).unwrap();
        assert_ne!(post.etag(), first);
        assert_eq!(post.version, 1);
        let body = post.body.clone();
        assert_eq!(post.edit(body, None, Timestamp::EPOCH), Change::Updated);
        assert_eq!((post.version, post.update_time), (2, NOW));
    }
}
