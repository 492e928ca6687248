//! `guildhall import posts`: Markdown files through the public REST API.

mod front_matter;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use front_matter::Article;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::dev_file::{Credential, DataDirectory, DevFile};

/// How much goes into one request: what is lost, and sent again, when the connection breaks.
const BATCH_POSTS: u64 = 20;
const BATCH_BYTES: usize = 2 << 20;
/// How often a request is sent again while the server is away or busy.
const ATTEMPTS: u32 = 6;

#[derive(Args)]
pub struct Options {
    /// The directory; `.md` files in it and below are read.
    directory: PathBuf,
    /// The edge's address. Without it, that of the `guildhall dev` that runs on the data directory.
    #[arg(long, env = "GUILDHALL_HTTP", value_name = "URL")]
    server: Option<String>,
    /// An access token of an admin. Without it, the first admin of that `guildhall dev` logs in.
    #[arg(long, env = "GUILDHALL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    data: DataDirectory,
}

/// What the server says of one batch, and what all of them add up to.
#[derive(Default, Deserialize)]
struct Answer {
    imported: u64,
    unchanged: u64,
    #[serde(default)]
    refused: Vec<Refused>,
}

/// A post that was not imported, by its source id or, where it never had one, its file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    source_id: String,
    reason: String,
}

pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    let files = markdown_files(&options.directory)?;
    ensure!(!files.is_empty(), "there is no .md file in {}", options.directory.display());
    let server = Server::connect(&options).await?;
    println!("Importing {} files from {} to {}", files.len(), options.directory.display(), server.address);

    let mut run = Run {
        server,
        bar: progress_bar(files.len()),
        batch: Batch::default(),
        totals: Answer::default(),
        files: HashMap::new(),
    };
    for file in &files {
        let name = relative(&options.directory, file);
        match read_article(file, &name) {
            Ok(article) => run.add(&article, name).await?,
            Err(error) => run.refuse(name, format!("{error:#}")),
        }
    }
    run.flush().await?;
    run.bar.finish_and_clear();

    let Answer { imported, unchanged, refused } = run.totals;
    let spent = began.elapsed().as_secs_f64();
    println!("{imported} imported, {unchanged} already there, {} refused, in {spent:.1} s", refused.len());
    for Refused { source_id, reason } in &refused {
        println!("  refused {}: {reason}", run.files.get(source_id).unwrap_or(source_id));
    }
    ensure!(
        refused.is_empty(),
        "{} of {} files were refused; mend them and run this again",
        refused.len(),
        files.len()
    );
    Ok(())
}

/// One import under way.
struct Run {
    server: Server,
    bar: ProgressBar,
    batch: Batch,
    totals: Answer,
    /// The file that each source id came from.
    files: HashMap<String, String>,
}

impl Run {
    async fn add(&mut self, article: &Article, file: String) -> Result<()> {
        if let Some(earlier) = self.files.get(&article.source_id) {
            let reason = format!("it has the same path as {earlier}");
            self.refuse(file, reason);
            return Ok(());
        }
        self.batch.add(article)?;
        self.files.insert(article.source_id.clone(), file);
        if self.batch.is_full() { self.flush().await } else { Ok(()) }
    }

    fn refuse(&mut self, file: String, reason: String) {
        self.totals.refused.push(Refused { source_id: file, reason });
        self.bar.inc(1);
    }

    async fn flush(&mut self) -> Result<()> {
        let Batch { lines, posts } = std::mem::take(&mut self.batch);
        if posts == 0 {
            return Ok(());
        }
        let answer = self.server.import(lines).await?;
        self.totals.imported += answer.imported;
        self.totals.unchanged += answer.unchanged;
        self.totals.refused.extend(answer.refused);
        self.bar.inc(posts);
        Ok(())
    }
}

/// All Markdown files of a directory and below, in the order of their paths.
fn markdown_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read the directory {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            // Links are not followed: a loop of them would never end.
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(directory: &Path, file: &Path) -> String {
    let below = file.strip_prefix(directory).unwrap_or(file);
    below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn read_article(file: &Path, name: &str) -> Result<Article> {
    let bytes = fs::read(file).context("it cannot be read")?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not UTF-8 text"))?;
    Ok(Article::parse(name, &text)?)
}

/// Posts that go in one request, one JSON object a line.
#[derive(Default)]
struct Batch {
    lines: String,
    posts: u64,
}

impl Batch {
    fn add(&mut self, article: &Article) -> Result<()> {
        let line = json!({
            "sourceId": article.source_id,
            "title": article.title,
            "byline": article.byline,
            "publishTime": article.publish_time.format(&Rfc3339)?,
            "aliases": article.aliases,
            "category": article.category,
            "tags": article.tags,
            "language": article.language,
            "markdown": article.markdown,
        });
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
        self.posts += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.posts >= BATCH_POSTS || self.lines.len() >= BATCH_BYTES
    }
}

/// The edge, with what it takes to be let in.
struct Server {
    client: reqwest::Client,
    address: String,
    credential: Option<Credential>,
    token: String,
}

impl Server {
    async fn connect(options: &Options) -> Result<Self> {
        let mut address = options.server.as_deref().map(base_url);
        let mut credential = None;
        if address.is_none() || options.token.is_none() {
            let dev = DevFile::read(&options.data.data_dir)
                .context("say where to import to with --server URL and --token TOKEN")?;
            let address = address.get_or_insert_with(|| dev.http.clone());
            // Its admin's password is for nobody else to see.
            ensure!(
                options.token.is_some() || *address == dev.http,
                "say --token TOKEN: {address} is not the `guildhall dev` of {}, which is {}",
                options.data.data_dir.display(),
                dev.http
            );
            credential = dev.admin.filter(|_| options.token.is_none());
        }
        let address = address.unwrap_or_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_mins(5))
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        let mut server = Self { client, address, credential, token: options.token.clone().unwrap_or_default() };
        if server.token.is_empty() {
            server.login().await?;
        }
        Ok(server)
    }

    async fn login(&mut self) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Login {
            access_token: String,
        }
        let Some(admin) = &self.credential else {
            bail!(
                "the access token is not valid or has expired: get a new one and run this again, it goes on where it stopped"
            );
        };
        let body = json!({"email": admin.email, "password": admin.password});
        let request = self.client.post(format!("{}/api/v1/auth/login", self.address)).json(&body);
        let response = request.send().await.with_context(|| format!("nothing answers at {}", self.address))?;
        let login: Login = answer(response).await.with_context(|| {
            format!("{} cannot log in; if its password was changed, say --token TOKEN", admin.email)
        })?;
        self.token = login.access_token;
        Ok(())
    }

    /// Imports one batch. It may be sent more than once: the server knows a post by its source id.
    async fn import(&mut self, lines: String) -> Result<Answer> {
        let mut renewed = false;
        let mut attempt = 1;
        loop {
            let request = self
                .client
                .post(format!("{}/api/v1/posts:import", self.address))
                .bearer_auth(&self.token)
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .body(lines.clone());
            match send(request).await {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.login().await?;
                }
                Ok(response) if is_busy(response.status()) && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause(&response, attempt)).await;
                    attempt += 1;
                }
                Ok(response) => return answer(response).await,
                Err(_) if attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("{} went away; run this again, it goes on where it stopped", self.address)
                    });
                }
            }
        }
    }
}

/// The address as `dev.json` writes it.
fn base_url(address: &str) -> String {
    let address = address.trim_end_matches('/').replace("localhost:", "127.0.0.1:");
    if address.contains("://") { address } else { format!("http://{address}") }
}

async fn send(request: RequestBuilder) -> Result<Response> {
    Ok(request.send().await?)
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// What the server asked for, in whole seconds, or else a pause that doubles.
fn pause(response: &Response, attempt: u32) -> Duration {
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    asked.map_or(backoff(attempt), |seconds: u64| Duration::from_secs(seconds.min(60)))
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.min(6))
}

/// Reads a JSON answer, or the problem (RFC 9457) that stands in its place.
async fn answer<T: for<'de> Deserialize<'de>>(response: Response) -> Result<T> {
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        title: String,
        #[serde(default)]
        detail: String,
    }
    let status = response.status();
    let body = response.bytes().await?;
    if !status.is_success() {
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if !problem.detail.is_empty() => bail!("{status}: {}", problem.detail),
            Ok(problem) => bail!("{status}: {}", problem.title),
            Err(_) => bail!("{status}"),
        }
    }
    serde_json::from_slice(&body).context("the server's answer cannot be read: is this Guildhall's edge?")
}

/// Drawn only on a terminal.
fn progress_bar(files: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files as u64).with_style(style)
}
