//! Resumes: where somebody has worked and learned, what they have made and won.

use std::fmt;

use ids::{ResumeEntryId, UserId};

use crate::revision::Revision;

/// The most entries of one person.
pub const MAX_ENTRIES: i64 = 200;

/// An entry of a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The entry's id.
    pub id: ResumeEntryId,
    /// Whose resume it is in.
    pub owner: UserId,
    /// What it tells of.
    pub kind: Kind,
    /// The position, degree, project or award.
    pub title: String,
    /// Where; may be empty.
    pub organisation: String,
    /// From when until when.
    pub period: Period,
    /// CommonMark with GitHub's extensions.
    pub markdown: String,
    /// Rendered from the Markdown and sanitised.
    pub html: String,
    /// How often it has changed, and when.
    pub revision: Revision,
}

/// What an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Work,
    Education,
    Project,
    Award,
}

/// A month of the years 0000 to 9999: `2020-06`. Earlier ones are less.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(String);

/// The months from start to end, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    start: Month,
    end: Option<Month>,
}

/// The text is no month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a month such as `2020-06`")]
pub struct NoMonth;

/// The end comes before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is before the start")]
pub struct EndsEarly;

impl Month {
    /// Reads `2020-06`.
    pub fn parse(text: &str) -> Result<Self, NoMonth> {
        let is_number = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            Some((year, month)) if is_number(year, 4) && is_number(month, 2) && ("01"..="12").contains(&month) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(NoMonth),
        }
    }

    /// `2020-06`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Period {
    /// From `start` to `end`, or on and on.
    pub fn new(start: Month, end: Option<Month>) -> Result<Self, EndsEarly> {
        if end.as_ref().is_some_and(|end| *end < start) { Err(EndsEarly) } else { Ok(Self { start, end }) }
    }

    /// The first month.
    pub fn start(&self) -> &Month {
        &self.start
    }

    /// The last month; `None` while it goes on.
    pub fn end(&self) -> Option<&Month> {
        self.end.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> Month {
        Month::parse(text).unwrap()
    }

    #[test]
    fn a_month_is_a_year_and_one_of_twelve() {
        for text in ["2020-01", "0000-12"] {
            assert_eq!(month(text).to_string(), text);
        }
        for text in
            ["", "2020", "2020-00", "2020-13", "2020-1", "20-01", "2020-01-01", "-020-01", "２０２０-01", "2020-0a"]
        {
            assert_eq!(Month::parse(text), Err(NoMonth), "{text}");
        }
    }

    #[test]
    fn a_period_does_not_end_before_it_starts() {
        assert!(Period::new(month("2020-06"), None).is_ok());
        assert!(Period::new(month("2020-06"), Some(month("2020-06"))).is_ok());
        assert!(Period::new(month("2019-12"), Some(month("2020-01"))).is_ok());
        assert_eq!(Period::new(month("2020-06"), Some(month("2020-05"))), Err(EndsEarly));
        assert_eq!(Period::new(month("2020-01"), Some(month("2019-12"))), Err(EndsEarly));
    }
}
