//! The names of constraints, the same on both databases.

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;

use crate::Error;

/// Turns the refusal by one constraint into an error of the caller.
pub trait OnConstraint<T> {
    /// Gives `refused` the error where the constraint `name` refused the change, and converts any other error.
    fn on_constraint<E: From<Error>>(self, name: &str, refused: impl FnOnce(Error) -> E) -> Result<T, E>;
}

impl<T> OnConstraint<T> for Result<T, Error> {
    fn on_constraint<E: From<Error>>(self, name: &str, refused: impl FnOnce(Error) -> E) -> Result<T, E> {
        self.map_err(|error| if error.constraint() == Some(name) { refused(error) } else { error.into() })
    }
}

/// The name of the constraint that `error` tells of.
pub(crate) fn name(error: &dyn DatabaseError) -> String {
    match error.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => postgres(error),
        None => sqlite(error.message(), &error.kind(), is_primary_key(error)),
    }
}

fn postgres(error: &PgDatabaseError) -> String {
    if let Some(name) = error.constraint() {
        return name.to_owned();
    }
    // A NOT NULL has no name of its own before PostgreSQL 18.
    match (error.table(), error.column()) {
        (Some(table), Some(column)) => format!("{table}_{column}_not_null"),
        _ => String::new(),
    }
}

/// `SQLITE_CONSTRAINT_PRIMARYKEY` or `SQLITE_CONSTRAINT_ROWID`.
fn is_primary_key(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code == "1555" || code == "2579")
}

/// SQLite names columns (`UNIQUE constraint failed: posts.author_id, posts.slug`), an index over an expression (`… failed: index
/// 'posts_lower_key'`) or a check (`CHECK constraint failed: posts_state_check`).
fn sqlite(message: &str, kind: &ErrorKind, primary_key: bool) -> String {
    let Some((_, subject)) = message.split_once("constraint failed: ") else {
        return String::new();
    };
    if let Some(index) = subject.strip_prefix("index '") {
        return index.trim_end_matches('\'').to_owned();
    }
    let Some((table, _)) = subject.split_once('.') else {
        return subject.to_owned();
    };
    if primary_key {
        return format!("{table}_pkey");
    }
    let columns: Vec<_> =
        subject.split(", ").map(|column| column.split_once('.').map_or(column, |(_, column)| column)).collect();
    let suffix = match kind {
        ErrorKind::NotNullViolation => "not_null",
        _ => "key",
    };
    format!("{table}_{}_{suffix}", columns.join("_"))
}
