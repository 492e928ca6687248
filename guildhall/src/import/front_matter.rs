//! A Markdown file with TOML (`+++`) or YAML (`---`) front matter, as Zola, Hugo and Jekyll write it.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime};

/// A post as its file tells it.
#[derive(Debug, PartialEq, Eq)]
pub struct Article {
    /// Names the post at its source: the front matter's `path`, or else the file's own path without its ending.
    pub source_id: String,
    pub title: String,
    pub byline: String,
    pub publish_time: OffsetDateTime,
    /// Former addresses without a leading slash; the article's own path is the first.
    pub aliases: Vec<String>,
    pub category: String,
    pub tags: Vec<String>,
    pub language: String,
    pub markdown: String,
}

/// Why a file is no article.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("it does not begin with front matter: a line of +++ (TOML) or --- (YAML)")]
    NoFrontMatter,
    #[error("its front matter does not end: there is no second line of {0}")]
    Unfinished(&'static str),
    #[error("its front matter cannot be read: {0}")]
    Unreadable(String),
    #[error("it has no title")]
    NoTitle,
    #[error("it has no date, and its path {0:?} holds none (YYYY/MM/DD or YYYY-MM-DD)")]
    NoDate(String),
    #[error("its date {0:?} is none that is known, such as 2020-06-10 or 2020-06-10T12:00:00Z")]
    BadDate(String),
    #[error("it is a draft")]
    Draft,
}

/// The keys that are read; others belong to the tool that wrote the file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FrontMatter {
    title: Option<String>,
    date: Option<Moment>,
    path: Option<String>,
    author: Option<String>,
    authors: Names,
    aliases: Names,
    category: Option<String>,
    categories: Names,
    tags: Names,
    taxonomies: BTreeMap<String, Names>,
    draft: bool,
    #[serde(alias = "lang")]
    language: Option<String>,
    extra: Extra,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Extra {
    team: Option<String>,
}

/// TOML has a type for dates, YAML writes text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Toml(toml::value::Datetime),
    Text(String),
}

/// One name or a list of them.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Names {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Names {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(name) => vec![name],
            Self::Many(names) => names,
        }
    }
}

impl Article {
    /// Reads a file's text; `file` is its path below the imported directory, with `/` between its parts.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let (front, markdown) = split(text.strip_prefix('\u{feff}').unwrap_or(text))?;
        if front.draft {
            return Err(Error::Draft);
        }
        let title = front.title.filter(|title| !title.trim().is_empty()).ok_or(Error::NoTitle)?;
        let own = file.strip_suffix(".md").unwrap_or(file);
        let path = front.path.as_deref().map(address).filter(|path| !path.is_empty());
        let publish_time = match front.date {
            Some(Moment::Toml(date)) => instant(&date.to_string())?,
            Some(Moment::Text(date)) => instant(&date)?,
            None => {
                let dated = path.unwrap_or(own);
                date_in(dated).ok_or_else(|| Error::NoDate(dated.to_owned()))?
            }
        };

        let mut aliases: Vec<String> = path.map(str::to_owned).into_iter().collect();
        for alias in front.aliases.into_list() {
            let alias = address(&alias).to_owned();
            if !alias.is_empty() && !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
        let mut taxonomies = front.taxonomies;
        let mut tags = front.tags.into_list();
        tags.extend(taxonomies.remove("tags").unwrap_or_default().into_list());
        let mut categories = front.categories.into_list();
        categories.extend(taxonomies.remove("categories").unwrap_or_default().into_list());
        let mut authors = front.authors.into_list();
        authors.extend(front.author);
        Ok(Self {
            source_id: path.unwrap_or(own).to_owned(),
            title,
            byline: authors.join(", "),
            publish_time,
            aliases,
            category: front.extra.team.or(front.category).or(categories.into_iter().next()).unwrap_or_default(),
            tags,
            language: front.language.unwrap_or_default(),
            markdown: markdown.to_owned(),
        })
    }
}

/// An address as an alias is kept: without slashes around it.
fn address(path: &str) -> &str {
    path.trim().trim_matches('/')
}

fn split(text: &str) -> Result<(FrontMatter, &str), Error> {
    let (fence, text) = ["+++", "---"]
        .into_iter()
        .find_map(|fence| {
            let rest = text.strip_prefix(fence)?;
            let rest = rest.trim_start_matches([' ', '\t', '\r']);
            Some((fence, rest.strip_prefix('\n')?))
        })
        .ok_or(Error::NoFrontMatter)?;
    let mut front = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == fence {
            let (head, body) = (&text[..front], text[front + line.len()..].trim_start_matches(['\r', '\n']));
            let parsed = if fence == "+++" {
                toml::from_str(head).map_err(|error| error.message().to_owned())
            } else if head.trim().is_empty() {
                Ok(FrontMatter::default())
            } else {
                serde_saphyr::from_str(head).map_err(|error| error.to_string())
            };
            return parsed.map(|parsed| (parsed, body)).map_err(Error::Unreadable);
        }
        front += line.len();
    }
    Err(Error::Unfinished(fence))
}

/// Reads a date or a date and time; what names no offset is UTC, what names no time is midnight.
fn instant(text: &str) -> Result<OffsetDateTime, Error> {
    let text = text.trim();
    let day = format_description!("[year]-[month]-[day]");
    let local = format_description!(
        version = 2,
        "[year]-[month]-[day][first [T][ ]][hour]:[minute][optional [:[second][optional [.[subsecond]]]]]"
    );
    let spaced = format_description!(
        version = 2,
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][optional [:]][offset_minute]"
    );
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, &spaced))
        .or_else(|_| PrimitiveDateTime::parse(text, &local).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| Date::parse(text, &day).map(|date| date.midnight().assume_utc()))
        .map_err(|_| Error::BadDate(text.to_owned()))
}

/// The first date in a path, `…/2020/06/10/…` or `2020-06-10-…`, at midnight UTC.
fn date_in(path: &str) -> Option<OffsetDateTime> {
    let numbers: Vec<&str> = path.split(['/', '-']).collect();
    numbers.windows(3).find_map(|window| {
        let [year, month, day] = window else { return None };
        if (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
        Some(date.midnight().assume_utc())
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::{Article, Error};

    const ZOLA: &str = r#"+++
path = "inside-rust/2020/02/27/Goverance-wg"
title = "Governance Working Group Update"
authors = ["Val Grimm", "Another"]
aliases = ["inside-rust/2020/02/27/Goverance-wg.html", "/releases/1.11.0/"]

[extra]
team = "The Governance WG"
team_url = "https://example.org"
+++

Hello everyone!
"#;

    #[test]
    fn toml_front_matter_gives_date_from_path_category_from_team_and_its_path_as_an_alias() {
        let article = Article::parse("Goverance-wg.md", ZOLA).unwrap();
        assert_eq!(article.source_id, "inside-rust/2020/02/27/Goverance-wg");
        assert_eq!(article.publish_time, datetime!(2020-02-27 00:00 UTC));
        assert_eq!(article.byline, "Val Grimm, Another");
        assert_eq!(article.category, "The Governance WG");
        let aliases =
            ["inside-rust/2020/02/27/Goverance-wg", "inside-rust/2020/02/27/Goverance-wg.html", "releases/1.11.0"];
        assert_eq!(article.aliases, aliases);
        assert_eq!(article.markdown, "Hello everyone!\n");
    }

    #[test]
    fn a_date_wins_over_the_path_in_every_usual_form() {
        for (date, expected) in [
            ("2021-03-04", datetime!(2021-03-04 00:00 UTC)),
            ("2021-03-04T05:06:07Z", datetime!(2021-03-04 05:06:07 UTC)),
            ("2021-03-04T05:06:07+09:00", datetime!(2021-03-03 20:06:07 UTC)),
            ("2021-03-04T05:06:07", datetime!(2021-03-04 05:06:07 UTC)),
        ] {
            let toml = format!("+++\ntitle = \"t\"\npath = \"2000/01/01/x\"\ndate = {date}\n+++\n");
            assert_eq!(Article::parse("x.md", &toml).unwrap().publish_time, expected, "TOML {date}");
            let yaml = format!("---\ntitle: t\ndate: {date}\n---\n");
            assert_eq!(Article::parse("x.md", &yaml).unwrap().publish_time, expected, "YAML {date}");
        }
        let jekyll = "---\ntitle: t\ndate: 2021-03-04 05:06:07 +0900\n---\n";
        assert_eq!(Article::parse("x.md", jekyll).unwrap().publish_time, datetime!(2021-03-03 20:06:07 UTC));
    }

    #[test]
    fn yaml_names_are_one_or_many_and_the_file_name_dates_a_post() {
        let text =
            "---\r\ntitle: \"Korean: 한글\"\r\nauthor: 김\r\ntags: [가, 나]\r\ncategories: News\r\n---\r\n\r\n본문\r\n";
        let article = Article::parse("_posts/2020-06-10-hello.md", text).unwrap();
        assert_eq!(article.source_id, "_posts/2020-06-10-hello");
        assert_eq!((article.byline.as_str(), article.category.as_str()), ("김", "News"));
        assert_eq!(article.tags, ["가", "나"]);
        assert_eq!(article.publish_time, datetime!(2020-06-10 00:00 UTC));
        assert_eq!(article.aliases, Vec::<String>::new());
        assert_eq!(article.markdown, "본문\r\n");
    }

    #[test]
    fn what_is_no_article_says_why() {
        let refused = |text: &str| Article::parse("x.md", text).unwrap_err();
        assert_eq!(refused("Hello"), Error::NoFrontMatter);
        assert_eq!(refused("+++\ntitle = \"t\"\n"), Error::Unfinished("+++"));
        assert_eq!(refused("+++\npath = \"2020/01/01/x\"\n+++\n"), Error::NoTitle);
        assert_eq!(refused("+++\ntitle = \"t\"\n+++\n"), Error::NoDate("x".into()));
        assert_eq!(refused("---\ntitle: t\ndate: yesterday\n---\n"), Error::BadDate("yesterday".into()));
        assert_eq!(refused("---\ntitle: t\ndraft: true\n---\n"), Error::Draft);
        assert!(matches!(refused("+++\ntitle = \n+++\n"), Error::Unreadable(_)));
        assert_eq!(refused("+++\ntitle = \"t\"\npath = \"2020/13/40/x\"\n+++\n"), Error::NoDate("2020/13/40/x".into()));
    }
}
