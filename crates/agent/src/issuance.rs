use bytes::Bytes;
use ids::{Source, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, watch};

use crate::{Error, Settings, api, authority, authority::Authority};

const FILE: &str = "authority.json";

/// Everything that holds at one moment. Streams push it whole, whenever it changes.
pub(crate) struct State {
    /// X.509-SVIDs by workload.
    pub(crate) svids: HashMap<String, api::X509svid>,
    /// Root certificates, DER, one after the other.
    pub(crate) bundle: Bytes,
    /// A JWK set.
    pub(crate) jwks: Bytes,
    /// Signs what is issued now.
    pub(crate) signer: Arc<Authority>,
    /// Whoever's signatures count, the signer included.
    pub(crate) trusted: Vec<Arc<Authority>>,
    issued: Timestamp,
}

/// Decides what is issued: owns the authorities, and publishes each new [`State`].
pub(crate) struct Issuance {
    settings: Settings,
    authorities: Mutex<Authorities>,
    state: watch::Sender<Arc<State>>,
}

struct Authorities {
    current: Arc<Authority>,
    /// Trusted already, signs nothing yet.
    next: Option<Arc<Authority>>,
    /// Sign nothing any more, trusted until their last SVIDs have expired.
    retired: Vec<Retired>,
}

struct Retired {
    authority: Arc<Authority>,
    until: Timestamp,
}

/// What a restart finds.
#[derive(Serialize, Deserialize)]
struct File {
    trust_domain: String,
    current: authority::Stored,
    retired: Vec<(authority::Stored, Timestamp)>,
}

impl Authorities {
    fn trusted(&self) -> Vec<Arc<Authority>> {
        let retired = self.retired.iter().map(|retired| &retired.authority);
        [&self.current].into_iter().chain(&self.next).chain(retired).cloned().collect()
    }
}

impl Issuance {
    /// Takes the authority of an earlier run from `directory`, or creates one there.
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let authorities = match load(&settings)? {
            Some(authorities) => authorities,
            None => Authorities {
                current: Arc::new(Authority::generate(&settings.trust_domain, &settings.source)?),
                next: None,
                retired: Vec::new(),
            },
        };
        save(&settings, &authorities)?;
        let state = watch::Sender::new(Arc::new(issue(&settings, &authorities)?));
        Ok(Self { settings, authorities: Mutex::new(authorities), state })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn source(&self) -> &Source {
        &self.settings.source
    }

    pub(crate) fn spiffe_id(&self, workload: &str) -> String {
        spiffe_id(&self.settings, workload)
    }

    pub(crate) async fn rotate(&self) -> Result<(), Error> {
        self.publish(&*self.authorities.lock().await)
    }

    /// Trusts the successor first, and lets it sign once everybody can have heard of it.
    pub(crate) async fn rotate_authority(&self) -> Result<(), Error> {
        let mut authorities = self.authorities.lock().await;
        let next = Arc::new(Authority::generate(&self.settings.trust_domain, &self.settings.source)?);
        authorities.next = Some(next);
        self.publish(&authorities)?;

        tokio::time::sleep(self.propagation()).await;

        if let Some(next) = authorities.next.take() {
            let until = self.source().now() + self.settings.svid_lifetime;
            let retired = std::mem::replace(&mut authorities.current, next);
            authorities.retired.push(Retired { authority: retired, until });
        }
        save(&self.settings, &authorities)?;
        self.publish(&authorities)
    }

    /// Renews whatever is due, for as long as it is polled.
    ///
    /// It looks at the clock often instead of sleeping until the next renewal: a sleep stands still while a laptop is
    /// suspended, a certificate's validity does not.
    pub(crate) async fn run(&self) {
        let every = (self.settings.svid_lifetime / 20).clamp(Duration::from_millis(50), Duration::from_secs(5));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.renew().await {
                tracing::error!(error = &error as &dyn std::error::Error, "The dev agent could not renew its SVIDs");
            }
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        let now = self.source().now();
        let mut authorities = self.authorities.lock().await;
        if authorities.current.is_ageing(now) {
            drop(authorities);
            return self.rotate_authority().await;
        }
        let kept = authorities.retired.len();
        authorities.retired.retain(|retired| now < retired.until);
        let forget = authorities.retired.len() < kept;
        if forget {
            save(&self.settings, &authorities)?;
        }
        let due = now >= self.state.borrow().issued + self.settings.svid_lifetime / 2;
        if forget || due { self.publish(&authorities) } else { Ok(()) }
    }

    fn publish(&self, authorities: &Authorities) -> Result<(), Error> {
        self.state.send_replace(Arc::new(issue(&self.settings, authorities)?));
        Ok(())
    }

    /// How long a new root takes to reach every process of this machine.
    fn propagation(&self) -> Duration {
        (self.settings.svid_lifetime / 20).clamp(Duration::from_millis(200), Duration::from_secs(5))
    }
}

fn issue(settings: &Settings, authorities: &Authorities) -> Result<State, Error> {
    let issued = settings.source.now();
    let trusted = authorities.trusted();
    let bundle = Bytes::from(trusted.iter().flat_map(|authority| authority.root()).copied().collect::<Vec<u8>>());
    let keys = trusted.iter().map(|authority| authority.jwk()).collect::<Result<Vec<_>, _>>()?;
    let svids = settings.workloads.iter().map(|workload| {
        let id = spiffe_id(settings, workload);
        let svid = authorities.current.x509_svid(&id, issued, settings.svid_lifetime)?;
        Ok((workload.clone(), api::X509svid { bundle: bundle.clone(), ..svid }))
    });
    Ok(State {
        svids: svids.collect::<Result<_, Error>>()?,
        bundle,
        jwks: serde_json::json!({ "keys": keys }).to_string().into(),
        signer: Arc::clone(&authorities.current),
        trusted,
        issued,
    })
}

fn spiffe_id(settings: &Settings, workload: &str) -> String {
    format!("spiffe://{}/ns/{}/sa/{workload}", settings.trust_domain, settings.namespace)
}

/// Nothing there, or nothing that outlives an SVID, means that a new authority is needed. One that is merely old is used, and
/// replaced by the first renewal: then everybody hears of its successor before that signs.
fn load(settings: &Settings) -> Result<Option<Authorities>, Error> {
    let path = settings.directory.join(FILE);
    let failed = |source| Error::File { path: path.clone(), source };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if fs::metadata(&path).map_err(failed)?.mode() & 0o077 != 0 {
        return Err(Error::Exposed(path));
    }
    let file: File =
        serde_json::from_slice(&text).map_err(|source| Error::Unreadable { path: path.clone(), source })?;
    if file.trust_domain != settings.trust_domain {
        return Err(Error::TrustDomain { path, kept: file.trust_domain });
    }
    let restore = |stored| Authority::restore(&file.trust_domain, stored).map(Arc::new);
    let current = restore(file.current)?;
    if !current.outlives(settings.source.now() + settings.svid_lifetime) {
        return Ok(None);
    }
    let retired = file.retired.into_iter();
    let retired = retired
        .map(|(stored, until)| Ok(Retired { authority: restore(stored)?, until }))
        .collect::<Result<_, Error>>()?;
    Ok(Some(Authorities { current, next: None, retired }))
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn save(settings: &Settings, authorities: &Authorities) -> Result<(), Error> {
    let file = File {
        trust_domain: settings.trust_domain.clone(),
        current: authorities.current.stored().clone(),
        retired: authorities
            .retired
            .iter()
            .map(|retired| (retired.authority.stored().clone(), retired.until))
            .collect(),
    };
    let text = serde_json::to_vec(&file).expect("plain strings always serialize");
    let path = settings.directory.join(FILE);
    write(&path, &text).map_err(|source| Error::File { path, source })
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, path)
}
