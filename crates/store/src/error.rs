//! What can go wrong with a database.

use sqlx::error::{DatabaseError, ErrorKind};
use status::{Problem, Reason};

use crate::constraint;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the database did not do what it was asked. The text is for logs; a client sees what `Problem::from` makes of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `fetch_one!` or `fetch_scalar!` found no row.
    #[error("the row is not there")]
    NotFound,
    /// A constraint refused the change. `name` is `<table>_<columns>_key`, `_fkey`, `_check`, `_not_null` or `<table>_pkey`, the same
    /// on both databases; empty for a foreign key on SQLite, which does not say which one it was.
    #[error("the constraint \"{name}\" refused the change")]
    Constraint {
        /// The constraint's name, as PostgreSQL would give it.
        name: String,
        #[source]
        source: sqlx::Error,
    },
    /// No connection came free in time, or the database cannot be reached.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The deadline of the call ran out; the statement was stopped.
    #[error("the deadline passed during a database call")]
    Deadline,
    /// Two transactions got into each other's way and this one lost. The whole transaction can be tried again.
    #[error("the transaction lost against another one")]
    Conflict(#[source] sqlx::Error),
    /// A statement of this transaction had failed, so that it cannot be committed.
    #[error("the transaction cannot be committed: one of its statements failed")]
    Aborted,
    /// A row holds what no version of the program can have written.
    #[error("a row cannot be read: {0}")]
    Corrupt(String),
    /// The schema could not be brought up to date.
    #[error("the migrations \"{set}\" failed")]
    Migration {
        /// The set of migrations.
        set: &'static str,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// Another process uses the SQLite file.
    #[error("the database {path} is in use by another process (its lock file is {path}.lock)")]
    InUse {
        /// The database's file.
        path: String,
    },
    /// The URL is neither `postgres://…` nor `sqlite:<path>`, or its file cannot be opened.
    #[error("the database cannot be opened: {reason}")]
    Open {
        /// What is wrong, without the URL's password.
        reason: String,
    },
    /// The database refused the statement: a defect of ours.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
}

impl Error {
    /// A row that cannot be turned into the value of the domain that it stands for.
    pub fn corrupt(reason: impl std::fmt::Display) -> Self {
        Self::Corrupt(reason.to_string())
    }

    /// The name of the constraint that refused the change.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Database(cause) => match failure(cause.as_ref()) {
                Failure::Constraint(name) => Self::Constraint { name, source: error },
                Failure::Stopped => Self::Deadline,
                Failure::Lost => Self::Conflict(error),
                Failure::Unavailable => Self::Unavailable(error),
                Failure::Other => Self::Statement(error),
            },
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Statement(error),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::NotFound => Reason::NotFound,
            Error::Deadline => Reason::DeadlineExceeded,
            Error::Unavailable(_) | Error::Conflict(_) => {
                return Self::new(Reason::Unavailable).retry_after(std::time::Duration::from_secs(1)).because(error);
            }
            _ => Reason::Internal,
        };
        Self::new(reason).because(error)
    }
}

enum Failure {
    Constraint(String),
    Stopped,
    Lost,
    Unavailable,
    Other,
}

/// By SQLSTATE on PostgreSQL, by the extended result code on SQLite (decimal, no SQLSTATE has fewer than five characters).
fn failure(error: &dyn DatabaseError) -> Failure {
    if !matches!(error.kind(), ErrorKind::Other) {
        return Failure::Constraint(constraint::name(error));
    }
    let code = error.code().unwrap_or_default();
    if code.len() < 5 {
        // The primary result code is the lowest byte: https://www.sqlite.org/rescode.html
        return match code.parse::<u32>().map(|code| code & 0xff) {
            Ok(9) => Failure::Stopped,
            Ok(5 | 6) => Failure::Lost,
            Ok(10 | 13 | 14) => Failure::Unavailable,
            _ => Failure::Other,
        };
    }
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    match code.as_ref() {
        "57014" => Failure::Stopped,
        "40001" | "40P01" | "55P03" => Failure::Lost,
        "57P01" | "57P02" | "57P03" => Failure::Unavailable,
        code if code.starts_with("08") || code.starts_with("53") => Failure::Unavailable,
        _ => Failure::Other,
    }
}
