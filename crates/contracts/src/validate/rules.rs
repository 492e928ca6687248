//! The rules of `buf.validate` that the contracts use. `build/validate.rs` writes the values of these types.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::LazyLock;

use fluent_uri::Uri;
use regex::Regex;
use status::Violation;

use super::{FieldPath, report};

/// A regular expression, compiled at its first use.
pub(crate) type Pattern = LazyLock<Regex>;

/// The definition of `<input type=email>` in HTML (<https://html.spec.whatwg.org/#valid-e-mail-address>).
static EMAIL: Pattern = LazyLock::new(|| {
    compile(concat!(
        r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+",
        r"@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?",
        r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
    ))
});

/// The text form of RFC 9562, section 4, in either case.
static UUID: Pattern = LazyLock::new(|| compile("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"));

/// What no name may hold.
macro_rules! hidden {
    () => {
        r"\p{Cc}\u061C\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF"
    };
}

/// `(guildhall.mesh.v1.one_line)` as a regular expression: what is not allowed, and that something is left to see. It reads the
/// same in ECMAScript with the flag `u`, so that JSON Schemas can say it too.
pub const ONE_LINE: &str = concat!(
    "^[^",
    hidden!(),
    // Fillers are letters that nobody sees.
    r"]*[^\p{Cc}\p{Cf}\p{Z}\p{M}\u115F\u1160\u2800\u3164\uFFA0][^",
    hidden!(),
    "]*$",
);

static NAME: Pattern = LazyLock::new(|| compile(ONE_LINE));

pub(crate) fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the build compiles every pattern of the contracts, and tests those written here")
}

/// Whether a value is its type's zero, which proto3 does not tell from one that was not sent.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `buf.validate.StringRules`; and no string may hold U+0000, which PostgreSQL cannot store.
pub(crate) struct Text {
    /// In characters.
    pub(crate) min_len: usize,
    /// In characters.
    pub(crate) max_len: usize,
    /// In bytes of UTF-8.
    pub(crate) max_bytes: usize,
    /// The allowed values; empty allows any.
    pub(crate) one_of: &'static [&'static str],
    pub(crate) form: Form,
    pub(crate) pattern: Option<&'static Pattern>,
}

/// What a text stands for.
pub(crate) enum Form {
    Any,
    Email,
    Uuid,
    /// An absolute URI of RFC 3986.
    Uri,
    /// A name: `(guildhall.mesh.v1.one_line)`.
    OneLine,
}

impl Form {
    fn fault(&self, value: &str) -> Option<&'static str> {
        let (fits, description) = match self {
            Self::Any => return None,
            Self::Email => (EMAIL.is_match(value), "must be an e-mail address"),
            Self::Uuid => (UUID.is_match(value), "must be a UUID"),
            Self::Uri => (Uri::parse(value).is_ok(), "must be an absolute URI"),
            Self::OneLine => (
                NAME.is_match(value),
                "must be one line with something to see, without control or invisible characters",
            ),
        };
        (!fits).then_some(description)
    }
}

impl Text {
    /// Any text without U+0000.
    pub(crate) const ANY: Self =
        Self { min_len: 0, max_len: usize::MAX, max_bytes: usize::MAX, one_of: &[], form: Form::Any, pattern: None };

    /// Reports the first rule that the value breaks, lengths first, so that the others look at bounded text.
    pub(crate) fn check(&self, value: &str, at: &FieldPath, out: &mut Vec<Violation>) {
        if let Some(description) = self.length_fault(value).or_else(|| self.form_fault(value)) {
            report(at, out, description);
        }
    }

    fn length_fault(&self, value: &str) -> Option<String> {
        if value.len() > self.max_bytes {
            return Some(format!("must have at most {} bytes", self.max_bytes));
        }
        // No need to count where the bytes already say it.
        if value.len() > self.max_len && value.chars().count() > self.max_len {
            return Some(format!("must have at most {}", counted(self.max_len, "character")));
        }
        if self.min_len > 0 && value.is_empty() {
            return Some("must not be empty".to_owned());
        }
        if self.min_len > 1 && value.chars().count() < self.min_len {
            return Some(format!("must have at least {}", counted(self.min_len, "character")));
        }
        None
    }

    fn form_fault(&self, value: &str) -> Option<String> {
        if value.contains('\0') {
            return Some("must not contain the character U+0000".to_owned());
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value) {
            return Some(format!("must be one of {}", self.one_of.join(", ")));
        }
        if let Some(fault) = self.form.fault(value) {
            return Some(fault.to_owned());
        }
        let pattern = self.pattern.filter(|pattern| !pattern.is_match(value))?;
        Some(format!("must match {}", pattern.as_str()))
    }
}

/// The rules of the numeric types.
pub(crate) struct Number<T> {
    pub(crate) gt: Option<T>,
    pub(crate) gte: Option<T>,
    pub(crate) lt: Option<T>,
    pub(crate) lte: Option<T>,
}

impl<T: Copy + PartialOrd + Display> Number<T> {
    /// Any number.
    pub(crate) const ANY: Self = Self { gt: None, gte: None, lt: None, lte: None };

    /// Reports the first bound that the value breaks; NaN breaks all.
    pub(crate) fn check(&self, value: T, at: &FieldPath, out: &mut Vec<Violation>) {
        let bounds = [
            self.gt.map(|limit| (value > limit, "greater than", limit)),
            self.gte.map(|limit| (value >= limit, "at least", limit)),
            self.lt.map(|limit| (value < limit, "less than", limit)),
            self.lte.map(|limit| (value <= limit, "at most", limit)),
        ];
        if let Some((_, relation, limit)) = bounds.into_iter().flatten().find(|(holds, ..)| !holds) {
            report(at, out, format!("must be {relation} {limit}"));
        }
    }
}

/// `buf.validate.EnumRules`.
pub(crate) struct Choice {
    /// Tells the numbers that the enum defines, where it must be one of them.
    pub(crate) defined: Option<fn(i32) -> bool>,
    pub(crate) not_in: &'static [i32],
}

impl Choice {
    /// Any number.
    pub(crate) const ANY: Self = Self { defined: None, not_in: &[] };

    /// Reports the first rule that the value breaks.
    pub(crate) fn check(&self, value: i32, at: &FieldPath, out: &mut Vec<Violation>) {
        if self.defined.is_some_and(|is_defined| !is_defined(value)) {
            report(at, out, "must be a value of the enum");
        } else if self.not_in.contains(&value) {
            report(at, out, if value == 0 { "must be given" } else { "must be another value" });
        }
    }
}

/// `buf.validate.RepeatedRules`, but for its items.
pub(crate) struct Repeated {
    pub(crate) min_items: usize,
    pub(crate) max_items: usize,
}

impl Repeated {
    /// Any list.
    pub(crate) const ANY: Self = Self { min_items: 0, max_items: usize::MAX };

    /// Reports a list of the wrong length, and says whether its length is right.
    pub(crate) fn check(&self, len: usize, at: &FieldPath, out: &mut Vec<Violation>) -> bool {
        if len > self.max_items {
            report(at, out, format!("must have at most {}", counted(self.max_items, "item")));
        } else if len < self.min_items {
            report(at, out, format!("must have at least {}", counted(self.min_items, "item")));
        }
        (self.min_items..=self.max_items).contains(&len)
    }

    /// Reports the first item that was there before.
    pub(crate) fn check_unique<T: Eq + Hash>(items: &[T], at: &mut FieldPath, out: &mut Vec<Violation>) {
        let mut seen = HashSet::with_capacity(items.len());
        if let Some(index) = items.iter().position(|item| !seen.insert(item)) {
            at.index(index, |at| report(at, out, "must not be there twice"));
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
