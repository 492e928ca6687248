//! spire-server and spire-agent by the configuration under `spire/`, on directories of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::{self, Process, as_user};
use crate::tool;

/// The users of the two programs. `entries.json` gives them no identity.
const SERVER_UID: u32 = 7090;
const AGENT_UID: u32 = 7091;
/// Whose entries `entries.json` has.
const NODE: &str = "spiffe://guildhall.internal/node/one";
const DAY: Duration = Duration::from_hours(24);
const CONFIGURATION: [&str; 3] = ["server.conf", "agent.conf", "entries.json"];
const START: Duration = Duration::from_mins(1);
/// The agent looks at every `sync_interval`, and a new SVID comes at half of the last one's life.
const RENEWED: Duration = Duration::from_mins(5);

/// Both running; dropping it ends them, the agent first.
pub struct Spire {
    programs: PathBuf,
    server_socket: PathBuf,
    agent_socket: PathBuf,
    agent: Process,
    server: Process,
}

/// How short-lived everything is.
pub struct Pace<'a> {
    pub svid_ttl: &'a str,
    pub sync_interval: &'a str,
}

/// One renewal of an SVID, as the agent's log has it.
pub struct Renewal {
    pub id: String,
    /// The time of the day.
    pub at: Duration,
    /// What the old one had left.
    pub left: Duration,
}

impl Spire {
    /// `programs` and `directory` can be entered by all users.
    pub fn start(programs: &Path, directory: &Path, port: u16, pace: &Pace) -> Result<Self> {
        let source = tool::project()?.join("spire");
        for file in CONFIGURATION {
            fs::copy(source.join(file), directory.join(file)).with_context(|| format!("cannot copy spire/{file}"))?;
        }
        let (state, sockets) = (directory.join("state"), directory.join("run"));
        for (parent, uid, name) in
            [(&state, SERVER_UID, "server"), (&state, AGENT_UID, "agent"), (&sockets, SERVER_UID, "server")]
        {
            fs::create_dir_all(parent)?;
            process::own_directory(&parent.join(name), uid)?;
        }
        // Open to all: the agent judges who calls.
        let agent_sockets = sockets.join("agent");
        fs::create_dir_all(&agent_sockets)?;
        std::os::unix::fs::chown(&agent_sockets, Some(AGENT_UID), Some(AGENT_UID))?;
        let run = |uid: u32, name: &'static str, configuration: &str| {
            let mut command = as_user(uid, &programs.join(name));
            command.args(["run", "-expandEnv", "-logFormat", "json", "-config"]).arg(directory.join(configuration));
            command.env("SPIRE_STATE", &state).env("SPIRE_RUN", &sockets).env("SPIRE_SERVER_PORT", port.to_string());
            command.env("SPIRE_X509_SVID_TTL", pace.svid_ttl).env("SPIRE_SYNC_INTERVAL", pace.sync_interval);
            command
        };

        let server_socket = sockets.join("server/api.sock");
        let mut server = Process::start(
            "spire-server",
            &mut run(SERVER_UID, "spire-server", "server.conf"),
            directory.join("spire-server.log"),
        )?;
        let ask = |words: &[&str]| ask_server(programs, &server_socket, words);
        server.until_ready(START, || ask(&["healthcheck"]).is_ok())?;
        process::own_file(&state.join("agent/bootstrap.pem"), AGENT_UID, &ask(&["bundle", "show"])?)?;
        let token: Value = serde_json::from_str(&ask(&["token", "generate", "-spiffeID", NODE, "-output", "json"])?)?;
        let token_file = state.join("agent/join-token");
        process::own_file(&token_file, AGENT_UID, token["value"].as_str().context("no token in the answer")?)?;
        let entries = directory.join("entries.json");
        ask(&["entry", "create", "-data", entries.to_str().context("the directory's path is no UTF-8")?])?;

        let agent_socket = agent_sockets.join("api.sock");
        let mut command = run(AGENT_UID, "spire-agent", "agent.conf");
        command.arg("-joinTokenFile").arg(&token_file);
        let mut agent = Process::start("spire-agent", &mut command, directory.join("spire-agent.log"))?;
        agent.until_ready(START, || {
            let mut command = as_user(AGENT_UID, &programs.join("spire-agent"));
            tool::output(command.args(["healthcheck", "-socketPath"]).arg(&agent_socket)).is_ok()
        })?;
        Ok(Self { programs: programs.to_owned(), server_socket, agent_socket, agent, server })
    }

    /// `SPIFFE_ENDPOINT_SOCKET` for everybody.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.agent_socket.display())
    }

    /// Runs a command of spire-server's own command line.
    fn ask(&self, words: &[&str]) -> Result<Value> {
        let answer = ask_server(&self.programs, &self.server_socket, &[words, &["-output", "json"]].concat())?;
        serde_json::from_str(&answer).with_context(|| format!("spire-server answered {answer}"))
    }

    /// What the agent gives a process of the user `uid`: who it is, and the trust domain's CA certificates. An error is the agent's.
    pub fn fetch(&self, command: impl FnOnce(&Path) -> Command) -> Result<(String, String)> {
        let mut command = command(&self.programs.join("spire-agent"));
        command.args(["api", "fetch", "x509", "-output", "json", "-socketPath"]).arg(&self.agent_socket);
        let answer = tool::output(&mut command)?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("spire-agent answered {answer}"))?;
        let svid = &answer["svids"][0];
        let text = |field: &str| Some(svid[field].as_str()?.to_owned());
        text("spiffe_id").zip(text("bundle")).context("spire-agent answered no SVID")
    }

    /// The renewals so far, oldest first.
    pub fn renewals(&self) -> Result<Vec<Renewal>> {
        let lines = self.agent.log()?;
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.filter(|line| line["msg"] == "Renewing X509-SVID").filter_map(|line| Renewal::read(&line)).collect())
    }

    /// Warnings and errors of both, each once, with how often it came.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let mut complaints = BTreeMap::<String, u64>::new();
        for program in [&self.server, &self.agent] {
            for line in program.log()?.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                if line["level"] == "warning" || line["level"] == "error" {
                    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
                    let error = text("error");
                    let separator = if error.is_empty() { "" } else { ": " };
                    let said = format!("{}: {} {}{separator}{error}", program.name(), text("level"), text("msg"));
                    *complaints.entry(said).or_default() += 1;
                }
            }
        }
        Ok(complaints.into_iter().map(|(said, times)| format!("{said} ({times} times)")).collect())
    }

    pub fn check(&mut self) -> Result<()> {
        self.server.check()?;
        self.agent.check()
    }

    /// Changes the CA as an operator does, and waits at each step until every workload has what the next one needs: both CAs
    /// are trusted before the new one signs, and the old one goes only when no SVID of it is left. `step` hears of each.
    pub fn change_ca(&self, any: u32, mut step: impl FnMut(&str)) -> Result<()> {
        let bundle = || -> Result<String> { Ok(self.fetch(|program| as_user(any, program))?.1) };
        let authority = |words: &[&str], field: &str| -> Result<String> {
            let answer = self.ask(&[&["localauthority", "x509"], words].concat())?;
            let id = answer[field]["authority_id"].as_str();
            Ok(id.with_context(|| format!("spire-server answered {answer}"))?.to_owned())
        };
        let old = authority(&["show"], "active")?;
        let first = bundle()?;
        let new = authority(&["prepare"], "prepared_authority")?;
        let both = process::until(RENEWED, "the new CA is in the bundle", || {
            let now = bundle()?;
            Ok((now.len() > first.len()).then_some(now))
        })?;
        self.until_renewed()?;
        step(&format!("prepared {}: every workload has both CAs", short(&new)));
        authority(&["activate", "-authorityID", &new], "activated_authority")?;
        step(&format!("activated {}: it signs from now on", short(&new)));
        authority(&["taint", "-authorityID", &old], "tainted_authority")?;
        self.until_renewed()?;
        step(&format!("tainted {}: every workload has an SVID of the new CA", short(&old)));
        authority(&["revoke", "-authorityID", &old], "revoked_authority")?;
        let last = process::until(RENEWED, "the old CA is gone from the bundle", || {
            let now = bundle()?;
            Ok((now.len() < both.len()).then_some(now))
        })?;
        ensure!(last != first, "the bundle is what it was before");
        self.until_renewed()?;
        step(&format!("revoked {}: nobody trusts it any more", short(&old)));
        Ok(())
    }

    /// Waits until every workload has been given two more SVIDs, the second of which was asked for after this call.
    fn until_renewed(&self) -> Result<()> {
        let seen = self.counts()?;
        process::until(RENEWED, "every SVID is renewed", || {
            let now = self.counts()?;
            let all = seen.iter().all(|(id, before)| now.get(id).is_some_and(|now| now - before >= 2));
            Ok(all.then_some(()))
        })
    }

    fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let mut counts = BTreeMap::new();
        for renewal in self.renewals()? {
            *counts.entry(renewal.id).or_default() += 1;
        }
        Ok(counts)
    }
}

impl Renewal {
    fn read(line: &Value) -> Option<Self> {
        let (at, expires) = (time_of_day(line["time"].as_str()?)?, time_of_day(line["expires_at"].as_str()?)?);
        Some(Self { id: line["spiffe_id"].as_str()?.to_owned(), at, left: since(expires, at) })
    }
}

/// From one time of the day to another, of which at most one midnight lies between.
pub fn since(later: Duration, earlier: Duration) -> Duration {
    later.checked_sub(earlier).unwrap_or_else(|| (later + DAY).saturating_sub(earlier))
}

/// Of a time by RFC 3339.
fn time_of_day(time: &str) -> Option<Duration> {
    let (_, time) = time.split_once('T')?;
    let mut parts = time.get(..8)?.split(':').map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    let whole = Duration::from_secs(next()? * 3600 + next()? * 60 + next()?);
    let Some(fraction) = time[8..].strip_prefix('.') else { return Some(whole) };
    let fraction: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    Some(whole + Duration::from_secs_f64(format!("0.{fraction}").parse().ok()?))
}

fn ask_server(programs: &Path, socket: &Path, words: &[&str]) -> Result<String> {
    let mut command = as_user(SERVER_UID, &programs.join("spire-server"));
    // Its words come first, its flags after them.
    let flags = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    command.args(&words[..flags]).arg("-socketPath").arg(socket).args(&words[flags..]);
    tool::output(&mut command)
}

fn short(authority: &str) -> &str {
    authority.get(..8).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{since, time_of_day};

    #[test]
    fn times_of_the_day_are_compared_over_midnight() {
        let late = time_of_day("2026-11-21T23:59:58Z").unwrap();
        let early = time_of_day("2026-11-22T00:00:03.25Z").unwrap();
        assert_eq!((late, early), (Duration::from_secs(86_398), Duration::from_millis(3250)));
        assert_eq!(since(early, late), Duration::from_millis(5250));
        assert_eq!(since(late, early), Duration::from_millis(86_394_750));
        assert_eq!((time_of_day("now"), time_of_day("T12")), (None, None));
    }
}
