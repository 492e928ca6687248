use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::Reason;

/// One field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, as a path of JSON names: `post.tags[3]`.
    pub field: String,
    /// What the rule asks for, in a sentence fit for a person.
    pub description: String,
}

/// A refusal: what the client is told, and apart from it what caused it.
///
/// As an error it displays its public text; [`Error::source`] is the cause.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    reason: Reason,
    text: Option<String>,
    violations: Vec<Violation>,
    metadata: BTreeMap<String, String>,
    retry_delay: Option<Duration>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A refusal whose text is the reason's title.
    pub fn new(reason: Reason) -> Self {
        Self(Box::new(Parts {
            reason,
            text: None,
            violations: Vec::new(),
            metadata: BTreeMap::new(),
            retry_delay: None,
            cause: None,
        }))
    }

    /// Replaces the public text. It must not carry internals.
    #[must_use]
    pub fn message(mut self, text: impl Into<String>) -> Self {
        self.0.text = Some(text.into());
        self
    }

    /// Adds a field that breaks a rule.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.0.violations.push(Violation { field: field.into(), description: description.into() });
        self
    }

    /// Adds fields that break rules.
    #[must_use]
    pub fn violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations.extend(violations);
        self
    }

    /// Adds a fact that a program can read, such as the `scope` that is missing. It is public.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.metadata.insert(key.into(), value.into());
        self
    }

    /// Says how long to wait before the call can succeed.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_delay = Some(delay);
        self
    }

    /// Keeps the internal cause, for the log alone.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Why the call was refused.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The public text: the message, or the reason's title.
    pub fn text(&self) -> &str {
        self.0.text.as_deref().unwrap_or_else(|| self.0.reason.title())
    }

    /// The fields that break rules.
    pub fn violation_list(&self) -> &[Violation] {
        &self.0.violations
    }

    /// Facts that a program can read, sorted by key.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// How long to wait before the call can succeed.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_delay
    }

    /// The internal cause.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}
