//! Content: posts with their versions, search and statistics; categories and tags; feeds; portfolios.
//!
//! The modules named after nouns ([`post`], [`slug`], [`search`] and so on) hold types and rules and do no I/O. `store/` has the SQL, `rpc/` the
//! calls, `events` what is told and heard, `tasks` what runs behind.
//!
//! # To add an RPC
//! Write it in `proto/guildhall/content/v1` and implement the method that the compiler then asks for in `rpc/`. A rule about one
//! resource goes into [`permit`] under the name that the contract gives it.

mod alias;
mod author;
mod category;
mod diff;
mod directory;
mod error;
mod etag;
mod events;
mod feed;
mod import;
mod language;
mod markdown;
mod mask;
mod name;
mod permit;
mod portfolio;
mod post;
mod resume;
mod revision;
mod rpc;
mod search;
mod slug;
mod store;
mod tag;
mod tasks;
mod version;
mod view;

use std::sync::Arc;

use ::events::{DeadLetterRpc, DeadLetters, Outbox, Relay};
use ::store::Migrations;
use ::store::page::Tokens;
use chassis::{Bound, Builder, DatabaseSettings, Platform, Process, ServerSettings};
use contracts::common::v1::dead_letter_service_server::DeadLetterServiceServer;
use contracts::content::v1::category_service_server::CategoryServiceServer;
use contracts::content::v1::feed_service_server::FeedServiceServer;
use contracts::content::v1::portfolio_service_server::PortfolioServiceServer;
use contracts::content::v1::post_service_server::PostServiceServer;
use contracts::content::v1::tag_service_server::TagServiceServer;
use mesh::token::{RemoteKeys, Verifier};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::directory::Directory;
use crate::events::{AuthorNames, Suspensions};
use crate::feed::Site;
use crate::rpc::Content;
use crate::rpc::category::Categories;
use crate::rpc::feed::Feeds;
use crate::rpc::portfolio::Portfolios;
use crate::rpc::post::Posts;
use crate::rpc::tag::Tags;
use crate::tasks::Task;
use crate::view::Buffer;

/// The service's name: that of its workload, its section of the settings, and the source of its events.
pub const NAME: &str = "content";

/// Every setting with its default.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The `aud` of access tokens: they are good for all of the platform.
const AUDIENCE: &str = "guildhall";

/// The tables of this service, and before them those that it stands on.
pub static MIGRATIONS: [&Migrations; 3] = [&::store::MIGRATIONS, &::events::MIGRATIONS, &OWN_MIGRATIONS];

static OWN_MIGRATIONS: Migrations = ::store::migrations!("migrations");

/// The settings of content; `config.default.toml` explains them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens and how it ends.
    pub server: ServerSettings,
    /// Its database.
    pub database: DatabaseSettings,
    /// The `iss` of the access tokens that callers bring.
    pub issuer: String,
    /// The address that people know the platform by, without a slash at the end: feeds and the sitemap lead there.
    pub site_url: String,
    /// What feeds call the site.
    pub site_title: String,
    /// Where a post is on the site: a path in which `{id}` and `{slug}` stand for the post's.
    pub post_path: String,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened or migrated.
    #[error("the database")]
    Store(#[from] ::store::Error),
    /// It cannot listen, or subscribe to events.
    #[error("the server")]
    Chassis(#[from] chassis::Error),
    /// The settings describe no site that feeds could lead to.
    #[error("the site")]
    Site(#[from] feed::Error),
}

/// The service in a process of its own.
pub const PROCESS: Process<Config> = Process {
    name: NAME,
    defaults: DEFAULTS,
    build: |config, platform| Box::pin(async { Ok(build(config, platform).await?) }),
};

/// Builds the service: migrates its database, and binds its ports. Waits until it is known where auth is; it is ready once it has
/// auth's keys and has heard of the tokens that were revoked lately.
pub async fn build(config: Config, platform: Platform) -> Result<Bound, Error> {
    let site = Site::new(config.site_url, config.site_title, config.post_path)?;
    let source = platform.source.clone();
    let db = config.database.open().await?;
    db.migrate(&MIGRATIONS).await?;

    let auth = platform.connect(&"auth".parse().expect("`auth` is the name of a workload")).await;
    let keys = RemoteKeys::new(auth.clone());
    let verifier = Verifier::new(keys.clone(), config.issuer, AUDIENCE.to_owned(), source.clone());
    let directory = Directory::new(auth);
    let tokens = Tokens::new(platform.key.derive("content.page-tokens"));
    let dead_letters = DeadLetters::new(db.clone(), source.clone());
    let content = Arc::new(Content {
        db: db.clone(),
        outbox: Outbox::new(NAME, source.clone()),
        source: source.clone(),
        tokens: tokens.clone(),
        views: Buffer::default(),
        flushing: Mutex::default(),
        directory: directory.clone(),
    });

    let task = |task: Task| {
        let content = Arc::clone(&content);
        |stop| task.run(content, stop)
    };
    let bound = Builder::new(NAME, config.server, &platform)
        .verifier(verifier)
        .keys(keys)
        .grpc(PostServiceServer::new(Posts(Arc::clone(&content))))
        .grpc(CategoryServiceServer::new(Categories(Arc::clone(&content))))
        .grpc(TagServiceServer::new(Tags(Arc::clone(&content))))
        .grpc(PortfolioServiceServer::new(Portfolios(Arc::clone(&content))))
        .grpc(FeedServiceServer::new(Feeds::new(Arc::clone(&content), site, platform.keyspace.clone())))
        .grpc(DeadLetterServiceServer::new(DeadLetterRpc::new(dead_letters.clone(), tokens)))
        .task(tasks::SCHEDULE.name, task(tasks::SCHEDULE))
        .task(tasks::VIEWS.name, task(tasks::VIEWS))
        .task(tasks::NAMES.name, task(tasks::NAMES))
        .task(tasks::PURGE.name, task(tasks::PURGE))
        .relay(Relay::new(db.clone(), NAME, Arc::clone(&platform.bus), source.clone()))
        .consumer(
            AuthorNames::SUBSCRIPTION,
            Arc::new(AuthorNames::new(db.clone(), source.clone(), directory)),
            dead_letters.clone(),
        )
        .consumer(Suspensions::SUBSCRIPTION, Arc::new(Suspensions::new(db.clone(), source)), dead_letters)
        .database(db)
        .bind()
        .await?;
    Ok(bound)
}
