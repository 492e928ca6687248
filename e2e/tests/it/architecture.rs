//! What the layout promises: the domain knows no I/O, and services do not know one another.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a service in which requests, queries and errors meet their frameworks.
const RIM: [&str; 5] = ["lib", "rpc", "http", "store", "error"];

/// As cargo says when the test runs: checkouts that share a target directory share the test, too.
fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the test")).join("..")
}

fn services() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("services")).expect("the services are there");
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    assert!(found.len() >= 2);
    found
}

fn name(path: &Path) -> &str {
    path.file_stem().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn domain_modules_import_neither_tonic_nor_sqlx_nor_axum() {
    let mut looked_at = 0;
    for service in services() {
        for entry in fs::read_dir(service.join("src")).expect("sources") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|ending| ending != "rs") || RIM.contains(&name(&path)) {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source file");
            for framework in ["tonic::", "sqlx::", "axum::"] {
                assert!(!text.contains(framework), "{} uses {framework}", path.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "only {looked_at} modules were found");
}

#[test]
fn a_service_depends_on_crates_and_on_no_other_service() {
    let services = services();
    let names: Vec<_> = services.iter().map(|path| name(path)).chain(["edge-gateway", "guildhall"]).collect();
    let crates = fs::read_dir(root().join("crates")).expect("crates").map(|entry| entry.expect("an entry").path());
    for package in crates.chain(services.iter().cloned()).chain([root().join("edge-gateway")]) {
        let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("a manifest");
        for other in &names {
            let depends = manifest.lines().any(|line| line.trim_start().starts_with(&format!("{other}.workspace")));
            assert!(!depends, "{} depends on {other}", package.display());
        }
    }
}
