//! Views: counted in memory, written together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

    /// All that waits, by posts. It goes on waiting until it is [removed](Self::remove).
    pub fn waiting(&self) -> Vec<(PostId, i64)> {
        self.lock().iter().map(|(post, count)| (*post, *count)).collect()
    }

    /// Takes off what was written. What came since waits on.
    pub fn remove(&self, written: &[(PostId, i64)]) {
        let mut waiting = self.lock();
        for (post, count) in written {
            if let Entry::Occupied(mut entry) = waiting.entry(*post) {
                *entry.get_mut() -= count;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PostId, i64>> {
        // Counts are whole at every moment: a panic elsewhere leaves none half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ids::Source;

    use super::*;

    #[test]
    fn each_view_waits_until_it_was_written() {
        let buffer = Buffer::default();
        let mut posts: [PostId; 2] = std::array::from_fn(|_| Source::system().id());
        posts.sort_unstable();
        for post in [posts[0], posts[1], posts[0]] {
            buffer.record(post).unwrap();
        }
        let waiting = || BTreeMap::from_iter(buffer.waiting());
        let written = buffer.waiting();
        assert_eq!(waiting(), BTreeMap::from([(posts[0], 2), (posts[1], 1)]));
        buffer.record(posts[1]).unwrap();
        assert_eq!(waiting(), BTreeMap::from([(posts[0], 2), (posts[1], 2)]), "nothing is lost while it is written");
        buffer.remove(&written);
        assert_eq!(waiting(), BTreeMap::from([(posts[1], 1)]));
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
        let waiting = buffer.waiting();
        assert_eq!(waiting.len(), CAPACITY);
        buffer.remove(&waiting);
        assert_eq!(buffer.record(source.id()), Ok(()));
    }
}
