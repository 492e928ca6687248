//! The program, to be run with no settings but those that a test gives.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guildhall::DevFile;

/// How long a start may take on a machine that is busy with other tests.
const START: Duration = Duration::from_mins(1);

pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guildhall"));
    for (name, _) in std::env::vars() {
        if name.starts_with("GUILDHALL") || name == "SPIFFE_ENDPOINT_SOCKET" {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a command that fails says.
pub fn complaint(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// What a command that works says.
pub fn answer(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A process of the program; dropped, it is killed.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// What it prints goes into a file.
    pub fn start_into(command: &mut Command, out: &Path) -> Self {
        Self(command.stdout(File::create(out).unwrap()).spawn().unwrap())
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end, and says with which status it did.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let ended = eventually("the process ends", async || self.0.try_wait().unwrap());
        ended.await.code()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _has_ended = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `guildhall dev` on a directory, and waits until it is ready.
pub async fn dev(data: &Path) -> (Process, DevFile) {
    let mut command = program(&["dev", "--http", "127.0.0.1:0", "--data-dir"]);
    command.arg(data);
    for service in ["AUTH", "CONTENT"] {
        command.env(format!("GUILDHALL__{service}__SERVER__LISTEN"), "127.0.0.1:0");
    }
    let mut process = Process::start(&mut command);
    let dev = eventually("guildhall dev is ready", async || {
        assert!(process.runs(), "guildhall dev has ended");
        let dev = DevFile::read(data).ok()?;
        for admin in dev.services.values().map(|service| &service.admin).chain([&dev.http_admin]) {
            reqwest::get(format!("{admin}/readyz")).await.ok()?.error_for_status().ok()?;
        }
        Some(dev)
    })
    .await;
    (process, dev)
}

/// Asks again until there is something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = condition().await {
            return result;
        }
        assert!(began.elapsed() < START, "not within {START:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
