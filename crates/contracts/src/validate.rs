use std::fmt;

use status::Violation;

mod rules;

pub use rules::ONE_LINE;
pub(crate) use rules::{Choice, Form, Number, Pattern, Repeated, Text, compile, is_zero};

/// A request tells at most so many of its faults: the list travels in HTTP/2 headers, which peers bound.
const MAX_VIOLATIONS: usize = 20;

/// A message that can be checked by its `buf.validate` rules.
pub trait Validate {
    /// Adds to `out` every field that breaks a rule. `at` is where this message stands in the request.
    fn validate(&self, at: &mut FieldPath, out: &mut Vec<Violation>);
}

/// Every field of the message that breaks a rule, in the order of the contract.
pub fn violations(message: &impl Validate) -> Vec<Violation> {
    let mut out = Vec::new();
    message.validate(&mut FieldPath::default(), &mut out);
    out
}

/// Where in a request a value stands. It displays as a path of JSON names, such as `post.tags[3]`.
#[derive(Debug, Default)]
pub struct FieldPath(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    Field(&'static str),
    Index(usize),
}

impl FieldPath {
    /// Runs `inside` one level deeper, at the field of that JSON name.
    pub fn field<R>(&mut self, name: &'static str, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.enter(Segment::Field(name), inside)
    }

    /// Runs `inside` at the element of that index, counted from 0.
    pub fn index<R>(&mut self, index: usize, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.enter(Segment::Index(index), inside)
    }

    fn enter<R>(&mut self, segment: Segment, inside: impl FnOnce(&mut Self) -> R) -> R {
        self.0.push(segment);
        let result = inside(self);
        self.0.pop();
        result
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if place == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Adds what is wrong with the value at `at`.
pub(crate) fn report(at: &FieldPath, out: &mut Vec<Violation>, description: impl Into<String>) {
    if out.len() < MAX_VIOLATIONS {
        out.push(Violation { field: at.to_string(), description: description.into() });
    }
}

/// `google.protobuf.Empty`.
impl Validate for () {
    fn validate(&self, _at: &mut FieldPath, _out: &mut Vec<Violation>) {}
}

/// What it holds is for whoever unpacks it to check.
impl Validate for prost_types::Any {
    fn validate(&self, _at: &mut FieldPath, _out: &mut Vec<Violation>) {}
}

/// Within the bounds of `google/protobuf/timestamp.proto`.
impl Validate for prost_types::Timestamp {
    fn validate(&self, at: &mut FieldPath, out: &mut Vec<Violation>) {
        const YEARS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;
        if !YEARS.contains(&self.seconds) || !(0..1_000_000_000).contains(&self.nanos) {
            report(at, out, "must be a time within the years 0001 to 9999");
        }
    }
}

/// Within the bounds of `google/protobuf/duration.proto`, both parts of one sign.
impl Validate for prost_types::Duration {
    fn validate(&self, at: &mut FieldPath, out: &mut Vec<Violation>) {
        const MAX_SECONDS: u64 = 315_576_000_000;
        let one_sign = self.seconds.signum() * i64::from(self.nanos.signum()) >= 0;
        if self.seconds.unsigned_abs() > MAX_SECONDS || self.nanos.unsigned_abs() >= 1_000_000_000 || !one_sign {
            report(at, out, "must be a duration of at most 10,000 years");
        }
    }
}

/// Paths are text; whether they name fields is for the RPC to say.
impl Validate for prost_types::FieldMask {
    fn validate(&self, at: &mut FieldPath, out: &mut Vec<Violation>) {
        for path in &self.paths {
            Text::ANY.check(path, at, out);
        }
    }
}
