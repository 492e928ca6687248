//! What the project's chores start, for those tests too that break it: servers of their own, and outside programs. And what they
//! share with the programs of `e2e` that they run.

pub mod bench;
pub mod faults;
pub mod postgres;
pub mod redis;
pub mod tool;
