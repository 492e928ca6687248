//! What an operator sees of a running Guildhall: one trace per call at an OTLP collector, log lines that carry its id, metrics that
//! Prometheus accepts and that `docs/operations.md` explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::faults::cluster::{AUTH, CONTENT, Cluster, EDGE, Plan};
use e2e::{Guildhall, PASSWORD, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AttributeValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// A machine busy with other tests may take a while to export.
const SOON: Duration = Duration::from_secs(20);
/// What the client of these tests calls its own trace and span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";
/// Another trace of its.
const LATER: &str = "0af7651916cd43dd8448eb211c80319c";

const CREATE_POST: &str = "guildhall.content.v1.PostService/CreatePost";
const PROFILES: &str = "guildhall.auth.v1.ProfileService/BatchGetProfiles";

/// An OTLP receiver: every span that came, with its resource's `service.name`.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Debug)]
struct Seen {
    service: String,
    span: Span,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut seen = self.0.lock().unwrap();
        for part in request.into_inner().resource_spans {
            let attributes = part.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").expect("a resource has a service").to_owned();
            let spans = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| Seen { service: service.clone(), span }));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Where it listens.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, endpoint)
    }

    fn trace(&self, id: &str) -> Trace {
        let seen = self.0.lock().unwrap();
        Trace(seen.iter().filter(|seen| hex(&seen.span.trace_id) == id).cloned().collect())
    }

    /// Waits for a span of this name of this service in the client's trace.
    async fn wait_for(&self, service: &str, name: &str) {
        eventually(SOON, &format!("{name} of {service} is exported"), async || {
            let trace = self.trace(TRACE);
            trace.0.iter().any(|seen| seen.service == service && seen.span.name == name).then_some(())
        })
        .await;
    }

    /// The client's trace, with all that ended before what was waited for: a batch is exported a service at a time, and is complete
    /// when a later call is seen.
    async fn complete(&self, guildhall: &Guildhall) -> Trace {
        let later = guildhall.get("/api/v1/posts").header("traceparent", &format!("00-{LATER}-{CLIENT}-01"));
        later.send().await.expect_status(200);
        eventually(SOON, "a later call is exported", async || {
            self.trace(LATER).0.iter().any(|seen| seen.service == "edge-gateway").then_some(())
        })
        .await;
        self.trace(TRACE)
    }
}

struct Trace(Vec<Seen>);

impl Trace {
    /// The one span of this name, kind and service below `parent`.
    #[track_caller]
    fn below(&self, parent: &str, service: &str, kind: SpanKind, name: &str) -> &Span {
        let found = self.all_below(parent, service, kind, name);
        assert_eq!(found.len(), 1, "{kind:?} {name} of {service} below {parent}:\n{}", self.shown());
        found[0]
    }

    fn all_below(&self, parent: &str, service: &str, kind: SpanKind, name: &str) -> Vec<&Span> {
        let spans = self.0.iter().filter(|seen| seen.service == service).map(|seen| &seen.span);
        spans.filter(|span| hex(&span.parent_span_id) == parent && span.kind() == kind && span.name == name).collect()
    }

    fn shown(&self) -> String {
        let line = |Seen { service, span }: &Seen| {
            let (own, parent) = (hex(&span.span_id), hex(&span.parent_span_id));
            format!("{parent} <- {own} {service} {:?} {}", span.kind(), span.name)
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn id(span: &Span) -> String {
    hex(&span.span_id)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref() {
        Some(AnyValue { value: Some(AttributeValue::StringValue(text)) }) => Some(text),
        _ => None,
    }
}

#[track_caller]
fn attribute<'a>(span: &'a Span, key: &str) -> &'a str {
    text(&span.attributes, key).unwrap_or_else(|| panic!("{key} of {span:#?}"))
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_guildhall-under-test"))
}

/// A `guildhall dev` that tells a collector and a file everything.
async fn observed() -> (Guildhall, Collector, tempfile::TempDir, PathBuf) {
    let (collector, endpoint) = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let guildhall = Guildhall::start_with(program(), "127.0.0.1:0", |process| {
        process
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .set("OTEL_BSP_SCHEDULE_DELAY", "100")
            .set("GUILDHALL_LOG", "info,access=debug")
            .stdout(&log)
    })
    .await;
    (guildhall, collector, directory, log)
}

fn traceparent() -> String {
    format!("00-{TRACE}-{CLIENT}-01")
}

#[tokio::test]
async fn one_call_over_edge_content_and_auth_is_one_trace_with_its_statements_its_event_and_its_log_lines() {
    let (guildhall, collector, _directory, log) = observed().await;
    let ada = guildhall.member("Ada").await;
    let post =
        json!({"title": "Plumbing in Atlantis", "markdown": "Amphorae of secret text.\n", "tags": ["hydraulics"]});
    let call = guildhall.post("/api/v1/posts", post).token(&ada.token).header("traceparent", &traceparent());
    call.send().await.expect_status(200);
    collector.wait_for("content", "send content.post.created").await;
    collector.wait_for("edge-gateway", "POST /api/v1/posts").await;
    let trace = collector.complete(&guildhall).await;

    let edge = trace.below(CLIENT, "edge-gateway", SpanKind::Server, "POST /api/v1/posts");
    assert_eq!(attribute(edge, "http.route"), "/api/v1/posts");
    let to_content = trace.below(&id(edge), "edge-gateway", SpanKind::Client, CREATE_POST);
    assert_eq!(attribute(to_content, "service.peer.name"), "content");
    let content = trace.below(&id(to_content), "content", SpanKind::Server, CREATE_POST);
    assert_eq!((attribute(content, "rpc.system.name"), attribute(content, "rpc.response.status_code")), ("grpc", "OK"));

    // The name of an author whom content does not know yet.
    let to_auth = trace.below(&id(content), "content", SpanKind::Client, PROFILES);
    let auth = trace.below(&id(to_auth), "auth", SpanKind::Server, PROFILES);
    let select = trace.below(&id(auth), "auth", SpanKind::Client, "SELECT users SELECT json_each");
    assert_eq!((attribute(select, "db.system.name"), attribute(select, "db.namespace")), ("sqlite", "auth"));
    assert_eq!(attribute(select, "db.query.summary"), select.name);
    assert!(attribute(select, "db.query.text").contains("$1"), "{select:#?}");

    let insert = trace.below(&id(content), "content", SpanKind::Client, "INSERT posts");
    assert_eq!((attribute(insert, "db.system.name"), attribute(insert, "db.namespace")), ("sqlite", "content"));
    // The one that adds the author, the one of the name, the one of the post.
    assert_eq!(trace.all_below(&id(content), "content", SpanKind::Client, "COMMIT").len(), 3, "{}", trace.shown());
    let create = trace.below(&id(content), "content", SpanKind::Producer, "create content.post.created");
    trace.below(&id(create), "content", SpanKind::Client, "INSERT outbox");
    let send = trace.below(&id(create), "content", SpanKind::Client, "send content.post.created");
    assert_eq!(attribute(send, "messaging.message.id"), attribute(create, "messaging.message.id"));

    let ids: BTreeSet<_> = trace.0.iter().map(|seen| id(&seen.span)).collect();
    for Seen { span, .. } in &trace.0 {
        let parent = hex(&span.parent_span_id);
        assert!(parent == CLIENT || ids.contains(&parent), "{} hangs in the air:\n{}", span.name, trace.shown());
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
    }
    let everything = format!("{:?}", collector.0.lock().unwrap());
    for private in ["Atlantis", "Amphorae", "hydraulics", "ada@example.org", PASSWORD, &ada.token, &ada.refresh_token] {
        assert!(!everything.contains(private), "{private} is in a trace");
    }

    // A thread of its own writes them.
    let lines = eventually(SOON, "every service has a log line of the trace", async || {
        let lines = log_lines(&log);
        let of_trace = lines.iter().filter(|line| line["trace_id"] == TRACE);
        let services: BTreeSet<_> = of_trace.filter_map(|line| line["service"].as_str()).collect();
        (services == BTreeSet::from(["auth", "content", "edge-gateway"])).then_some(lines)
    })
    .await;
    for line in &lines {
        let inside = line["spans"].as_array().is_some_and(|spans| !spans.is_empty());
        assert!(!inside || line["trace_id"].is_string(), "a line of a call without its trace: {line}");
        assert!(!line.to_string().contains("ada@example.org"), "{line}");
    }
}

#[tokio::test]
async fn what_a_consumer_does_about_an_event_is_in_the_trace_of_the_call_that_caused_it() {
    let (guildhall, collector, ..) = observed().await;
    let ada = guildhall.member("Ada").await;
    guildhall.published(&ada.token, "Mine", "text").await;
    let rename = guildhall.patch("/api/v1/users/me", json!({"displayName": "Ada Lovelace"}));
    rename.token(&ada.token).header("traceparent", &traceparent()).send().await.expect_status(200);
    // content hears of it and asks auth for the new name.
    collector.wait_for("content", "process auth.user.updated").await;
    let trace = collector.complete(&guildhall).await;

    let creates: Vec<_> = trace.0.iter().filter(|seen| seen.span.name == "create auth.user.updated").collect();
    assert_eq!(creates.len(), 1, "{}", trace.shown());
    assert_eq!(creates[0].service, "auth");
    let create = id(&creates[0].span);
    let process = trace.below(&create, "content", SpanKind::Consumer, "process auth.user.updated");
    assert_eq!(attribute(process, "messaging.consumer.group.name"), "content.author_names");
    let question = trace.below(&id(process), "content", SpanKind::Client, PROFILES);
    trace.below(&id(question), "auth", SpanKind::Server, PROFILES);
    trace.below(&id(process), "content", SpanKind::Client, "UPDATE authors");
}

#[tokio::test]
async fn work_that_a_call_leaves_behind_is_in_its_trace() {
    // A password whose hash costs less than today's is hashed again after the log-in has been answered.
    let cheap = Guildhall::start_with(program(), "127.0.0.1:0", |process| {
        process.set("GUILDHALL__AUTH__PASSWORD__ITERATIONS", "1")
    })
    .await;
    let ada = cheap.member("Ada").await;
    let hash: (String,) = sqlx::query_as("SELECT password_hash FROM users WHERE email = $1")
        .bind(&ada.email)
        .fetch_one(&mut cheap.database("auth").await)
        .await
        .unwrap();

    let (guildhall, collector, ..) = observed().await;
    guildhall.member("Ada").await;
    sqlx::query("UPDATE users SET password_hash = $1 WHERE email = $2")
        .bind(hash.0)
        .bind(&ada.email)
        .execute(&mut guildhall.database("auth").await)
        .await
        .unwrap();
    let log_in = guildhall.post("/api/v1/auth/login", json!({"email": ada.email, "password": PASSWORD}));
    log_in.header("traceparent", &traceparent()).send().await.expect_status(200);
    collector.wait_for("auth", "UPDATE users").await;
}

#[tokio::test]
async fn prometheus_accepts_the_metrics_of_every_port_and_operations_md_explains_each() {
    let guildhall = e2e::guildhall!();
    some_load(&guildhall).await;
    let documented = documented();
    for (name, admin) in ports(&guildhall) {
        let metrics = reqwest::get(format!("{admin}/metrics")).await.unwrap().text().await.unwrap();
        let complaints = promtool(&metrics).await;
        assert!(complaints.is_empty(), "promtool about {name}:\n{complaints}");

        let kinds = kinds(&metrics);
        for sample in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(sample.starts_with("guildhall_"), "{sample}");
            // An id or a path of a call as a label would have no bound.
            assert!(!sample.contains("-7000-8000-") && !sample.contains("/nowhere"), "{sample}");
        }
        for (metric, kind) in &kinds {
            let Some((explained, _)) = documented.get(*metric) else { panic!("{metric} is not in docs/operations.md") };
            assert_eq!(explained, kind, "{metric} in docs/operations.md");
        }
        let missing: Vec<_> = documented
            .iter()
            .filter(|(metric, (_, everywhere))| *everywhere && !kinds.contains_key(metric.as_str()))
            .map(|(metric, _)| metric)
            .collect();
        assert!(missing.is_empty(), "in docs/operations.md, but not at {name}: {missing:?}");
    }
}

#[tokio::test]
async fn processes_of_their_own_make_one_trace_and_show_together_every_metric_of_operations_md() {
    let (collector, endpoint) = Collector::start().await;
    let cluster = Cluster::start_with(program(), Plan::default(), None, |process| {
        process.set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).set("OTEL_BSP_SCHEDULE_DELAY", "100")
    })
    .await;
    let (edge, client) = (cluster.edges().remove(0), reqwest::Client::new());
    let admin = json!({"email": cluster.admin().email, "password": cluster.admin().password});
    let login: Value = ok(client.post(format!("{edge}/api/v1/auth/login")).json(&admin)).await.json().await.unwrap();
    let token = login["accessToken"].as_str().unwrap();
    let post = json!({"title": "Mine", "markdown": "text"});
    ok(client.post(format!("{edge}/api/v1/posts")).bearer_auth(token).json(&post)).await;
    for path in ["/feeds/posts.atom", "/oauth2/jwks"] {
        ok(client.get(format!("{edge}{path}"))).await;
    }
    let rename = client.patch(format!("{edge}/api/v1/users/me")).json(&json!({"displayName": "Ada Lovelace"}));
    ok(rename.bearer_auth(token).header("traceparent", traceparent())).await;

    for (service, name) in
        [(EDGE, "PATCH /api/v1/users/me"), (CONTENT, "process auth.user.updated"), (AUTH, "send auth.user.updated")]
    {
        collector.wait_for(service, name).await;
    }
    let trace = collector.trace(TRACE);
    let update = trace.0.iter().find(|seen| seen.span.name == "UPDATE users").expect("auth writes the name");
    assert_eq!((update.service.as_str(), attribute(&update.span, "db.system.name")), (AUTH, "postgresql"));
    let create = trace.0.iter().find(|seen| seen.span.name == "create auth.user.updated").expect("auth tells of it");
    trace.below(&id(&create.span), CONTENT, SpanKind::Consumer, "process auth.user.updated");

    let documented = documented();
    eventually(SOON, "every metric of docs/operations.md is shown by some process", async || {
        let mut shown = BTreeSet::new();
        for name in [AUTH, CONTENT, EDGE].into_iter().flat_map(|service| cluster.names_of(service)) {
            let metrics = ok(client.get(format!("{}/metrics", cluster.admin_url(&name)))).await.text().await.unwrap();
            let complaints = promtool(&metrics).await;
            assert!(complaints.is_empty(), "promtool about {name}:\n{complaints}");
            for (metric, kind) in kinds(&metrics) {
                let explained = documented.get(metric).map(|(explained, _)| explained.as_str());
                assert_eq!(explained, Some(kind), "{metric} of {name} in docs/operations.md");
                shown.insert(metric.to_owned());
            }
        }
        let missing: Vec<_> = documented.keys().filter(|metric| !shown.contains(*metric)).collect();
        if !missing.is_empty() {
            println!("not shown yet: {missing:?}");
        }
        missing.is_empty().then_some(())
    })
    .await;
}

/// The answer, which is no refusal.
async fn ok(call: reqwest::RequestBuilder) -> reqwest::Response {
    call.send().await.expect("an answer").error_for_status().expect("no refusal")
}

#[tokio::test]
async fn prometheus_accepts_the_alerts_of_operations_md_and_they_are_about_metrics_that_exist() {
    let page = operations();
    let rules = page.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block of rules").0;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let output = promtool_command().args(["check", "rules"]).arg(&file).output().await.expect(NO_PROMTOOL);
    assert!(output.status.success(), "{}{}", text_of(&output.stdout), text_of(&output.stderr));

    let documented = documented();
    let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    for word in words.filter(|word| word.starts_with("guildhall_")) {
        let suffixes = ["", "_count", "_bucket"];
        let exists =
            suffixes.iter().any(|suffix| word.strip_suffix(suffix).is_some_and(|name| documented.contains_key(name)));
        assert!(exists, "an alert is about {word}, which does not exist");
    }
}

/// Calls that succeed, that fail, that come by a path of their own, and an event with a consumer.
async fn some_load(guildhall: &Guildhall) {
    let ada = guildhall.member("Ada").await;
    for number in 0..5 {
        let post = guildhall.published(&ada.token, &format!("Post {number}"), "text").await;
        let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
        guildhall.get(&path).send().await.expect_status(200);
        guildhall.get(&format!("/nowhere/{number}")).send().await.expect_status(404);
    }
    guildhall.get("/api/v1/posts/01890000-0000-7000-8000-000000000000").send().await.expect_status(404);
    guildhall.get("/feeds/posts.atom").send().await.expect_status(200);
    guildhall.get("/oauth2/jwks").send().await.expect_status(200);
    let rename = json!({"displayName": "Ada Lovelace"});
    guildhall.patch("/api/v1/users/me", rename).token(&ada.token).send().await.expect_status(200);
}

fn ports(guildhall: &Guildhall) -> Vec<(&str, &str)> {
    let services = guildhall.dev.services.iter().map(|(name, service)| (name.as_str(), service.admin.as_str()));
    services.chain([("edge-gateway", guildhall.dev.http_admin.as_str())]).collect()
}

const NO_PROMTOOL: &str =
    "promtool is there: `cargo xtask test` provides it, or else set GUILDHALL_TEST_PROMTOOL to where it is";

fn promtool_command() -> tokio::process::Command {
    tokio::process::Command::new(std::env::var_os("GUILDHALL_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into()))
}

/// What `promtool check metrics` says about them: nothing, if it accepts them.
async fn promtool(metrics: &str) -> String {
    let mut check = promtool_command();
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = check.spawn().expect(NO_PROMTOOL);
    let mut input = child.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    assert!(output.status.success() || !said.is_empty(), "promtool ended with {}", output.status);
    said
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Each metric of an exposition and its type.
fn kinds(metrics: &str) -> BTreeMap<&str, &str> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.collect()
}

fn operations() -> String {
    let project = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    std::fs::read_to_string(Path::new(&project).join("../docs/operations.md")).unwrap()
}

/// The metrics of `docs/operations.md`: the type of each, and whether every process shows it, `guildhall dev` included. Those of
/// the section about Redis are there only where Redis is.
fn documented() -> BTreeMap<String, (String, bool)> {
    let mut everywhere = true;
    let mut documented = BTreeMap::new();
    for line in operations().lines() {
        if line.starts_with('#') {
            everywhere = !line.contains("Redis");
        }
        let Some(row) = line.strip_prefix("| `guildhall_") else { continue };
        let (name, rest) = row.split_once('`').expect("the name is in backticks");
        let kind = rest.split('|').nth(1).expect("the second column is the type").trim();
        let twice = documented.insert(format!("guildhall_{name}"), (kind.to_owned(), everywhere));
        assert!(twice.is_none(), "guildhall_{name} is in docs/operations.md twice");
    }
    documented
}

/// The JSON lines among what the process printed.
fn log_lines(log: &Path) -> Vec<Value> {
    let printed = std::fs::read_to_string(log).unwrap();
    // The last one may not be complete yet.
    let complete = printed.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let lines = complete.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
