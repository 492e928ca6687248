//! A process of the system under test: started, ended in order or at once, halted, started again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::eventually;

/// How long a start may take on a machine that is busy.
const START: Duration = Duration::from_mins(1);
/// How long an end in order may take: each part's grace, one after the other.
const END: Duration = Duration::from_mins(1);

/// How a process is started. Dropped, it is killed.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdout: Option<PathBuf>,
    child: Option<Child>,
}

impl Process {
    /// A process of `program`, not started yet. Its settings are its arguments and what [`Process::set`] adds, whatever is set around it.
    pub fn new(name: impl Into<String>, program: &Path, arguments: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.into(),
            program: program.to_owned(),
            arguments: arguments.into_iter().collect(),
            environment: Vec::new(),
            stdout: None,
            child: None,
        }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Appends what it prints to a file; otherwise that is thrown away.
    #[must_use]
    pub fn stdout(self, path: impl Into<PathBuf>) -> Self {
        Self { stdout: Some(path.into()), ..self }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it. What it prints as an error is shown with this program's own.
    pub fn start(&mut self) {
        let mut command = command(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let stdout = self.stdout.as_ref().map_or_else(Stdio::null, |path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display())).into()
        });
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::inherit());
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.name)));
    }

    /// Waits until `ready` says so; fails when the process ends before, or takes too long.
    pub async fn until<T>(&mut self, mut ready: impl AsyncFnMut() -> Option<T>) -> T {
        let what = format!("{} is ready", self.name);
        eventually(START, &what, async || {
            self.expect_running();
            ready().await
        })
        .await
    }

    /// Fails if it has ended by itself.
    pub fn expect_running(&mut self) {
        let child = self.child.as_mut().unwrap_or_else(|| panic!("{} was not started", self.name));
        if let Some(status) = child.try_wait().expect("the process can be asked") {
            panic!("{} ended with {status}", self.name);
        }
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the process runs");
        }
    }

    /// Asks it to end, as an operator does, and waits for it.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        let mut child = self.child.take().expect("the process runs");
        let ended = tokio::time::timeout(END, child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} did not end within {END:?}", self.name)).expect("the process ends")
    }

    /// Sends it a signal: `STOP` halts it, `CONT` lets it go on, `HUP` is its own matter.
    pub async fn signal(&self, signal: &str) {
        let id = self.id().expect("the process runs").to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status().await.expect("kill is there");
        assert!(sent.success(), "{} does not run", self.name);
    }
}

/// The program with none of Guildhall's settings in its environment. It ends with whoever holds it.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GUILDHALL")) {
        command.env_remove(name);
    }
    command.kill_on_drop(true);
    command
}
