//! A private PostgreSQL for one run of the tests: its own data directory, a free port on loopback, not root.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::tool;

/// A running instance; dropping it stops it and removes its data.
pub struct Instance {
    programs: PathBuf,
    directory: TempDir,
    owner: Option<&'static str>,
    url: String,
}

impl Instance {
    /// Starts one, after installing PostgreSQL if the machine has none.
    pub fn start() -> Result<Self> {
        if find_programs().is_none() {
            tool::install_packages(&["postgresql"])?;
        }
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
        let instance = Self { programs, directory, owner, url };

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
        tool::output(
            instance
                .command("pg_ctl")
                .arg("-D")
                .arg(&data)
                .arg("-l")
                .arg(instance.directory.path().join("log"))
                .args(["-w", "start"]),
        )
        .with_context(|| {
            format!("PostgreSQL does not start; its log is {}", instance.directory.path().join("log").display())
        })?;
        Ok(instance)
    }

    /// Where an administrator connects, to make a database for each test.
    pub fn url(&self) -> &str {
        &self.url
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
        let data = self.data();
        if data.join("postmaster.pid").exists()
            && let Err(error) =
                tool::output(self.command("pg_ctl").arg("-D").arg(&data).args(["-m", "immediate", "-w", "stop"]))
        {
            eprintln!("PostgreSQL of this run could not be stopped: {error:#}");
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
