//! Redis for tests.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use ids::Source;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{Keyspace, Settings};

/// Names a Redis server that tests share, each under a prefix of its own.
pub const REDIS: &str = "GUILDHALL_TEST_REDIS";

/// How long a server halts that halts for long: longer than any command waits, any lease lasts and any failover takes.
pub const HALT: Duration = Duration::from_secs(30);

/// How long a server may take to answer on a machine that is busy.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A keyspace of the test's own on the server that [`REDIS`] names. The test fails if it names none.
pub fn keyspace() -> Keyspace {
    let url = std::env::var(REDIS).unwrap_or_else(|_| {
        panic!("{REDIS} is not set: it names the Redis server to test on, as `cargo xtask test` does")
    });
    let prefix = format!("test-{}", Uuid::from_bytes(Source::system().bytes()).simple());
    Keyspace::open(&Settings { prefix, ..Settings::new(url) }).expect("the settings are valid")
}

/// A server of the test's own, to be mistreated: paused, killed, filled. Dropped, it is gone.
pub struct Server {
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    cluster: bool,
    process: Option<Child>,
}

impl Server {
    /// Starts one that keeps nothing on disk. `options` are those of `redis-server`: `--maxmemory 2mb`, say.
    pub async fn start(options: &[&str]) -> Self {
        let mut server = Self::new(options, false);
        server.restart().await;
        server
    }

    /// Starts a cluster of one node, which has every slot.
    pub async fn start_cluster() -> Self {
        let bus = free_port().to_string();
        let mut server = Self::new(&["--cluster-enabled", "yes", "--cluster-port", &bus], true);
        server.launch();
        let alone = Keyspace::open(&Settings::new(server.url())).expect("the settings are valid");
        answering(&alone, &redis::cmd("PING")).await;
        let all = redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).to_owned();
        alone.run::<()>(&all).await.expect("the slots are free");
        let keyspace = server.keyspace();
        answering(&keyspace, redis::cmd("EXISTS").arg(keyspace.key("a", "b"))).await;
        server
    }

    fn new(options: &[&str], cluster: bool) -> Self {
        Self {
            directory: TempDir::new().expect("a directory for the test"),
            port: free_port(),
            options: ["--save", "", "--appendonly", "no"].iter().chain(options).map(|&word| word.to_owned()).collect(),
            cluster,
            process: None,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its only keyspace, with a short limit for commands.
    pub fn keyspace(&self) -> Keyspace {
        let settings =
            Settings { timeout: Duration::from_millis(500), cluster: self.cluster, ..Settings::new(self.url()) };
        Keyspace::open(&settings).expect("the settings are valid")
    }

    /// Starts it again on the same port and directory, after [`Server::kill`].
    pub async fn restart(&mut self) {
        self.launch();
        answering(&self.keyspace(), &redis::cmd("PING")).await;
    }

    fn launch(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]).args(&self.options);
        command.arg("--dir").arg(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        self.process = Some(command.spawn().expect("redis-server is installed"));
    }

    /// Ends it at once: what it had in memory alone is lost.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.expect("the server runs");
        }
    }

    /// Halts it: connections stay, nobody answers. [`HALT`] is long.
    pub async fn pause(&self) {
        self.signal("-STOP").await;
    }

    /// Lets it go on.
    pub async fn resume(&self) {
        self.signal("-CONT").await;
    }

    /// Makes it full: what needs memory is refused.
    pub async fn fill(&self) {
        self.limit_memory(1).await;
    }

    /// Gives it room again, after [`Server::fill`].
    pub async fn make_room(&self) {
        self.limit_memory(0).await;
    }

    async fn limit_memory(&self, bytes: u32) {
        let mut limit = redis::cmd("CONFIG");
        limit.arg("SET").arg("maxmemory").arg(bytes).arg("maxmemory-policy").arg("noeviction");
        self.keyspace().run::<()>(&limit).await.expect("Redis answers");
    }

    async fn signal(&self, signal: &str) {
        let process = self.process.as_ref().and_then(Child::id).expect("the server runs");
        let sent = Command::new("kill").args([signal, &process.to_string()]).status().await;
        assert!(sent.expect("kill is there").success());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.expect("a free port").port()
}

/// Waits until a command is answered.
async fn answering(keyspace: &Keyspace, command: &redis::Cmd) {
    let mut last = None;
    let answering = async {
        while let Err(error) = keyspace.run::<redis::Value>(command).await {
            last = Some(error);
            sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(START, answering).await.is_ok();
    assert!(in_time, "redis-server does not answer: {last:?}");
}
