//! The tables of content, each beside the values that its rows become. Functions take an open connection or transaction: what
//! belongs together commits together.

pub mod alias;
pub mod author;
pub mod category;
pub mod feed;
pub mod listing;
pub mod portfolio;
pub mod post;
pub mod resume;
mod revision;
pub mod search;
pub mod slug;
pub mod source;
pub mod statistics;
pub mod tag;
pub mod version;

/// Stands between the parts of a list that a query joins into one text. No part contains it.
const SEPARATOR: char = '\n';

fn split(joined: Option<&str>) -> impl Iterator<Item = &str> {
    joined.into_iter().flat_map(|joined| joined.split(SEPARATOR))
}
