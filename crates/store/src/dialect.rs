//! The fragments of SQL that have no common spelling. A statement that needs one is put together by `format!`.

use sqlx::types::Json;
use uuid::Uuid;

/// Which database a query runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 15 or later.
    Postgres,
    /// SQLite, in this process.
    Sqlite,
}

impl Dialect {
    fn pick<T>(self, postgres: T, sqlite: T) -> T {
        match self {
            Self::Postgres => postgres,
            Self::Sqlite => sqlite,
        }
    }

    /// At the end of a `SELECT`: holds its rows until the end of the transaction. SQLite has one writer anyway.
    pub fn for_update(self) -> &'static str {
        self.pick(" FOR UPDATE", "")
    }

    /// At the end of a `SELECT`: its rows stay until the end of the transaction, and others may refer to them meanwhile.
    pub fn for_key_share(self) -> &'static str {
        self.pick(" FOR KEY SHARE", "")
    }

    /// Whether only one process at a time has the database open, so that whatever an earlier one held is free.
    pub fn has_one_process(self) -> bool {
        self == Self::Sqlite
    }

    /// The database's clock, in microseconds since the epoch. Only for leases, on which several processes have to agree; all other
    /// time comes from `ids::Source`.
    pub fn now_micros(self) -> &'static str {
        self.pick(
            "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
            "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        )
    }

    /// After `IN`: the ids of a list that is bound as [`id_list`].
    pub fn id_list(self, parameter: u8) -> String {
        self.pick(
            format!("(SELECT CAST(value AS uuid) FROM jsonb_array_elements_text(${parameter}))"),
            format!("(SELECT unhex(value) FROM json_each(${parameter}))"),
        )
    }

    /// After `IN`: the texts of a list that is bound as `Json<Vec<String>>`.
    pub fn text_list(self, parameter: u8) -> String {
        self.pick(
            format!("(SELECT jsonb_array_elements_text(${parameter}))"),
            format!("(SELECT value FROM json_each(${parameter}))"),
        )
    }
}

/// Full-text search. Words come from the caller, who cuts text into them the same way for documents and for queries. A search table
/// `t` is `t (rowid bigint PRIMARY KEY, document tsvector)` with a GIN index on PostgreSQL, and on SQLite `t USING fts5 (title, body,
/// content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0")`.
impl Dialect {
    /// The text to bind for a column of words, in their order. PostgreSQL is told each word's place; the first place stays free, so
    /// that no phrase reaches from one column into the next.
    pub fn search_text<'a>(self, words: impl IntoIterator<Item = &'a str>) -> String {
        let words = words.into_iter();
        match self {
            Self::Postgres => {
                join(words.enumerate().map(|(place, word)| format!("{}:{}", lexeme(word), place + 2)), " ")
            }
            Self::Sqlite => join(words, " "),
        }
    }

    /// Inserts a row into a search table: `$1` its rowid, `$2` and `$3` the title and the body as [`Dialect::search_text`] writes them.
    pub fn search_insert(self, table: &str) -> String {
        self.pick(
            format!(
                "INSERT INTO {table} (rowid, document) VALUES ($1, setweight(CAST($2 AS tsvector), 'A') || CAST($3 AS tsvector))"
            ),
            format!("INSERT INTO {table} (rowid, title, body) VALUES ($1, $2, $3)"),
        )
    }

    /// The condition that a row matches the query in the expression `query`.
    pub fn search_matches(self, table: &str, query: &str) -> String {
        self.pick(format!("{table}.document @@ CAST({query} AS tsquery)"), format!("{table} MATCH {query}"))
    }

    /// How well a row matches, as a double precision number: the higher, the better. A hit in the title counts ten times one in the body.
    pub fn search_rank(self, table: &str, query: &str) -> String {
        self.pick(
            format!(
                "CAST(ts_rank_cd('{{0.1, 0.2, 0.4, 1.0}}', {table}.document, CAST({query} AS tsquery), 1) AS DOUBLE PRECISION)"
            ),
            format!("-bm25({table}, 10.0, 1.0)"),
        )
    }

    /// The query for words that stand together in this order; the last one may go on if `prefix`.
    pub fn search_phrase<'a>(self, words: impl IntoIterator<Item = &'a str>, prefix: bool) -> String {
        let words = words.into_iter();
        match self {
            Self::Postgres => join(words.map(lexeme), " <-> ") + if prefix { ":*" } else { "" },
            Self::Sqlite => format!("\"{}\"{}", join(words, " ").replace('"', "\"\""), if prefix { " *" } else { "" }),
        }
    }

    /// The query for rows in which any of `phrases` is found.
    pub fn search_any<'a>(self, phrases: impl IntoIterator<Item = &'a str>) -> String {
        let phrases = phrases.into_iter();
        match self {
            Self::Postgres => join(phrases.map(|phrase| format!("({phrase})")), " | "),
            Self::Sqlite => join(phrases, " OR "),
        }
    }
}

/// A word in a literal of `tsvector` or `tsquery`, whatever it contains.
fn lexeme(word: &str) -> String {
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"))
}

fn join<T: AsRef<str>>(parts: impl Iterator<Item = T>, separator: &str) -> String {
    let mut joined = String::new();
    for (place, part) in parts.enumerate() {
        if place > 0 {
            joined.push_str(separator);
        }
        joined.push_str(part.as_ref());
    }
    joined
}

/// A list of ids, to be bound where [`Dialect::id_list`] stands.
pub fn id_list<T: Into<Uuid>>(ids: impl IntoIterator<Item = T>) -> Json<Vec<String>> {
    Json(ids.into_iter().map(|id| id.into().simple().to_string()).collect())
}
