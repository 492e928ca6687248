//! The auth service: accounts, sessions, access tokens and the keys that sign them.
//!
//! `account`, `password`, `session`, `token`, `signing_key`, `code`, `role`, `profile`, `settings`, `attempt`, `mail`, `seal` and
//! `permit` are the domain: types and rules, no gRPC, no SQL, no HTTP. [`rpc`] and [`http`] turn requests into it, `store` keeps it,
//! `delivery`, `rotation` and `retention` work in the background.
//!
//! To add an RPC, write it in `proto/guildhall/auth/v1/`, and its handler in the file of `src/rpc/` whose noun it has: parse into
//! domain types, lock the account, apply the rule, save, announce, commit. To add a table, add a migration of the same name to
//! `migrations/postgres` and `migrations/sqlite`, and a module to `src/store/`.

mod account;
mod attempt;
mod code;
mod config;
mod delivery;
mod events;
mod first_admin;
mod http;
mod mail;
mod password;
mod permit;
mod problem;
mod profile;
mod retention;
mod role;
mod rotation;
mod rpc;
mod seal;
mod session;
mod settings;
mod signing_key;
mod store;
mod token;

use std::{collections::BTreeMap, sync::Arc};

use ::events::{DeadLetterRpc, DeadLetters, Lease, Outbox, Relay};
use ::store::{Db, page};
use aws_lc_rs::hmac;
use chassis::{Bound, BoxError, Builder, Platform, Process};
use contracts::{
    auth::v1::{
        account_service_server::AccountServiceServer, profile_service_server::ProfileServiceServer,
        token_service_server::TokenServiceServer,
    },
    common::v1::dead_letter_service_server::DeadLetterServiceServer,
};
use ids::Source;
use limit::Limits;
use mesh::{Identity, token::Verifier};
use status::Problem;
use tokio::sync::Notify;

pub use self::{
    attempt::{Allowance, Settings as AttemptSettings},
    config::{Config, DEFAULTS, SessionSettings, SigningKeySettings},
    first_admin::FirstAdmin,
    mail::{Settings as MailSettings, Transport},
    password::Settings as PasswordSettings,
    store::ALL_MIGRATIONS as MIGRATIONS,
};
use self::{
    delivery::Delivery,
    events::Announcer,
    password::Hasher,
    rotation::Rotation,
    seal::Seal,
    signing_key::{KeyRing, Private, Schedule},
    token::{Issuer, Scopes},
};

/// The service's name: its workload, its section of the settings, the source of its events.
const NAME: &str = "auth";

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the setting `{0}` is not valid: {1}")]
    Setting(&'static str, String),
    #[error("the database")]
    Store(#[from] ::store::Error),
    #[error("the mailer")]
    Mail(#[from] mail::Error),
    #[error("passwords")]
    Password(#[from] password::Error),
    #[error("the server")]
    Chassis(#[from] chassis::Error),
    #[error("the first admin could not be made")]
    FirstAdmin(#[source] BoxError),
}

/// What every handler works with.
pub(crate) struct Auth {
    db: Db,
    source: Source,
    identity: Identity,
    issuer: Issuer,
    verifier: Verifier,
    hasher: Hasher,
    limits: Arc<dyn Limits>,
    attempts: attempt::Settings,
    sessions: session::Policy,
    refresh_key: hmac::Key,
    page_tokens: page::Tokens,
    announcer: Announcer,
    mail_bell: Arc<Notify>,
    workload_scopes: BTreeMap<String, Scopes>,
}

impl Auth {
    /// Asks for a mail, to be sent once `tx` has committed.
    async fn ask_for_mail(&self, tx: &mut ::store::Tx, kind: mail::Kind, email_key: &str) -> Result<(), Problem> {
        let bell = Arc::clone(&self.mail_bell);
        Ok(store::mail::insert(tx, self.source.id(), kind, email_key, self.source.now(), bell).await?)
    }

    /// The first `size` of `rows`, and the token of the page after them if there is one more.
    fn cut<T, C: serde::Serialize>(
        &self,
        scope: &str,
        size: usize,
        mut rows: Vec<T>,
        cursor: impl Fn(&T) -> C,
    ) -> (Vec<T>, String) {
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|last| self.page_tokens.issue(scope, &cursor(last)));
        (rows, next.unwrap_or_default())
    }
}

/// The service in a process of its own. A first admin's password that was made up is printed, once, as the log would not: it is
/// nowhere else.
pub const PROCESS: Process<Config> = Process {
    name: NAME,
    defaults: DEFAULTS,
    build: |config, platform| {
        let given = !config.first_admin_password.is_empty();
        Box::pin(async move {
            let (bound, first_admin) = build(config, platform).await?;
            if let Some(admin) = first_admin.filter(|_| !given) {
                println!(
                    "The first admin is {}, with the password {} until they change it",
                    admin.email,
                    admin.password()
                );
            }
            Ok(bound)
        })
    },
};

/// Builds the service: migrates its database, and binds its ports. It is ready once it has a key to sign with.
///
/// Also answers the first admin, where the setting `first_admin` asked for one and nobody was admin.
pub async fn build(config: Config, platform: Platform) -> Result<(Bound, Option<FirstAdmin>), Error> {
    let source = platform.source.clone();
    config.check()?;
    let workload_scopes = config.scopes_of_workloads()?;
    let mailer = config.mail.mailer()?;
    let hasher = Hasher::new(&config.password, source.clone())?;
    let db = config.database.open().await?;

    // Making a key takes longer than all the rest, so it starts beside the migrations where there can be none yet.
    let keyless = store::signing_key::list(&mut db.read().await?).await.map_or(true, |keys| keys.is_empty());
    let spare = keyless.then(|| tokio::task::spawn_blocking(Private::generate));
    db.migrate(&store::ALL_MIGRATIONS).await?;
    let ring = Arc::new(KeyRing::default());
    let verifier =
        Verifier::new(Arc::clone(&ring) as _, config.issuer.clone(), token::AUDIENCE.to_owned(), source.clone());
    let announcer = Announcer::new(Outbox::new(NAME, source.clone()), verifier.clone());
    let first_admin = match config.first_admin.as_str() {
        "" => None,
        email => first_admin::create(&db, &hasher, &announcer, &source, email, config.first_admin_password)
            .await
            .map_err(Error::FirstAdmin)?,
    };

    let auth = Arc::new(Auth {
        db: db.clone(),
        source: source.clone(),
        identity: platform.identity.clone(),
        issuer: Issuer {
            name: config.issuer.clone(),
            trust_domain: platform.identity.trust_domain().clone(),
            require_verified_email: config.require_verified_email,
            keys: Arc::clone(&ring),
            source: source.clone(),
        },
        verifier: verifier.clone(),
        hasher,
        limits: Arc::clone(&platform.limits),
        attempts: config.attempts,
        sessions: session::Policy {
            idle: config.sessions.idle,
            absolute: config.sessions.absolute,
            grace: config.sessions.refresh_grace,
        },
        refresh_key: hmac::Key::new(hmac::HMAC_SHA256, &platform.key.derive("auth.refresh-tokens")),
        page_tokens: page::Tokens::new(platform.key.derive("auth.page-tokens")),
        announcer,
        mail_bell: Arc::default(),
        workload_scopes,
    });
    let delivery = Delivery {
        db: db.clone(),
        source: source.clone(),
        mailer,
        bell: Arc::clone(&auth.mail_bell),
        issuer: config.issuer,
    };
    let rotation = Rotation {
        db: db.clone(),
        source: source.clone(),
        seal: Seal::new(&platform.key.derive("auth.signing-keys")),
        schedule: Schedule {
            rotate_every: config.signing_keys.rotate_every,
            publish_before: config.signing_keys.publish_before,
            token_life: token::LIFE,
        },
        lease: Lease::new(db.clone(), "auth.signing-keys", rotation::LEASE, &source),
        ring,
        check_every: config.signing_keys.check_every,
    };
    let relay = Relay::new(db.clone(), NAME, Arc::clone(&platform.bus), source.clone());
    let dead_letters = DeadLetterRpc::new(DeadLetters::new(db.clone(), source.clone()), auth.page_tokens.clone());

    let builder = Builder::new(NAME, config.server, &platform);
    let keys_gate = builder.gate("signing keys");
    let bound = builder
        .verifier(verifier)
        .grpc(AccountServiceServer::new(rpc::Accounts(Arc::clone(&auth))))
        .grpc(ProfileServiceServer::new(rpc::Profiles(Arc::clone(&auth))))
        .grpc(TokenServiceServer::new(rpc::Tokens(Arc::clone(&auth))))
        .grpc(DeadLetterServiceServer::new(dead_letters))
        .http(http::router(auth))
        .task("signing keys", |drain| rotation.run(spare, keys_gate, drain))
        .task("mail", |drain| delivery.run(drain))
        .task("retention", {
            let db = db.clone();
            |drain| retention::run(db, source, drain)
        })
        .relay(relay)
        .database(db)
        .bind()
        .await?;
    Ok((bound, first_admin))
}
