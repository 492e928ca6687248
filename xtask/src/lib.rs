//! What the project's chores start, for those tests too that break it: servers of their own, and outside programs.

pub mod postgres;
pub mod redis;
pub mod tool;
