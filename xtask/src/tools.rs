//! `cargo xtask tools`: every outside program that a chore uses, at the version that the project is checked with.
//!
//! A Go program is a module of its own under `tools/`, so that its `go.sum` pins all that goes into it. To add one: a module
//! there with a blank import of each program, and a line in [`MODULES`].

use std::collections::VecDeque;
use std::env::consts;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::tool;

/// A Go module under `tools/` whose programs are built from source.
struct Module {
    /// Its directory there.
    name: &'static str,
    /// The module that it exists for, and whose version is the tool's.
    required: &'static str,
    programs: &'static [&'static str],
    /// The variable that holds what `--version` prints.
    version_variable: &'static str,
    /// Whether C is compiled too.
    cgo: bool,
}

const SPIRE: Module = Module {
    name: "spire",
    required: "github.com/spiffe/spire",
    programs: &["spire-server", "spire-agent"],
    version_variable: "github.com/spiffe/spire/pkg/common/version.gittag",
    // SQLite.
    cgo: true,
};
const GRPCURL: Module = Module {
    name: "grpcurl",
    required: "github.com/fullstorydev/grpcurl",
    programs: &["grpcurl"],
    version_variable: "main.version",
    cgo: false,
};
const MODULES: [&Module; 2] = [&GRPCURL, &SPIRE];

/// What a failed build said last.
const LINES_OF_A_FAILURE: usize = 30;

/// Installs what is not there, and says where everything is.
pub fn run() -> Result<()> {
    println!("buf           {}", tool::buf()?.display());
    println!("cargo-deny    {}", tool::cargo_deny()?.display());
    println!("promtool      {}", tool::promtool()?.display());
    for module in MODULES {
        let programs = obtain(module)?;
        for program in module.programs {
            println!("{program:<13} {}", programs.join(program).display());
        }
    }
    Ok(())
}

/// The directory of spire-server and spire-agent, built on the first call (a quarter of an hour on two cores).
pub fn spire() -> Result<PathBuf> {
    obtain(&SPIRE)
}

/// The directory of a module's programs.
fn obtain(module: &Module) -> Result<PathBuf> {
    let source = tool::project()?.join("tools").join(module.name);
    let pins = fs::read_to_string(source.join("go.mod")).with_context(|| format!("tools/{}/go.mod", module.name))?;
    let version = required_version(&pins, module.required)
        .with_context(|| format!("tools/{}/go.mod does not require {}", module.name, module.required))?;
    let root = tool::cache()?.join("tools").join(format!("{}-{version}", module.name));
    let programs = root.join("bin");
    // Written last, so that it vouches for a complete build from exactly these pins.
    let stamp = root.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|built| built == pins) {
        return Ok(programs);
    }
    println!("    building {} {version} into {}", module.name, programs.display());
    fs::create_dir_all(&programs).with_context(|| format!("cannot create {}", programs.display()))?;
    build(module, &source, version, &programs)
        .with_context(|| format!("cannot build {} {version}; what is done is kept, run it again", module.name))?;
    fs::write(&stamp, &pins).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(programs)
}

fn required_version<'a>(pins: &'a str, module: &str) -> Option<&'a str> {
    let mut lines = pins.lines().map(|line| line.trim_start().trim_start_matches("require").trim_start());
    lines.find_map(|line| line.strip_prefix(module)?.strip_prefix(' '))?.split_whitespace().next()
}

fn build(module: &Module, source: &Path, version: &str, programs: &Path) -> Result<()> {
    let go = find_go()?;
    if module.cgo && tool::output(Command::new("cc").arg("--version")).is_err() {
        tool::install_packages(&["gcc", "libc6-dev"])?;
    }
    let packages: Vec<String> =
        module.programs.iter().map(|program| format!("{}/cmd/{program}", module.required)).collect();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&go);
        command.current_dir(source).args(arguments).args(&packages).env("GOWORK", "off");
        command.env("CGO_ENABLED", if module.cgo { "1" } else { "0" });
        command
    };

    println!("    fetching its modules and counting its packages");
    let total = tool::output(&mut command(&["list", "-deps"]))?.lines().count();
    // Without the v: SPIRE parses it and would not start.
    let variables = format!("-s -w -X {}={}", module.version_variable, version.trim_start_matches('v'));
    let output = programs.to_str().context("the cache's path is no UTF-8")?;
    let mut command = command(&["build", "-v", "-trimpath", "-ldflags", &variables, "-o", output]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start go")?;
    // `-v` names each package as it is compiled; what Go's own cache holds goes by in silence.
    let mut progress = Progress::new(total);
    let mut last = VecDeque::new();
    for line in BufReader::new(child.stderr.take().context("go has no output")?).lines() {
        let line = line?;
        progress.step(&line);
        last.push_back(line);
        if last.len() > LINES_OF_A_FAILURE {
            last.pop_front();
        }
    }
    let status = child.wait()?;
    progress.bar.finish_and_clear();
    if !status.success() {
        bail!("`go build` ended with {status}:\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

fn find_go() -> Result<PathBuf> {
    // Where go.dev's archive puts it, for a shell whose PATH does not know it yet.
    let candidates = ["go", "/usr/local/go/bin/go"].map(PathBuf::from);
    let found = candidates.into_iter().find(|go| tool::output(Command::new(go).arg("version")).is_ok());
    found.with_context(|| {
        let architecture = match consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        format!(
            "Go is needed, 1.26.6 or newer, and is not installed. Debian's is older; go.dev's is installed by\n  \
             curl -fsSL https://go.dev/dl/go1.26.6.{}-{architecture}.tar.gz | sudo tar -C /usr/local -xz",
            consts::OS
        )
    })
}

/// How far a build is: a bar on a terminal, elsewhere a line for each tenth.
struct Progress {
    bar: ProgressBar,
    total: usize,
    done: usize,
    plain: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(total as u64) };
        if let Ok(style) =
            ProgressStyle::with_template("    [{elapsed_precise}] {bar:40} {pos} of at most {len}  {wide_msg}")
        {
            bar.set_style(style);
        }
        Self { bar, total, done: 0, plain }
    }

    fn step(&mut self, package: &str) {
        self.done += 1;
        self.bar.inc(1);
        self.bar.set_message(package.to_owned());
        if self.plain && self.done.is_multiple_of(self.total.div_ceil(10).max(1)) {
            println!("    {} of at most {} packages compiled", self.done, self.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::required_version;

    #[test]
    fn the_version_of_a_tool_is_the_one_that_its_module_requires() {
        let pins = "module x\n\ngo 1.26\n\nrequire example.org/tool v1.2.3\n\nrequire (\n\texample.org/tool/part v9.0.0 // indirect\n\texample.org/other v0.1.0\n)\n";
        assert_eq!(required_version(pins, "example.org/tool"), Some("v1.2.3"));
        assert_eq!(required_version(pins, "example.org/other"), Some("v0.1.0"));
        assert_eq!(required_version(pins, "example.org/too"), None);
    }
}
