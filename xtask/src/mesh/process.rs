//! A program that runs under a user of its own.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tool;

/// How long a program may take to end by itself: a service drains.
const END: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Running; dropping it ends it.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// A call of `program` as the user `uid`, which need not be in any list, with no privilege and nothing of this run's environment.
pub fn as_user(uid: u32, program: &Path) -> Command {
    let uid = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
    // What ends this run ends it too, even SIGKILL.
    command.args(["--inh-caps=-all", "--pdeathsig", "KILL", "--"]).arg(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
    command
}

/// Creates a directory that belongs to `uid` alone.
pub fn own_directory(path: &Path, uid: u32) -> Result<()> {
    let context = || format!("cannot create {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(context)?;
    chown(path, Some(uid), Some(uid)).with_context(context)
}

/// Writes a file that belongs to `uid` alone.
pub fn own_file(path: &Path, uid: u32, text: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    fs::write(path, text).with_context(context)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).with_context(context)?;
    chown(path, Some(uid), Some(uid)).with_context(context)
}

/// Asks again until there is an answer, for what becomes true soon.
#[expect(clippy::disallowed_methods, reason = "the thread has nothing else to do")]
pub fn until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = condition()? {
            return Ok(answer);
        }
        if began.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

impl Process {
    /// What it prints goes to `log`.
    pub fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("cannot start {name}: is setpriv (util-linux) installed?"))?;
        Ok(Self { name, child, log })
    }

    /// Waits until it answers; fails when it ends instead.
    pub fn until_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let Self { name, child, log } = self;
        let waited = until(limit, &format!("{name} is ready"), || match child.try_wait()? {
            Some(status) => bail!("{name} ended with {status}"),
            None => Ok(ready().then_some(())),
        });
        waited.with_context(|| last_lines(log))
    }

    /// Fails when it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}\n{}", self.name, last_lines(&self.log)),
            None => Ok(()),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            tool::output(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
            until(END, &format!("{} ends", self.name), || Ok(self.child.try_wait()?))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{} did not end by itself: {error:#}", self.name);
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The end of a log, for whoever has to see why.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the last lines of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}
