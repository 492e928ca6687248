//! `guildhall svid`: who a process is that asks at a SPIFFE Workload API.

use std::time::Duration;

use anyhow::{Context, Result};
use chassis::config::duration::re::humantime;
use clap::Args;
use ids::{Source, Timestamp};
use serde::Serialize;
use spiffe::{JwtSvid, SpiffeId, WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};
use tokio::time::timeout;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::dev_file::{DataDirectory, DevFile};

/// How long the Workload API may take.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Options {
    /// The Workload API's socket.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "unix:PATH")]
    socket: Option<String>,
    /// Instead of a socket: a workload of the `guildhall dev` that runs on the data directory.
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Shows what a JWT-SVID for this audience says as well, but not the JWT-SVID itself: it is a secret.
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataDirectory,
}

/// What the Workload API gives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    socket: String,
    x509_svids: Vec<Leaf>,
    jwt_svids: Vec<Token>,
    /// Whom this process trusts.
    roots: Vec<Root>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Leaf {
    id: String,
    #[serde(flatten)]
    certificate: Certificate,
    /// Between the leaf and a root.
    intermediates: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    trust_domain: String,
    #[serde(flatten)]
    certificate: Certificate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    subject: String,
    issuer: String,
    serial: String,
    key: String,
    not_before: Timestamp,
    not_after: Timestamp,
    seconds_left: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    id: String,
    audience: Vec<String>,
    key_id: String,
    expires: Timestamp,
    seconds_left: u64,
}

pub async fn run(options: Options) -> Result<()> {
    let socket = socket(&options)?;
    let asked = async {
        let client = WorkloadApiClient::connect_to(&socket).await?;
        let x509 = client.fetch_x509_context().await?;
        let mut tokens = Vec::new();
        if !options.audiences.is_empty() {
            tokens = client.fetch_all_jwt_svids(&options.audiences, None::<&SpiffeId>).await?;
        }
        Ok((x509, tokens))
    };
    let answer = timeout(ANSWER, asked).await.with_context(|| {
        format!("{socket} does not answer within {} s: what listens there is no Workload API", ANSWER.as_secs())
    })?;
    let (x509, tokens) = answer.map_err(|error| refused(error, &socket))?;
    let report = Report::new(socket, &x509, &tokens, Source::system().now())?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

fn socket(options: &Options) -> Result<String> {
    let workload = match (&options.workload, &options.socket) {
        (None, Some(socket)) => return Ok(socket.clone()),
        (workload, _) => workload.as_deref().unwrap_or("operator"),
    };
    let dev = DevFile::read(&options.data.data_dir).context("say whom to ask with --socket unix:PATH")?;
    let known = dev.identities.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    dev.identities
        .get(workload)
        .cloned()
        .with_context(|| format!("`guildhall dev` has no workload `{workload}`, but {known}"))
}

fn refused(error: WorkloadApiError, socket: &str) -> anyhow::Error {
    let what = match error {
        WorkloadApiError::NoIdentityIssued => format!(
            "the Workload API at {socket} knows nobody like this process (user {}): there is no registration entry that fits it",
            whoami()
        ),
        WorkloadApiError::Transport(_) => {
            format!("nobody answers at {socket}: does the agent run there, and may this user open the socket?")
        }
        _ => format!("the Workload API at {socket} gives no identity"),
    };
    anyhow::Error::new(error).context(what)
}

/// The number of the user that this process runs as: what an attestor sees of it.
fn whoami() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or(0, |own| own.uid())
}

impl Report {
    fn new(socket: String, x509: &X509Context, tokens: &[JwtSvid], now: Timestamp) -> Result<Self> {
        let roots = x509.bundle_set().iter().flat_map(|(domain, bundle)| {
            bundle.authorities().iter().map(|root| {
                let certificate = Certificate::read(root.as_bytes(), now)?;
                Ok(Root { trust_domain: domain.to_string(), certificate })
            })
        });
        Ok(Self {
            socket,
            x509_svids: x509.svids().iter().map(|svid| Leaf::new(svid, now)).collect::<Result<_>>()?,
            jwt_svids: tokens.iter().map(|token| Token::new(token, now)).collect(),
            roots: roots.collect::<Result<_>>()?,
        })
    }

    fn print(&self) {
        println!("{}", self.socket);
        for Leaf { id, certificate, intermediates } in &self.x509_svids {
            println!("\nX.509-SVID {id}");
            println!("  issuer   {}", certificate.issuer);
            println!("  serial   {}", certificate.serial);
            println!("  key      {}", certificate.key);
            certificate.print_validity();
            if *intermediates > 0 {
                println!("  chain    {intermediates} intermediate certificates");
            }
        }
        for Token { id, audience, key_id, expires, seconds_left } in &self.jwt_svids {
            println!("\nJWT-SVID {id}");
            println!("  audience {}", audience.join(" "));
            println!("  key id   {key_id}");
            println!("  until    {expires} ({})", left(*seconds_left));
        }
        for Root { trust_domain, certificate } in &self.roots {
            println!("\nroot of spiffe://{trust_domain}");
            println!("  subject  {}", certificate.subject);
            println!("  key      {}", certificate.key);
            certificate.print_validity();
        }
    }
}

impl Leaf {
    fn new(svid: &X509Svid, now: Timestamp) -> Result<Self> {
        Ok(Self {
            id: svid.spiffe_id().to_string(),
            certificate: Certificate::read(svid.leaf().as_bytes(), now)?,
            intermediates: svid.cert_chain().len() - 1,
        })
    }
}

impl Token {
    fn new(token: &JwtSvid, now: Timestamp) -> Self {
        let expires = Timestamp::from(token.expiry());
        Self {
            id: token.spiffe_id().to_string(),
            audience: token.audience().to_vec(),
            key_id: token.key_id().to_owned(),
            expires,
            seconds_left: expires.since(now).as_secs(),
        }
    }
}

impl Certificate {
    fn read(der: &[u8], now: Timestamp) -> Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der).context("a certificate cannot be read")?;
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_seconds(time.timestamp());
        let validity = certificate.validity();
        let not_after = time(validity.not_after);
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            key: key(&certificate),
            not_before: time(validity.not_before),
            not_after,
            seconds_left: not_after.since(now).as_secs(),
        })
    }

    fn print_validity(&self) {
        println!("  from     {}", self.not_before);
        println!("  until    {} ({})", self.not_after, left(self.seconds_left));
    }
}

/// The algorithm and size of a certificate's key.
fn key(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(key)) => format!("EC P-{}", key.key_size()),
        _ => format!("algorithm {}", info.algorithm.algorithm),
    }
}

fn left(seconds: u64) -> String {
    match seconds {
        0 => "expired".to_owned(),
        _ => format!("{} left", humantime::format_duration(Duration::from_secs(seconds))),
    }
}
