//! Path templates of `google.api.http`, with two extensions: variables nest (`{book={author}/{isbn}/*}`), and segments may follow `**`.
//!
//! ```text
//! Template  = "/" [ Segments ] [ ":" verb ]
//! Segments  = Segment { "/" Segment }
//! Segment   = "*" | "**" | literal | "{" field.path [ "=" Segments ] "}"
//! ```
use std::{
    borrow::Cow,
    fmt::{self, Display, Formatter},
    ops::Range,
    str::FromStr,
};

use super::percent::{self, Part};

/// A template as a flat list of segments, and the variables as ranges over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub segments: Vec<Segment>,
    /// In the order in which they open: an outer variable stands before those inside it.
    pub variables: Vec<Variable>,
    pub verb: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Literal(String),
    /// `*`: one segment that is not empty.
    One,
    /// `**`: any number of segments, none included. At most one in a template.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The dotted path of the field, in proto names.
    pub field: String,
    /// The segments of the template that it captures.
    pub segments: Range<usize>,
}

/// Where and why a template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct Error {
    at: usize,
    reason: &'static str,
}

impl Template {
    /// The raw text that a variable captures from a path of `path.len()` segments which matched this template, decoded: wholly
    /// where it is one segment, and but for `%2F` where it can be several. None if an escape in it is malformed.
    pub fn capture(&self, variable: &Variable, path: &[&str]) -> Option<String> {
        let Range { start, end } = variable.segments.clone();
        if end - start == 1 && self.segments[start] != Segment::Rest {
            return percent::decode(path[self.position(start, path)], Part::Segment).map(Cow::into_owned);
        }
        let raw = path[self.position(start, path)..self.position(end, path)].join("/");
        percent::decode(&raw, Part::Segments).map(Cow::into_owned)
    }

    /// Where the template's segment `index` begins in a path: what follows `**` is counted from the path's end.
    fn position(&self, index: usize, path: &[&str]) -> usize {
        match self.segments.iter().position(|segment| *segment == Segment::Rest) {
            Some(rest) if index > rest => index + path.len() - self.segments.len(),
            _ => index,
        }
    }

    fn write(&self, f: &mut Formatter<'_>, segments: Range<usize>, mut variables: &[Variable]) -> fmt::Result {
        let mut at = segments.start;
        while at < segments.end {
            if at > segments.start {
                f.write_str("/")?;
            }
            match variables.split_first() {
                Some((variable, rest)) if variable.segments.start == at => {
                    let inside = rest.iter().take_while(|inner| inner.segments.start < variable.segments.end).count();
                    write!(f, "{{{}", variable.field)?;
                    if inside > 0 || self.segments[variable.segments.clone()] != [Segment::One] {
                        f.write_str("=")?;
                        self.write(f, variable.segments.clone(), &rest[..inside])?;
                    }
                    f.write_str("}")?;
                    at = variable.segments.end;
                    variables = &rest[inside..];
                }
                _ => {
                    write!(f, "{}", self.segments[at])?;
                    at += 1;
                }
            }
        }
        Ok(())
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        self.write(f, 0..self.segments.len(), &self.variables)?;
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

impl Display for Segment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal(text) => text,
            Self::One => "*",
            Self::Rest => "**",
        })
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0, segments: Vec::new(), variables: Vec::new() };
        if !parser.take('/') {
            return Err(parser.error("a template starts with `/`"));
        }
        if !matches!(parser.peek(), None | Some(':')) {
            parser.segments(0)?;
        }
        let verb = if parser.take(':') { Some(parser.word("a verb")?.to_owned()) } else { None };
        if parser.peek().is_some() {
            return Err(parser.error("expected `/`, `:` or the end"));
        }
        Ok(Self { segments: parser.segments, variables: parser.variables, verb })
    }
}

/// The deepest nesting of variables: templates are written by people.
const NESTING: usize = 8;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl<'a> Parser<'a> {
    fn segments(&mut self, depth: usize) -> Result<(), Error> {
        loop {
            self.segment(depth)?;
            if !self.take('/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, depth: usize) -> Result<(), Error> {
        if self.take('{') {
            return self.variable(depth);
        }
        if !self.take('*') {
            let literal = self.word("a segment")?.to_owned();
            self.segments.push(Segment::Literal(literal));
            return Ok(());
        }
        if !self.take('*') {
            self.segments.push(Segment::One);
            return Ok(());
        }
        if self.segments.contains(&Segment::Rest) {
            return Err(self.error("a second `**`"));
        }
        self.segments.push(Segment::Rest);
        Ok(())
    }

    fn variable(&mut self, depth: usize) -> Result<(), Error> {
        if depth == NESTING {
            return Err(self.error("variables nest too deeply"));
        }
        let field = self.word("a field path")?.to_owned();
        if field.split('.').any(|name| !is_identifier(name)) {
            return Err(self.error("a field path is names joined by dots"));
        }
        if self.variables.iter().any(|variable| variable.field == field) {
            return Err(self.error("a variable occurs twice"));
        }
        let (index, start) = (self.variables.len(), self.segments.len());
        self.variables.push(Variable { field, segments: start..start });
        if self.take('=') {
            self.segments(depth + 1)?;
        } else {
            self.segments.push(Segment::One);
        }
        self.variables[index].segments.end = self.segments.len();
        if self.take('}') { Ok(()) } else { Err(self.error("expected `}`")) }
    }

    fn word(&mut self, what: &'static str) -> Result<&'a str, Error> {
        let rest = &self.text[self.at..];
        let length = rest.find(['/', ':', '{', '}', '=', '*', '%', '?', '#']).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error(match what {
                "a verb" => "expected a verb",
                "a segment" => "expected a segment",
                _ => "expected a field path",
            }));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn error(&self, reason: &'static str) -> Error {
        Error { at: self.at, reason }
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captures(template: &str, path: &str) -> Vec<(String, Option<String>)> {
        let template: Template = template.parse().unwrap();
        let path: Vec<_> = path.split('/').collect();
        let capture = |variable: &Variable| (variable.field.clone(), template.capture(variable, &path));
        template.variables.iter().map(capture).collect()
    }

    fn text(pairs: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
    }

    #[test]
    fn one_segment_decodes_a_slash_and_several_keep_it() {
        assert_eq!(captures("/{a}", "x%2Fy+z"), text(&[("a", "x/y+z")]));
        assert_eq!(captures("/{a=*/*}", "x%2Fy/%20z"), text(&[("a", "x%2Fy/ z")]));
        assert_eq!(captures("/{a=**}", "x%2Fy"), text(&[("a", "x%2Fy")]));
        assert_eq!(captures("/{a}", "%zz"), [("a".to_owned(), None)]);
    }

    #[test]
    fn nested_variables_capture_the_whole_and_its_parts() {
        let expected = text(&[("book_id", "le guin/123/x"), ("author", "le guin"), ("isbn", "123")]);
        assert_eq!(captures("/{book_id={author}/{isbn}/*}", "le%20guin/123/x"), expected);
    }

    #[test]
    fn what_follows_two_stars_is_counted_from_the_end() {
        assert_eq!(captures("/v/{a=**}/{b}", "v/1/2/3"), text(&[("a", "1/2"), ("b", "3")]));
        assert_eq!(captures("/v/{a=**}/{b}", "v/3"), text(&[("a", ""), ("b", "3")]));
        assert_eq!(captures("/{all=v/{a=**}/w}", "v/w"), text(&[("all", "v/w"), ("a", "")]));
    }

    #[test]
    fn malformed_templates_are_refused_with_their_place() {
        for template in [
            "",
            "a",
            "//",
            "/a/",
            "/{",
            "/{a",
            "/{a=}",
            "/{a=b",
            "/{}",
            "/{a.}",
            "/{.a}",
            "/{1a}",
            "/a{b}",
            "/{a}b",
            "/*a",
            "/**/**",
            "/{a=**}/{b=**}",
            "/a:",
            "/a:b:c",
            "/a:b/c",
            "/***",
            "/{a}/{a}",
            "/a%2Fb",
            "/a?b",
            "/{a={b={c={d={e={f={g={h={i}}}}}}}}}",
        ] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
        let error = "/v1/{a=}".parse::<Template>().unwrap_err();
        assert_eq!(error.to_string(), "expected a segment at byte 7");
    }

    fn pattern() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![4 => "[a-z.~-]{1,4}", 2 => Just("*".to_owned()), 3 => Just("{}".to_owned())];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::vec(inner, 1..4).prop_map(|parts| format!("{{=}}{}{{/}}", parts.join("/")))
        })
    }

    /// Numbers the variables of a pattern, so that none occurs twice.
    fn template() -> impl Strategy<Value = String> {
        (prop::collection::vec(pattern(), 0..5), prop::option::of("[a-z]{1,4}")).prop_map(|(parts, verb)| {
            let mut text = format!("/{}", parts.join("/"));
            for (mark, end) in [("{}", "}"), ("{=}", "=")] {
                let mut number = 0;
                while let Some(at) = text.find(mark) {
                    let name = if end == "}" { format!("{{v.a{number}}}") } else { format!("{{w{number}=") };
                    text.replace_range(at..at + mark.len(), &name);
                    number += 1;
                }
            }
            let text = text.replace("{/}", "}");
            verb.map_or(text.clone(), |verb| format!("{text}:{verb}"))
        })
    }

    proptest! {
        #[test]
        fn formatting_is_the_inverse_of_parsing(text in template()) {
            let parsed: Template = text.parse().unwrap();
            prop_assert_eq!(parsed.to_string().parse::<Template>().unwrap(), parsed);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[/a{}=*:.%é]{0,24}") {
            let _ = text.parse::<Template>();
        }
    }
}
