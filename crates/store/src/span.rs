//! Spans of statements, after OpenTelemetry's conventions for databases. They hold texts, never values: those are bound.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::{Span, field};

use crate::{Dialect, Error, Result};

/// Bytes of a statement's text that a span keeps.
const TEXT: usize = 1000;

/// A span for one statement on `database`. There is none unless the call is being recorded: a call has dozens of statements, and
/// nobody else looks at their spans.
pub(crate) fn statement(dialect: Dialect, database: &str, sql: &str) -> Span {
    if !Context::map_current(|context| context.span().span_context().is_sampled()) {
        return Span::none();
    }
    let summary = summary(sql);
    tracing::debug_span!(
        target: "sql",
        "sql",
        otel.name = summary,
        otel.kind = "client",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        db.system.name = match dialect {
            Dialect::Postgres => "postgresql",
            Dialect::Sqlite => "sqlite",
        },
        db.namespace = database,
        db.query.summary = summary,
        db.query.text = &sql[..sql.floor_char_boundary(TEXT)],
    )
}

/// Says how the statement ended.
pub(crate) fn end<T>(span: &Span, outcome: &Result<T>) {
    let failure = match outcome {
        Ok(_) | Err(Error::NotFound) => return,
        Err(Error::Constraint { .. }) => "constraint",
        Err(Error::Unavailable(_)) => "unavailable",
        Err(Error::Deadline) => "deadline",
        Err(Error::Conflict(_)) => "conflict",
        Err(_) => "_OTHER",
    };
    span.record("otel.status_code", "ERROR");
    span.record("error.type", failure);
}

/// What a statement does to which tables, as in `SELECT posts authors`.
fn summary(sql: &str) -> String {
    let mut summary = String::new();
    let mut before = "";
    for word in sql.split([' ', '\n', '(', ')', ',', ';']).filter(|word| !word.is_empty()) {
        let operation = match word {
            "SELECT" | "INSERT" | "DELETE" | "BEGIN" | "COMMIT" => true,
            // Not that of `FOR UPDATE` and `DO UPDATE`.
            "UPDATE" => !matches!(before, "FOR" | "DO"),
            _ => false,
        };
        let table = matches!(before, "FROM" | "JOIN" | "INTO" | "UPDATE") && word != "SET" && word != "SELECT";
        if operation || table {
            if !summary.is_empty() {
                summary.push(' ');
            }
            summary.push_str(word);
        }
        before = word;
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn a_summary_names_operations_and_tables_and_nothing_else() {
        for (sql, expected) in [
            (
                "SELECT p.id FROM posts p JOIN authors a ON a.user_id = p.author_id WHERE p.id = $1",
                "SELECT posts authors",
            ),
            (
                "SELECT id FROM tags WHERE id IN (SELECT value FROM json_each($1)) FOR UPDATE",
                "SELECT tags SELECT json_each",
            ),
            (
                "INSERT INTO lease (name, holder) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET holder = $2",
                "INSERT lease",
            ),
            ("UPDATE posts SET title = $2 WHERE id = $1 RETURNING id", "UPDATE posts"),
            (
                "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox LIMIT $2)",
                "DELETE outbox SELECT outbox",
            ),
            ("WITH newest AS (\n    SELECT id FROM posts\n) SELECT COUNT(*) FROM newest", "SELECT posts SELECT newest"),
            ("BEGIN; SET LOCAL statement_timeout = 3000", "BEGIN"),
            ("COMMIT", "COMMIT"),
        ] {
            assert_eq!(summary(sql), expected);
        }
    }
}
