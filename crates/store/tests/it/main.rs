//! The store through its public surface, on both databases.

mod migrate;
mod page;
mod pool;
mod post;
mod query;
mod request;
