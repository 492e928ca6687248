//! The dev agent: a SPIFFE Workload API server for `guildhall dev`, `guildhall agent` and tests. It takes the place of SPIRE's
//! agent: what is built against it runs against SPIRE unchanged.
//!
//! Each workload has a Unix socket of its own, and whoever may open the socket is that workload; the sockets and the
//! directory are their owner's alone. SVIDs live for minutes and are replaced at half life. The authority is kept in the
//! directory, so that a restart keeps the trust domain, and can be replaced while everything runs.
//!
//! To add a workload, name it in [`Settings::workloads`].

mod authority;
mod issuance;
mod workload_api;

#[expect(clippy::pedantic, reason = "generated")]
mod api {
    tonic::include_proto!("_");
}

use ids::Source;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixListener, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use api::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use issuance::Issuance;
use workload_api::WorkloadApi;

/// What the agent needs to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the sockets and the authority lie. Created when missing, with mode 0700; one that is open to others is refused.
    /// The path is at most about 80 bytes long, or else the sockets' names do not fit into an address.
    pub directory: PathBuf,
    /// For instance `guildhall.internal`.
    pub trust_domain: String,
    /// For instance `guildhall`.
    pub namespace: String,
    /// The workloads' service accounts, for instance `content`.
    pub workloads: Vec<String>,
    /// How long an SVID lives; it is replaced at half of that.
    pub svid_lifetime: Duration,
    /// Time and randomness. Its clock must agree with the machine's: TLS judges certificates by that.
    pub source: Source,
}

/// Why the agent failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, directory or socket could not be read or made.
    #[error("{path} cannot be used")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kept authority is damaged.
    #[error("{path} is not an authority; remove it to begin a new trust domain")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The kept authority is another trust domain's.
    #[error("{path} is the authority of {kept}: use another directory, or remove it to begin a new trust domain")]
    TrustDomain { path: PathBuf, kept: String },
    /// Others may write there, or read the keys.
    #[error("{0} is open to others: take their permissions away (`chmod go-rwx`), or use another directory")]
    Exposed(PathBuf),
    /// Another agent works there.
    #[error("another agent works in {0}")]
    InUse(PathBuf),
    /// A certificate could not be made; most likely a name is not fit for one.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A token could not be signed.
    #[error("a JWT-SVID could not be signed")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// A running agent. Dropping it stops it without waiting.
pub struct Agent {
    issuance: Arc<Issuance>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    /// Ends with the process, however it ends.
    _lock: File,
}

impl Agent {
    /// Starts serving; every workload's socket accepts connections when this returns.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let directory = settings.directory.as_path();
        private_directory(directory)?;
        let lock = lock(directory)?;
        let workloads = settings.workloads.clone();
        // It reads and writes files, and makes keys.
        let opened = tokio::task::spawn_blocking(|| Issuance::open(settings)).await;
        let issuance = Arc::new(opened.expect("opening does not panic")?);
        let mut agent = Self { issuance, tasks: JoinSet::new(), stop: CancellationToken::new(), _lock: lock };
        for workload in workloads {
            agent.serve(workload)?;
        }
        let (issuance, stop) = (Arc::clone(&agent.issuance), agent.stop.clone());
        agent.tasks.spawn(async move {
            stop.run_until_cancelled_owned(issuance.run()).await;
        });
        Ok(agent)
    }

    /// The endpoint of a workload's socket: `unix:/…`.
    pub fn endpoint(&self, workload: &str) -> String {
        format!("unix:{}", self.socket(workload).display())
    }

    /// Gives every workload a new SVID now.
    pub async fn rotate(&self) -> Result<(), Error> {
        self.issuance.rotate().await
    }

    /// Takes a new authority into use. Its root joins the bundles first; once that has had time to reach everybody, every
    /// SVID is replaced, and this returns. The old root stays until the last SVID it signed has expired.
    pub async fn rotate_authority(&self) -> Result<(), Error> {
        self.issuance.rotate_authority().await
    }

    /// Ends the streams and closes the sockets.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn socket(&self, workload: &str) -> PathBuf {
        self.issuance.settings().directory.join(format!("{workload}.sock"))
    }

    fn serve(&mut self, workload: String) -> Result<(), Error> {
        let path = self.socket(&workload);
        let listener = private_socket(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let api = WorkloadApi { workload, issuance: Arc::clone(&self.issuance), stop: self.stop.clone() };
        let service = SpiffeWorkloadApiServer::with_interceptor(api, workload_api::require_header);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(error = &error as &dyn std::error::Error, "A Workload API socket failed");
            }
            // A later start finds no stale socket; one that is left after a crash is replaced.
            let _ = fs::remove_file(path);
        });
        Ok(())
    }
}

fn private_directory(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // Its mode is never changed: a slip of the pen, such as /tmp, must not lock others out.
    let mode = fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(Error::Exposed(path.to_owned()));
    }
    Ok(())
}

/// Makes sure that no other agent works in the directory.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|source| Error::File { path, source })?;
    file.try_lock().map_err(|_| Error::InUse(directory.to_owned()))?;
    Ok(file)
}

fn private_socket(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The directory keeps others out until the socket's own mode is set.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
