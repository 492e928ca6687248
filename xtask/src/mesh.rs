//! `cargo xtask mesh test`: Guildhall as separate processes whose identities come from a real SPIRE, on this machine.

mod process;
mod spire;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::{postgres, redis, tool, tools};
use process::{Process, as_user, until};
use spire::{Pace, Renewal, Spire};

#[derive(Subcommand)]
pub enum Command {
    /// Runs auth, content and the edge as separate processes, each as a user of its own, with SVIDs of a real SPIRE.
    ///
    /// Shows a journey over REST, who is refused, and that SVIDs and the CA are replaced under load without a failed call. Needs root to start programs as other users; the services have no privilege.
    Test(Options),
}

#[derive(Args)]
pub struct Options {
    /// How long SVIDs rotate under load.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// How long an X.509-SVID lives.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    svid_ttl: String,
    /// How often the agent looks whether an SVID is due.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    sync_interval: String,
    /// Leaves the logs where they are, as a failure does.
    #[arg(long)]
    keep: bool,
}

/// As `spire/entries.json` has them.
const EDGE: User = User { name: "edge-gateway", uid: 7000 };
const AUTH: User = User { name: "auth", uid: 7001 };
const CONTENT: User = User { name: "content", uid: 7002 };
const OPERATOR: User = User { name: "operator", uid: 7099 };
/// Users without an entry: the person at the REST client, and somebody who asks for an identity.
const PERSON_UID: u32 = 7050;
const STRANGER_UID: u32 = 7051;

const START: Duration = Duration::from_mins(1);
const HTTP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct User {
    name: &'static str,
    uid: u32,
}

pub fn run(command: &Command) -> Result<()> {
    let Command::Test(options) = command;
    if !tool::is_root()? {
        bail!(
            "a service gets its SVID because of its uid, so this run starts programs as other users, which needs root:\n  \
             sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask mesh test"
        );
    }
    let began = Instant::now();
    let programs = tools::spire()?;
    if tool::output(Program::new("openssl").arg("version")).is_err() {
        tool::install_packages(&["openssl"])?;
    }
    let own = build()?;

    // Other users have to get in; what is not for all of them is a directory of its own below.
    let open = fs::Permissions::from_mode(0o755);
    let mut directory = tempfile::Builder::new().prefix("guildhall-mesh-").permissions(open).tempdir()?;
    // Who has to see why it failed needs the logs.
    directory.disable_cleanup(true);
    println!("==> logs: {}", directory.path().display());
    let bin = directory.path().join("bin");
    fs::create_dir(&bin)?;
    for program in ["spire-server", "spire-agent"] {
        offer(&programs.join(program), &bin)?;
    }
    for program in ["guildhall", "mesh-client"] {
        offer(&own.join(program), &bin)?;
    }

    let postgres = postgres::Instance::start()?;
    let redis = redis::Instance::start()?;
    println!("==> SPIRE {}", version(&bin)?);
    let pace = Pace { svid_ttl: &options.svid_ttl, sync_interval: &options.sync_interval };
    let mut spire = Spire::start(&bin, directory.path(), free_ports::<1>()?[0], &pace)?;
    println!("    spire-server and spire-agent run: join token, unix attestor, SQLite, guildhall.internal");
    println!("    SVIDs live {}; the agent looks every {}", options.svid_ttl, options.sync_interval);
    for user in [EDGE, AUTH, CONTENT, OPERATOR] {
        // A new entry reaches the agent when it looks next.
        let given = until(START, &format!("an SVID for uid {}", user.uid), || {
            Ok(spire.fetch(|program| as_user(user.uid, program)).ok())
        })?;
        ensure!(given.0.ends_with(&format!("/ns/guildhall/sa/{}", user.name)), "uid {} is {}", user.uid, given.0);
        println!("    uid {} is {}", user.uid, given.0);
    }

    println!("==> services");
    let [edge, edge_admin, auth, auth_admin, content, content_admin] = free_ports::<6>()?;
    let mesh = Mesh { directory: directory.path(), bin: &bin, endpoint: spire.endpoint(), redis: redis.url() };
    let address = |port: u16| format!("127.0.0.1:{port}");
    let url = format!("http://{}", address(edge));
    let everybody = [
        ("PLATFORM__SERVICES__AUTH", format!("[\"{}\"]", address(auth))),
        ("PLATFORM__SERVICES__CONTENT", format!("[\"{}\"]", address(content))),
        ("AUTH__ISSUER", url.clone()),
        ("CONTENT__ISSUER", url.clone()),
        ("CONTENT__SITE_URL", url.clone()),
        ("EDGE_GATEWAY__ISSUER", url.clone()),
        // Nothing hides a call that a rotation costs.
        ("PLATFORM__MESH__RETRY", "false".to_owned()),
        // One client sends all of the load.
        ("AUTH__ATTEMPTS__FACTOR", "1000".to_owned()),
        ("EDGE_GATEWAY__LIMIT__FACTOR", "1000".to_owned()),
        // Nobody reads Ada's mail.
        ("AUTH__REQUIRE_VERIFIED_EMAIL", "false".to_owned()),
    ];
    let mut services = vec![
        mesh.serve(&AUTH, (auth, auth_admin), &everybody, Some(&postgres))?,
        mesh.serve(&CONTENT, (content, content_admin), &everybody, Some(&postgres))?,
        mesh.serve(&EDGE, (edge, edge_admin), &everybody, None)?,
    ];
    let admins = [auth_admin, content_admin, edge_admin];
    for (service, admin) in services.iter_mut().zip(admins) {
        service.until_ready(START, || is_ready(admin))?;
        println!("    {} is ready", service.name());
    }

    println!("==> a person, over REST at {url}");
    mesh.client(PERSON_UID, &["journey", &url])?;

    println!("==> who is refused");
    for (who, uid) in [("a user without an entry", STRANGER_UID), ("root", 0)] {
        let asked = spire.fetch(|program| if uid == 0 { Program::new(program) } else { as_user(uid, program) });
        let refusal = match asked {
            Ok((id, _)) => bail!("{who} is {id}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(refusal.contains("PermissionDenied"), "{who} is refused otherwise: {refusal}");
        println!("    {who} (uid {uid}) gets no SVID: PermissionDenied");
    }
    for (who, shown, alert) in [
        ("a caller without a certificate", None, "certificate required"),
        ("the edge's SPIFFE ID by another CA", Some(forged_svid(directory.path())?), "unknown ca"),
    ] {
        let said = handshake(&address(content), shown.as_deref())?;
        ensure!(said.contains(alert), "{who} is refused otherwise: {said}");
        println!("    {who}: content ends the handshake, \"{alert}\"");
    }
    let call = ["call", &mesh.endpoint, &address(content)];
    for (user, expected) in [(OPERATOR, "PermissionDenied"), (AUTH, "PermissionDenied"), (EDGE, "OK")] {
        let answer = tool::output(as_user(user.uid, &bin.join("mesh-client")).args(call))?;
        let outcome = answer.split_whitespace().last().unwrap_or_default();
        ensure!(outcome == expected, "content answered {}: {answer}", user.name);
        println!("    {} calls content's ListPosts: {outcome}", user.name);
    }

    println!("==> {} min of load while SVIDs and the CA are replaced", options.minutes);
    println!(
        "    mesh: calls of content, each on a connection of its own and sent once, with an SVID of the edge's uid"
    );
    println!(
        "    read, write, log-in: over REST, each on a connection of its own and sent once; the services repeat nothing either"
    );
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let before = spire.renewals()?.len();
    let refused_before = refused_handshakes(&services)?;
    let load_began = Instant::now();
    let mut load = mesh.load(&address(content), &url)?;
    // Some of it before the CA changes, and most of it after.
    load.go_on(Duration::from_secs(15 * options.minutes))?;
    spire.change_ca(EDGE.uid, |step| println!("    {:>4} s  CA {step}", load_began.elapsed().as_secs()))?;
    load.go_on(end.saturating_duration_since(Instant::now()))?;
    let took = load_began.elapsed();
    let result = load.finish();
    println!("==> what happened in {} s", took.as_secs());
    let renewals = spire.renewals()?;
    report(&renewals[before..], took);
    println!(
        "    handshakes that a server refused, after which a connector dials again: {}",
        refused_handshakes(&services)? - refused_before
    );
    for complaint in spire.complaints()? {
        println!("    {complaint}");
    }
    result?;
    spire.check()?;
    for (service, admin) in services.iter_mut().zip(admins) {
        service.check()?;
        ensure!(is_ready(admin), "{} is no longer ready", service.name());
    }
    println!("    auth, content and the edge are the processes that they were, and ready");

    // The edge first, so that nothing is refused behind it.
    while let Some(service) = services.pop() {
        drop(service);
    }
    drop(spire);
    println!("==> done in {} s; everything that was started has ended", began.elapsed().as_secs());
    directory.disable_cleanup(options.keep);
    Ok(())
}

/// Builds the programs, and says where they are: beside this one.
fn build() -> Result<PathBuf> {
    println!("==> build");
    let mut cargo = Program::new("cargo");
    cargo.args(["build", "--locked", "-p", "guildhall", "-p", "e2e", "--bin", "guildhall", "--bin"]);
    tool::run(cargo.arg("mesh-client"))?;
    let own = env::current_exe().context("this program does not know where it is")?;
    Ok(own.parent().context("a program lies in a directory")?.to_owned())
}

/// Puts a program where every user can run it: the cache and the build may lie in somebody's home.
fn offer(program: &Path, bin: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let offered = bin.join(name);
    // They are large, and a link is enough where the file system is the same.
    if fs::hard_link(program, &offered).is_err() {
        fs::copy(program, &offered).with_context(|| format!("cannot copy {}", program.display()))?;
    }
    Ok(())
}

fn version(bin: &Path) -> Result<String> {
    let answer = Program::new(bin.join("spire-server")).arg("--version").stdin(Stdio::null()).output()?;
    let said = if answer.stdout.is_empty() { answer.stderr } else { answer.stdout };
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// What all processes have in common.
struct Mesh<'a> {
    directory: &'a Path,
    bin: &'a Path,
    endpoint: String,
    redis: String,
}

impl Mesh<'_> {
    fn serve(
        &self,
        user: &User,
        (port, admin): (u16, u16),
        settings: &[(&str, String)],
        postgres: Option<&postgres::Instance>,
    ) -> Result<Process> {
        let own = self.directory.join(user.name);
        process::own_directory(&own, user.uid)?;
        let guildhall = || as_user(user.uid, &self.bin.join("guildhall"));
        tool::output(guildhall().args(["key", "master.key"]).current_dir(&own))?;

        let mut command = guildhall();
        command.args(["serve", user.name]).current_dir(&own).env("SPIFFE_ENDPOINT_SOCKET", &self.endpoint);
        let mut set = |key: &str, value: &str| {
            command.env(format!("GUILDHALL__{key}"), value);
        };
        for (key, value) in settings {
            set(key, value);
        }
        set("PLATFORM__REDIS__URLS", &format!("[\"{}\"]", self.redis));
        set("PLATFORM__MASTER_KEY_FILE", "master.key");
        set("PLATFORM__LOG_FORMAT", "json");
        let section = user.name.to_uppercase().replace('-', "_");
        set(&format!("{section}__SERVER__LISTEN"), &format!("127.0.0.1:{port}"));
        set(&format!("{section}__SERVER__ADMIN_LISTEN"), &format!("127.0.0.1:{admin}"));
        // Nobody balances load over them: there is nobody to tell before the drain.
        set(&format!("{section}__SERVER__DRAIN__UNREADY"), "0s");
        if let Some(postgres) = postgres {
            set(&format!("{section}__DATABASE__URL"), &database(postgres, user)?);
        }
        Process::start(user.name, &mut command, self.directory.join(format!("{}.log", user.name)))
    }

    /// Runs the client, and shows what it says.
    fn client(&self, uid: u32, words: &[&str]) -> Result<()> {
        let said = tool::output(as_user(uid, &self.bin.join("mesh-client")).args(words));
        for line in said.context("the client failed")?.lines() {
            println!("    {line}");
        }
        Ok(())
    }

    fn load(&self, content: &str, url: &str) -> Result<Load> {
        let mut command = as_user(EDGE.uid, &self.bin.join("mesh-client"));
        command.args(["load", &self.endpoint, content, url]).stdin(Stdio::piped());
        Ok(Load(command.spawn().context("cannot start the load")?))
    }
}

/// Makes a database of a service's own, and says where it is.
fn database(postgres: &postgres::Instance, user: &User) -> Result<String> {
    let name = user.name;
    for statement in [format!("CREATE ROLE {name} LOGIN"), format!("CREATE DATABASE {name} OWNER {name}")] {
        tool::output(Program::new("psql").args([postgres.url(), "--quiet", "--no-psqlrc", "-c", &statement]))?;
    }
    let url = postgres.url().replace("postgres@", &format!("{name}@"));
    let (server, _) = url.rsplit_once('/').context("PostgreSQL's address names a database")?;
    Ok(format!("{server}/{name}"))
}

/// The client at work; it prints what fails, and its counts at the end.
struct Load(Child);

impl Load {
    /// Fails when it ends by itself before that.
    fn go_on(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        until(time + START, "the load has gone on for long enough", || match self.0.try_wait()? {
            Some(status) => bail!("the load ended with {status}"),
            None => Ok((Instant::now() >= end).then_some(())),
        })
    }

    /// Lets it end, which it does when its stdin does; fails when a call has failed.
    fn finish(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = until(START, "the load ends", || Ok(self.0.try_wait()?))?;
        ensure!(status.success(), "the load ended with {status}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A certificate as the edge's, and its key, in one file; no CA of the mesh has signed it.
fn forged_svid(directory: &Path) -> Result<PathBuf> {
    let file = directory.join("forged.pem");
    let mut forge = Program::new("openssl");
    forge.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=SPIRE"]);
    forge.args(["-addext", "subjectAltName=URI:spiffe://guildhall.internal/ns/guildhall/sa/edge-gateway"]);
    forge.args(["-addext", "keyUsage=digitalSignature", "-addext", "basicConstraints=critical,CA:FALSE"]);
    tool::output(forge.arg("-keyout").arg(&file).arg("-out").arg(&file))?;
    Ok(file)
}

/// What OpenSSL says about a handshake with a server of the mesh.
fn handshake(address: &str, certificate: Option<&Path>) -> Result<String> {
    let mut client = Program::new("openssl");
    client.args(["s_client", "-connect", address, "-alpn", "h2", "-ign_eof"]).stdin(Stdio::null());
    if let Some(certificate) = certificate {
        client.arg("-cert").arg(certificate).arg("-key").arg(certificate);
    }
    Ok(String::from_utf8_lossy(&client.output().context("cannot start openssl")?.stderr).into_owned())
}

/// Ports that are free now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Whether an admin port says that its service is ready.
fn is_ready(admin: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, admin)), HTTP_LIMIT)?;
        stream.set_read_timeout(Some(HTTP_LIMIT))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// How many handshakes the services have refused so far.
fn refused_handshakes(services: &[Process]) -> Result<usize> {
    let mut refused = 0;
    for service in services {
        refused += service.log()?.matches("A connection was refused").count();
    }
    Ok(refused)
}

/// How often each workload got a new SVID, and how much the old one had left at the worst.
fn report(renewals: &[Renewal], took: Duration) {
    let mut workloads = BTreeMap::<&str, Vec<&Renewal>>::new();
    // The others are nodes.
    for renewal in renewals.iter().filter(|renewal| renewal.id.contains("/ns/")) {
        let name = renewal.id.rsplit('/').next().unwrap_or_default();
        workloads.entry(name).or_default().push(renewal);
    }
    for (name, renewals) in workloads {
        let mean = took / u32::try_from(renewals.len()).unwrap_or(u32::MAX);
        let longest = renewals.windows(2).map(|pair| spire::since(pair[1].at, pair[0].at)).max().unwrap_or_default();
        let least = renewals.iter().map(|renewal| renewal.left).min().unwrap_or_default();
        println!(
            "    {name}: {} new SVIDs, one every {mean:.1?}, at most {longest:.1?} apart; the old one had {least:.1?} left or more",
            renewals.len()
        );
    }
}
