//! `guildhall events`: the events that a service could not handle, seen and replayed as the workload `operator`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use chassis::process;
use clap::{Args, Subcommand};
use contracts::common::v1::dead_letter_service_client::DeadLetterServiceClient;
use contracts::common::v1::{DeadLetter, DeadLetterServiceListRequest, DeadLetterServiceReplayRequest};
use ids::Timestamp;
use mesh::{Channel, Endpoints, Identity, IdentitySettings};
use status::Problem;

use crate::agent::NAMESPACE;
use crate::dev_file::{DataDirectory, DevFile};

#[derive(Subcommand)]
pub enum Command {
    /// Lists dead letters: events that a consumer gave up on, with the last failure.
    List(Selection),
    /// Hands dead letters to their consumers once more; those that are taken now are removed.
    Replay {
        #[command(flatten)]
        selection: Selection,
        /// Only these, by their ids; without any, all of the consumer's.
        #[arg(long = "id", value_name = "ID", required_unless_present = "consumer")]
        ids: Vec<String>,
    },
}

#[derive(Args)]
pub struct Selection {
    /// The service that the consumer belongs to.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Only this consumer's, such as `content.author_names`.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Where processes of their own run: their file of settings, whose [platform] says where the service is, and where `operator`
    /// gets its identity (or SPIFFE_ENDPOINT_SOCKET does). Without it, the `guildhall dev` that runs on the data directory is asked.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    data: DataDirectory,
}

pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::List(selection) => list(&selection).await,
        Command::Replay { selection, ids } => replay(&selection, ids).await,
    }
}

async fn list(selection: &Selection) -> Result<()> {
    let mut client = connect(selection).await?;
    let mut page_token = String::new();
    let mut count = 0;
    loop {
        let request = DeadLetterServiceListRequest {
            consumer: selection.consumer.clone().unwrap_or_default(),
            page_size: 100,
            page_token,
        };
        let page = client.list(request).await.map_err(refused)?.into_inner();
        count += page.dead_letters.len();
        page.dead_letters.iter().for_each(print);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    println!("{count} dead letters in {}", selection.service);
    Ok(())
}

async fn replay(selection: &Selection, ids: Vec<String>) -> Result<()> {
    let request = DeadLetterServiceReplayRequest { ids, consumer: selection.consumer.clone().unwrap_or_default() };
    let answer = connect(selection).await?.replay(request).await.map_err(refused)?.into_inner();
    println!("{} replayed, {} failed again and stay", answer.replayed, answer.failed);
    ensure!(answer.failed == 0, "`guildhall events list {}` shows why", selection.service);
    Ok(())
}

fn print(letter: &DeadLetter) {
    let time = letter.create_time.and_then(|time| Timestamp::try_from(time).ok());
    println!(
        "{}  {}  {} {}  {} attempts, {}\n    {}",
        letter.id,
        letter.consumer,
        letter.topic,
        letter.key,
        letter.attempts,
        time.map(|time| time.to_string()).unwrap_or_default(),
        letter.reason
    );
}

async fn connect(selection: &Selection) -> Result<DeadLetterServiceClient<Channel>> {
    let (identity, endpoints) = match &selection.config {
        Some(file) => deployed(file, &selection.service)?,
        None => in_dev(selection)?,
    };
    let identity =
        Identity::connect(identity).await.context("the operator gets no identity: does the agent still run?")?;
    Ok(DeadLetterServiceClient::new(mesh::connect(&identity, selection.service.parse()?, endpoints)))
}

fn deployed(file: &Path, service: &str) -> Result<(IdentitySettings, Endpoints)> {
    let settings = process::Settings::load(Some(file))?;
    let known = settings.services.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let endpoints = settings.endpoints()?.remove(service);
    Ok((settings.identity()?, endpoints.with_context(|| format!("there is no service `{service}`: {known}"))?))
}

fn in_dev(selection: &Selection) -> Result<(IdentitySettings, Endpoints)> {
    let dev = DevFile::read(&selection.data.data_dir)?;
    let known = dev.services.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let service = dev
        .services
        .get(&selection.service)
        .with_context(|| format!("there is no service `{}`: {known}", selection.service))?;
    let identity = IdentitySettings {
        endpoint: dev.identities.get("operator").context("dev.json names no socket of the operator")?.clone(),
        trust_domain: dev.trust_domain.clone(),
        namespace: NAMESPACE.to_owned(),
    };
    Ok((identity, service.grpc.parse()?))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn refused(status: tonic::Status) -> anyhow::Error {
    let problem = Problem::from(&status);
    let fields =
        problem.violation_list().iter().map(|violation| format!("; {} {}", violation.field, violation.description));
    anyhow::anyhow!("the service refused: {}{}", problem.text(), fields.collect::<String>())
}
