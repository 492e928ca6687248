use std::net::SocketAddr;
use std::time::Duration;

use chassis::config::Overrides;
use chassis::{Bound, DrainSettings, Error, ServerSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The settings of a server in a test: free ports, and no pause at its end.
pub fn server_settings() -> ServerSettings {
    let any = ([127, 0, 0, 1], 0).into();
    let drain = DrainSettings { unready: Duration::ZERO, grace: Duration::from_secs(2) };
    ServerSettings { listen: any, admin_listen: any, drain, max_calls: 1024 }
}

/// The same over a service's defaults, for [`chassis::config::load`].
pub fn overrides() -> Overrides {
    let settings = server_settings();
    Overrides::new()
        .set("server.listen", settings.listen)
        .set("server.admin_listen", settings.admin_listen)
        .set("server.drain.unready", format!("{}ms", settings.drain.unready.as_millis()))
        .set("server.drain.grace", format!("{}ms", settings.drain.grace.as_millis()))
}

/// How long a service may take to become ready.
const START: Duration = Duration::from_secs(20);
/// How often something is looked at again that cannot be waited for.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// A service that serves. Dropped, it begins to drain; [`Service::stop`] waits for the end.
pub struct Service {
    address: SocketAddr,
    admin_address: SocketAddr,
    drain: CancellationToken,
    serving: JoinHandle<Result<(), Error>>,
}

impl Service {
    pub(crate) fn start(bound: Bound) -> Self {
        let (address, admin_address) = (bound.address(), bound.admin_address());
        let drain = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(drain.clone()));
        Self { address, admin_address, drain, serving }
    }

    /// Where it listens on the mesh.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin port is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// GETs a path of the admin port: the status and the body. 0 while nobody answers.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let asked = async {
            let mut connection = TcpStream::connect(self.admin_address).await?;
            connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let Ok(answer) = asked.await else { return (0, String::new()) };
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }

    /// Returns when `/readyz` says so.
    pub async fn ready(&self) {
        let ready = async {
            while self.admin("/readyz").await.0 != 200 {
                assert!(!self.serving.is_finished(), "the service has ended before it was ready");
                sleep(POLL).await;
            }
        };
        let in_time = timeout(START, ready).await.is_ok();
        assert!(in_time, "the service is not ready: {}", self.admin("/readyz").await.1);
    }

    /// Tells it to end, and does not wait.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends it in order, and says how that went.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.drain.cancel();
        (&mut self.serving).await.expect("serve does not panic")
    }

    /// Waits until it ends by itself, and says why.
    pub async fn ended(mut self) -> Result<(), Error> {
        (&mut self.serving).await.expect("serve does not panic")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}
