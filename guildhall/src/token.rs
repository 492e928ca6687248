//! `guildhall token`: whose an access token is, and whether it is valid.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::config::duration::re::humantime;
use clap::Args;
use ids::{Source, Timestamp};
use mesh::token::{KeySet, Verifier};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use status::{Problem, Reason};

use crate::dev_file::{DataDirectory, DevFile};

/// How long the issuer may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What every service asks of the audience.
const AUDIENCE: &str = "guildhall";

#[derive(Args)]
pub struct Options {
    /// The access token, or `-` to read it from the standard input, where the machine's other users do not see it.
    token: String,
    /// Who must have issued it, such as https://play.example.org. Without it, the `guildhall dev` that runs on the data directory.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Where the issuer is asked for its keys, if not at its own address: the plain port of an edge behind the proxy that ends TLS.
    #[arg(long, value_name = "URL", requires = "issuer")]
    server: Option<String>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirectory,
}

/// What a token says, and what becomes of it. Never the token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    valid: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Whose keys it was held against.
    verified_by: String,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

/// An authorization server's metadata (RFC 8414), as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

pub async fn run(options: Options) -> Result<()> {
    let token = match options.token.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("the standard input holds no token")?;
            text
        }
        token => token.to_owned(),
    };
    let token = token.trim();
    let (header, claims) = decode(token)?;
    let source = Source::system();
    let issuer = Issuer::find(&options).await?;
    let verifier = Verifier::new(Arc::new(issuer.keys), issuer.name.clone(), AUDIENCE.to_owned(), source.clone());
    let judged = verifier.claims(token).await;
    let reason = judged.err().map(|problem| explain(&problem, &header, &claims, &issuer.name));
    let report = Report { valid: reason.is_none(), reason, verified_by: issuer.name, header, claims };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print(source.now());
    }
    match report.reason {
        None => Ok(()),
        Some(reason) => bail!("the token is not valid: {reason}"),
    }
}

/// Header and claims, unverified.
fn decode(token: &str) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let parts: Vec<_> = token.split('.').collect();
    ensure!(parts.len() == 3, "this is no signed JWT, which has three parts with dots between them");
    let part = |text: &str, name: &str| -> Result<Map<String, Value>> {
        // The cause would quote the token.
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| anyhow::anyhow!("the token's {name} is not base64url"))?;
        serde_json::from_slice(&bytes).map_err(|_| anyhow::anyhow!("the token's {name} is no JSON object"))
    };
    Ok((part(parts[0], "header")?, part(parts[1], "payload")?))
}

/// Whose tokens count, and by which keys.
struct Issuer {
    name: String,
    keys: KeySet,
}

impl Issuer {
    /// The one that is named, which says so itself; or else whoever the `guildhall dev` at hand says it is. Never the one that
    /// the token names: anybody can be that.
    async fn find(options: &Options) -> Result<Self> {
        let dev = || DevFile::read(&options.data.data_dir).context("say who must have issued it with --issuer URL");
        let server = match options.server.as_ref().or(options.issuer.as_ref()) {
            Some(server) => server.trim_end_matches('/').to_owned(),
            None => dev()?.http,
        };
        ensure!(
            !server.starts_with("https:"),
            "this command asks over plain HTTP: say with --server URL where the edge is behind the proxy that ends TLS"
        );
        let client = reqwest::Client::builder().timeout(ANSWER).build()?;
        let Metadata { issuer, jwks_uri } =
            fetch(&client, &format!("{server}/.well-known/oauth-authorization-server")).await?;
        // RFC 8414, section 3.3.
        if let Some(expected) = &options.issuer {
            ensure!(*expected == issuer, "the server at {server} says that it is the issuer {issuer}, not {expected}");
        }
        // What the public calls the issuer is here called the server.
        let jwks_uri = jwks_uri.strip_prefix(&issuer).map_or(jwks_uri.clone(), |path| format!("{server}{path}"));
        let keys: Value = fetch(&client, &jwks_uri).await?;
        let keys = KeySet::from_jwks(keys.to_string().as_bytes()).with_context(|| format!("the keys at {jwks_uri}"))?;
        Ok(Self { name: issuer, keys })
    }
}

async fn fetch<T: for<'de> Deserialize<'de>>(client: &reqwest::Client, url: &str) -> Result<T> {
    let answer = client.get(url).send().await.with_context(|| format!("nobody answers at {url}"))?;
    ensure!(answer.status().is_success(), "{url} answers {}: is the issuer's address right?", answer.status());
    answer.json().await.with_context(|| format!("the answer of {url} cannot be read"))
}

/// Why services refuse it, with what they saw and what they expect. The verdict is theirs: the same code gave it.
fn explain(problem: &Problem, header: &Map<String, Value>, claims: &Map<String, Value>, issuer: &str) -> String {
    if problem.reason() == Reason::TokenExpired {
        return format!("it has expired at {}", time(claims, "exp").map(|at| at.to_string()).unwrap_or_default());
    }
    let why = problem.cause().map_or_else(|| problem.reason().title().to_owned(), ToString::to_string);
    let show = |of: &Map<String, Value>, name: &str| plain(of.get(name).unwrap_or(&Value::Null));
    format!(
        "{why} (typ {}, alg {}, kid {}, iss {}, aud {}; expected at+jwt, RS256, a key of the issuer, {issuer}, {AUDIENCE})",
        show(header, "typ"),
        show(header, "alg"),
        show(header, "kid"),
        show(claims, "iss"),
        show(claims, "aud"),
    )
}

fn time(claims: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    claims.get(name)?.as_i64().map(Timestamp::from_seconds)
}

impl Report {
    fn print(&self, now: Timestamp) {
        let text = |name: &str| match self.claims.get(name) {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::Array(values)) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
            Some(value) => plain(value),
        };
        let moment = |name: &str| match time(&self.claims, name) {
            None => "-".to_owned(),
            Some(at) if at > now => format!("{at} (in {})", rounded(at.since(now))),
            Some(at) => format!("{at} ({} ago)", rounded(now.since(at))),
        };
        println!("subject    {}", text("sub"));
        println!("spiffe id  {}", text("spiffe_id"));
        println!("client     {}", text("client_id"));
        println!("roles      {}", text("roles"));
        println!("scopes     {}", text("scope"));
        println!("tier       {}", text("tier"));
        println!("session    {}", text("sid"));
        println!("issuer     {}", text("iss"));
        println!("audience   {}", text("aud"));
        println!("issued     {}", moment("iat"));
        println!("expires    {}", moment("exp"));
        match &self.reason {
            None => println!(
                "\nvalid: signed by {}. Whether its session has been revoked, the services know.",
                self.verified_by
            ),
            Some(reason) => println!("\nnot valid: {reason}"),
        }
    }
}

/// A value as text. Whoever made the token chose it: a terminal must not obey it.
fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

fn rounded(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
