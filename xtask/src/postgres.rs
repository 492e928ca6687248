//! A private PostgreSQL for one run of the tests: its own data directory, a free port on loopback, not root.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::tool;

/// How long the start may take on a machine that is busy.
const START: Duration = Duration::from_mins(1);

/// A running instance; dropping it stops it and removes its data.
pub struct Instance {
    programs: PathBuf,
    directory: TempDir,
    owner: Option<&'static str>,
    port: u16,
    url: String,
    server: Option<Child>,
}

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Calls in flight are broken off, and all that was committed is written.
    Fast,
    /// As a crash does.
    Immediate,
}

/// Installs PostgreSQL if the machine has none.
pub fn install() -> Result<()> {
    if find_programs().is_none() {
        tool::install_packages(&["postgresql"])?;
    }
    Ok(())
}

impl Instance {
    /// Starts one, after installing PostgreSQL if the machine has none.
    pub fn start() -> Result<Self> {
        install()?;
        let programs =
            find_programs().context("initdb is not under /usr/lib/postgresql, though PostgreSQL is installed")?;
        // PostgreSQL refuses to run as root; its package comes with a user of its own.
        let owner = tool::is_root()?.then_some("postgres");
        let directory = tempfile::Builder::new().prefix("guildhall-postgres-").tempdir()?;
        if let Some(owner) = owner {
            tool::output(Command::new("chown").arg(owner).arg(directory.path()))?;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let mut instance = Self { programs, directory, owner, port, url, server: None };

        let data = instance.data();
        tool::output(
            instance
                .command("initdb")
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
                .arg(&data),
        )?;
        // The data lives for one run: durability would only cost time. Durability itself is tested with processes that are killed, not machines.
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\nfull_page_writes = off\nmax_connections = 400\n"
        );
        instance.append_settings(&data.join("postgresql.auto.conf"), &settings)?;
        instance.restart()?;
        Ok(instance)
    }

    /// Starts the server on the data that is there, after [`Instance::stop`].
    pub fn restart(&mut self) -> Result<()> {
        // A child, not a daemon: what ends this run from the terminal ends it too.
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(server.spawn().context("cannot start PostgreSQL")?);
        self.wait_until_ready()
    }

    /// Ends the server; its data stays.
    pub fn stop(&mut self, ending: Ending) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let mode = match ending {
            Ending::Fast => "fast",
            Ending::Immediate => "immediate",
        };
        let mut stop = self.command("pg_ctl");
        let stopped = tool::output(stop.arg("-D").arg(self.data()).args(["-m", mode, "-w", "stop"]));
        if stopped.is_err() {
            server.kill().ok();
        }
        server.wait()?;
        stopped.map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "the thread has nothing else to do")]
    fn wait_until_ready(&mut self) -> Result<()> {
        let port = self.port.to_string();
        let began = Instant::now();
        while tool::output(self.command("pg_isready").args(["--quiet", "--host=127.0.0.1", "--port", &port])).is_err() {
            let ended = self.server.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || began.elapsed() > START {
                bail!("PostgreSQL does not start; its log:\n{}", fs::read_to_string(self.log())?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where an administrator connects, to make a database for each test.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn append_settings(&self, file: &Path, settings: &str) -> Result<()> {
        let mut text = fs::read_to_string(file)?;
        text.push_str(settings);
        fs::write(file, text)?;
        if let Some(owner) = self.owner {
            tool::output(Command::new("chown").arg(owner).arg(file))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = match self.owner {
            None => Command::new(path),
            Some(owner) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", owner, "--regid", owner, "--clear-groups"]).arg(path);
                command
            }
        };
        command.current_dir("/");
        command
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Ending::Immediate) {
            eprintln!("PostgreSQL of this run did not stop by itself: {error:#}");
        }
    }
}

/// The programs of the newest version on this machine.
fn find_programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            programs.join("initdb").exists().then_some((version, programs))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, programs)| programs)
}
