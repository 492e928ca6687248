//! Events through the public surface, on both databases.

mod dead_letter;
mod embedded;
mod redis;
mod relay;
