use std::fmt::{Display, Write};

use ids::Source;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::{redact, trace};

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// One line of text for people.
    Pretty,
}

/// How a line is written, once that is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Json,
    Pretty,
}

impl Style {
    pub(crate) fn of(format: Format, terminal: bool) -> Self {
        match format {
            Format::Pretty => Self::Pretty,
            Format::Auto if terminal => Self::Pretty,
            Format::Json | Format::Auto => Self::Json,
        }
    }
}

/// Writes lines of this style.
pub(crate) fn layer<S, W>(style: Style, lines: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fmt::layer().with_writer(lines).fmt_fields(style).event_format(style).with_ansi(false)
}

/// Writes the fields of an event or a span as they are told, secrets left out.
struct Fields<W> {
    style: Style,
    out: W,
    written: std::fmt::Result,
    /// Whether there is one already.
    begun: bool,
    /// Is no field: it has its own place on a line.
    message: String,
    name_a_service: bool,
}

impl<W: Write> Fields<W> {
    /// `begun`: after others.
    fn write(style: Style, record: impl RecordFields, begun: bool, out: W) -> Self {
        let (message, name_a_service) = (String::new(), false);
        let mut fields = Self { style, out, written: Ok(()), begun, message, name_a_service };
        record.record(&mut fields);
        fields
    }

    /// `value` is JSON.
    fn push(&mut self, field: &Field, value: impl Display) {
        let name = field.name();
        // Instructions to the exporter of traces.
        if name.starts_with("otel.") || self.written.is_err() {
            return;
        }
        self.name_a_service |= name == "service";
        self.written =
            if redact::hides(name) { self.pair(name, Json(redact::REDACTED)) } else { self.pair(name, value) };
        self.begun = true;
    }

    fn pair(&mut self, name: &str, value: impl Display) -> std::fmt::Result {
        if self.begun {
            self.out.write_char(if self.style == Style::Json { ',' } else { ' ' })?;
        }
        match self.style {
            Style::Json => write!(self.out, "{}:{value}", Json(name)),
            Style::Pretty => write!(self.out, "{name}={value}"),
        }
    }
}

impl<W: Write> Visit for Fields<W> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.push(field, Json(&format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Json(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinity.
        self.push(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }
}

/// A string of JSON.
struct Json<'a>(&'a str);

impl Display for Json<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nearly no text has these; each span's fields are written, whether or not a line comes to show them.
        if self.0.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            write!(out, "{}", Value::from(self.0))
        } else {
            out.write_char('"')?;
            out.write_str(self.0)?;
            out.write_char('"')
        }
    }
}

/// Formats the fields of a span, once, when it is made.
impl<'writer> FormatFields<'writer> for Style {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        Fields::write(*self, fields, false, &mut writer).written
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> std::fmt::Result {
        let begun = !current.fields.is_empty();
        Fields::write(*self, fields, begun, &mut current.fields).written
    }
}

impl<S> FormatEvent<S, Self> for Style
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Self>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let fields = Fields::write(*self, event, false, String::new());
        fields.written?;
        match self {
            Self::Json => json_line(context, &mut line, event, &fields),
            Self::Pretty => pretty_line(context, &mut line, event, &fields),
        }
    }
}

fn json_line<S>(
    context: &FmtContext<'_, S, Style>,
    line: &mut Writer<'_>,
    event: &Event<'_>,
    fields: &Fields<String>,
) -> std::fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let metadata = event.metadata();
    let level = metadata.level().as_str();
    let (target, message) = (Json(metadata.target()), Json(&fields.message));
    write!(line, r#"{{"time":"{}","level":"{level}","target":{target},"message":{message}"#, Source::system().now())?;
    if let Some((trace, span)) = trace_ids() {
        write!(line, r#","trace_id":"{trace}","span_id":"{span}""#)?;
    }
    if let Some(service) = trace::service().filter(|_| !fields.name_a_service) {
        write!(line, r#","service":{}"#, Json(&service))?;
    }
    if fields.begun {
        write!(line, ",{}", fields.out)?;
    }
    line.write_str(r#","spans":["#)?;
    for (position, span) in context.event_scope().into_iter().flat_map(Scope::from_root).enumerate() {
        let comma = if position == 0 { "" } else { "," };
        write!(line, r#"{comma}{{"name":{}"#, Json(span.name()))?;
        if let Some(formatted) = span.extensions().get::<FormattedFields<Style>>().filter(|text| !text.is_empty()) {
            write!(line, ",{formatted}")?;
        }
        line.write_char('}')?;
    }
    line.write_str("]}\n")
}

fn pretty_line<S>(
    context: &FmtContext<'_, S, Style>,
    line: &mut Writer<'_>,
    event: &Event<'_>,
    fields: &Fields<String>,
) -> std::fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let metadata = event.metadata();
    write!(line, "{} {:>5} {}: {} ", Source::system().now(), metadata.level(), metadata.target(), fields.message)?;
    line.write_str(&fields.out)?;
    if let Some(service) = trace::service().filter(|_| !fields.name_a_service) {
        write!(line, " service={service}")?;
    }
    for span in context.event_scope().into_iter().flatten() {
        let extensions = span.extensions();
        let formatted = extensions.get::<FormattedFields<Style>>().map_or("", |formatted| formatted.fields.as_str());
        write!(line, " {}{{{formatted}}}", span.name())?;
    }
    if let Some((trace, _)) = trace_ids() {
        write!(line, " trace={trace}")?;
    }
    line.write_char('\n')
}

/// The trace and the span of the thread's current work, in hexadecimal.
fn trace_ids() -> Option<(String, String)> {
    let context = Context::current();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use contracts::auth::v1::LoginRequest;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::{Style, layer};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs.
    fn logged(style: Style, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .with(layer(style, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn parse(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_line_is_one_json_object_with_its_fields_its_spans_and_the_trace() {
        let text = logged(Style::Json, || {
            let outer = tracing::info_span!(
                "rpc",
                otel.kind = "server",
                rpc.method = "A/B",
                late = tracing::field::Empty,
                otel.status_code = tracing::field::Empty
            )
            .entered();
            outer.record("late", 7);
            outer.record("otel.status_code", "ERROR");
            let _inner = tracing::info_span!("query").entered();
            tracing::warn!(post.id = 3, ratio = 0.5, done = true, quoted = "a \"b\"\n", "Two\nlines");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = parse(&text);
        assert_eq!(line["message"], "Two\nlines");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["post.id"], 3);
        assert_eq!(line["ratio"], 0.5);
        assert_eq!(line["done"], true);
        assert_eq!(line["quoted"], "a \"b\"\n");
        assert_eq!(line["spans"][0], serde_json::json!({ "name": "rpc", "rpc.method": "A/B", "late": 7 }));
        assert_eq!(line["spans"][1], serde_json::json!({ "name": "query" }));
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn every_line_of_one_trace_carries_its_id_and_lines_outside_carry_none() {
        let text = logged(Style::Json, || {
            tracing::info!("before");
            let _outer = tracing::info_span!("rpc").entered();
            tracing::info!("outer");
            tracing::info_span!("query").in_scope(|| tracing::info!("inner"));
        });
        let lines: Vec<_> = text.lines().map(parse).collect();
        assert!(lines[0].get("trace_id").is_none());
        assert!(lines[1]["trace_id"].is_string());
        assert_eq!(lines[1]["trace_id"], lines[2]["trace_id"]);
        assert_ne!(lines[1]["span_id"], lines[2]["span_id"]);
    }

    #[test]
    fn a_line_names_the_service_of_its_span_or_the_one_that_it_names_itself() {
        let text = logged(Style::Json, || {
            let span = tracing::info_span!("rpc");
            crate::trace::belong(&span, &"content".into());
            let _outer = span.entered();
            tracing::info_span!("query").in_scope(|| tracing::info!("inner"));
            tracing::info!(service = "auth", "told");
        });
        let lines: Vec<_> = text.lines().map(parse).collect();
        assert_eq!((&lines[0]["service"], &lines[1]["service"]), (&"content".into(), &"auth".into()));
        assert_eq!(text.lines().nth(1).unwrap().matches("\"service\"").count(), 1, "{text}");
    }

    #[test]
    fn what_a_contract_marks_debug_redact_is_in_no_line() {
        const SECRET: &str = "correct horse battery staple";
        for style in [Style::Json, Style::Pretty] {
            let text = logged(style, || {
                let request = LoginRequest { password: SECRET.to_owned(), ..LoginRequest::default() };
                let span = tracing::info_span!("log in", password = SECRET, user.email = tracing::field::Empty);
                span.record("user.email", SECRET);
                span.in_scope(|| tracing::info!(refresh_token = SECRET, token = ?SECRET, ?request, "Asked"));
            });
            assert!(text.contains("Asked") && text.contains("[redacted]"), "{text}");
            assert!(!text.contains("horse"), "{text}");
        }
    }

    #[test]
    fn text_for_people_is_one_line_with_message_fields_and_trace() {
        let text = logged(Style::Pretty, || {
            let _span = tracing::info_span!("rpc", rpc.method = "A/B").entered();
            tracing::info!(post.id = 3, "Created a post");
        });
        assert_eq!(text.lines().count(), 1);
        for part in ["INFO", "Created a post", "post.id=3", "rpc{rpc.method=\"A/B\"}", "trace="] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
