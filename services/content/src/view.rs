//! Views: counted in memory, written together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ids::PostId;

/// Posts whose views wait at the same time. One more, and they are written before it is counted.
pub const CAPACITY: usize = 10_000;

/// Views that were counted and not yet written.
#[derive(Debug, Default)]
pub struct Buffer {
    waiting: Mutex<HashMap<PostId, i64>>,
}

/// The buffer has to be written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the views of {CAPACITY} posts wait to be written")]
pub struct Full;

impl Buffer {
    /// Counts one view.
    pub fn record(&self, post: PostId) -> Result<(), Full> {
        let mut waiting = self.lock();
        if waiting.len() >= CAPACITY && !waiting.contains_key(&post) {
            return Err(Full);
        }
        *waiting.entry(post).or_default() += 1;
        Ok(())
    }

    /// Takes all that waits, in the order of ids, so that two writers of the same posts never wait for each other in a circle.
    pub fn take(&self) -> Vec<(PostId, i64)> {
        let mut views: Vec<_> = std::mem::take(&mut *self.lock()).into_iter().collect();
        views.sort_unstable();
        views
    }

    /// Puts back what could not be written.
    pub fn put_back(&self, views: Vec<(PostId, i64)>) {
        let mut waiting = self.lock();
        for (post, count) in views {
            *waiting.entry(post).or_default() += count;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PostId, i64>> {
        // Counts are whole at every moment: a panic elsewhere leaves none half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ids::Source;

    #[test]
    fn each_view_counts_one_until_it_is_taken() {
        let buffer = Buffer::default();
        let mut posts: [PostId; 2] = std::array::from_fn(|_| Source::system().id());
        posts.sort_unstable();
        for post in [posts[0], posts[1], posts[0]] {
            buffer.record(post).unwrap();
        }
        let taken = buffer.take();
        assert_eq!(taken, [(posts[0], 2), (posts[1], 1)]);
        assert!(buffer.take().is_empty());
        buffer.record(posts[1]).unwrap();
        buffer.put_back(taken);
        assert_eq!(buffer.take(), [(posts[0], 2), (posts[1], 2)]);
    }

    #[test]
    fn a_full_buffer_still_counts_the_posts_it_holds() {
        let source = Source::system();
        let buffer = Buffer::default();
        let first = source.id();
        buffer.record(first).unwrap();
        while buffer.record(source.id()).is_ok() {}
        assert_eq!(buffer.record(first), Ok(()));
        assert_eq!(buffer.record(source.id()), Err(Full));
        assert_eq!(buffer.take().len(), CAPACITY);
    }
}
