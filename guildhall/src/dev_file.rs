//! `<data-dir>/dev.json`: where a running `guildhall dev` is, for the other commands and for scripts. Readable by its owner alone.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Where a running `guildhall dev` keeps its data.
#[derive(Args, Clone)]
pub struct DataDirectory {
    /// The data directory of `guildhall dev`.
    #[arg(long, env = "GUILDHALL_DATA_DIR", value_name = "DIR", default_value = "./guildhall-data")]
    pub data_dir: PathBuf,
}

/// What `dev.json` says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevFile {
    /// The edge's address, such as `http://127.0.0.1:8080`.
    pub http: String,
    /// The edge's admin address: `/healthz`, `/readyz`, `/metrics`.
    pub http_admin: String,
    pub pid: u32,
    pub trust_domain: String,
    pub services: BTreeMap<String, Service>,
    /// Where each workload gets its identity: the Workload API's socket, `unix:/…`.
    pub identities: BTreeMap<String, String>,
    /// The first admin, as created: wrong once its password is changed.
    pub admin: Option<Credential>,
}

/// One service.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its gRPC address, mutual TLS.
    pub grpc: String,
    pub admin: String,
}

/// Who may log in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    pub email: String,
    pub password: String,
}

impl DevFile {
    /// Reads the file of a running `guildhall dev`.
    pub fn read(data_dir: &Path) -> Result<Self> {
        let path = path(data_dir);
        let text = fs::read(&path).with_context(|| {
            format!(
                "no `guildhall dev` runs on {}: start it there, or say --data-dir DIR (cannot read {})",
                data_dir.display(),
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged: restart `guildhall dev`", path.display()))
    }

    /// Replaces the file at once, so that a reader never sees half of it.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let path = path(data_dir);
        let new = path.with_extension("json.new");
        fs::remove_file(&new).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Says that nothing runs here any more.
    pub fn remove(data_dir: &Path) {
        fs::remove_file(path(data_dir)).ok();
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.json")
}
