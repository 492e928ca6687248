use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use status::{Problem, Reason};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a client is told to wait before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, is starting, or its cluster has no node for the key.
    #[error("Redis is not available")]
    Unavailable(#[source] RedisError),
    /// It did not answer in time. Whether the command was carried out is not known.
    #[error("Redis did not answer in time")]
    Timeout,
    /// Its memory is full, and it takes no command that needs more.
    #[error("Redis has no memory left")]
    Full(#[source] RedisError),
    /// The settings are not usable.
    #[error("the settings of Redis are not valid")]
    Settings(#[source] RedisError),
    /// It refused the command; [`Error::code`] says how.
    #[error("Redis refused a command")]
    Refused(#[source] RedisError),
}

impl Error {
    /// The first word of Redis' refusal, such as `NOGROUP`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unavailable(error) | Self::Full(error) | Self::Refused(error) => error.code(),
            Self::Timeout | Self::Settings(_) => None,
        }
    }

    /// Whether the same may work later, over another connection.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout)
    }

    /// Every [`Error::kind`].
    pub(crate) const KINDS: [&str; 5] = ["unavailable", "timeout", "full", "settings", "refused"];

    /// The label of metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::Full(_) => "full",
            Self::Settings(_) => "settings",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let passes = |kind| {
            matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            )
        };
        match error.kind() {
            // The driver's own limit is the same as ours: either may come first.
            _ if error.is_timeout() => Self::Timeout,
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Self::Unavailable(error),
            ErrorKind::Server(kind) if passes(kind) => Self::Unavailable(error),
            ErrorKind::InvalidClientConfig => Self::Settings(error),
            // Inside a script the refusal is the script's, with the word somewhere in its text.
            _ if error.code() == Some("OOM") || error.to_string().contains("OOM ") => Self::Full(error),
            _ if error.is_connection_dropped() => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::Timeout | Error::Full(_) => {
                Self::new(Reason::Unavailable).retry_after(RETRY).because(error)
            }
            Error::Settings(_) | Error::Refused(_) => Self::new(Reason::Internal).because(error),
        }
    }
}
