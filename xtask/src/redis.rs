//! A private Redis for one run of the tests: its own directory, a free port on loopback, not root.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::tool;

/// How long the start may take on a machine that is busy.
const START: Duration = Duration::from_mins(1);

/// A running instance; dropping it stops it and removes its directory.
pub struct Instance {
    _directory: TempDir,
    port: u16,
    server: Child,
}

/// Installs Redis if the machine has none.
pub fn install() -> Result<()> {
    if tool::output(Command::new("redis-server").arg("--version")).is_err() {
        tool::install_packages(&["redis-server"])?;
    }
    Ok(())
}

impl Instance {
    /// Starts one, after installing Redis if the machine has none.
    pub fn start() -> Result<Self> {
        install()?;
        let directory = tempfile::Builder::new().prefix("guildhall-redis-").tempdir()?;
        let mut command = Command::new("redis-server");
        if tool::is_root()? {
            // The package comes with a user of its own.
            tool::output(Command::new("chown").arg("redis").arg(directory.path()))?;
            command = Command::new("setpriv");
            command.args(["--reuid", "redis", "--regid", "redis", "--clear-groups", "redis-server"]);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let server = command.spawn().context("cannot start redis-server")?;
        let mut instance = Self { _directory: directory, port, server };
        instance.wait_until_ready()?;
        Ok(instance)
    }

    #[expect(clippy::disallowed_methods, reason = "the thread has nothing else to do")]
    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if self.server.try_wait()?.is_some() || began.elapsed() > START {
                bail!("redis-server does not start: run `redis-server --port {}` to see why", self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It keeps nothing that a better end would save.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
