//! Compiles `proto/` into messages, stubs, validators and tables. No protoc is needed.

mod check;
mod events;
mod generate;
mod methods;
mod options;
mod payloads;
mod redact;
mod rust;
mod validate;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What no file imports, but reflection must know: grpcurl shows the details of an error by it.
const ERROR_DETAILS: &str = "google/rpc/error_details.proto";

/// Files that need no Rust code: options are read here, and `tonic-types` has the details of errors.
const WITHOUT_CODE: [&str; 5] = [
    "buf/validate/validate.proto",
    "google/api/annotations.proto",
    "google/api/field_behavior.proto",
    "google/api/http.proto",
    ERROR_DETAILS,
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let includes = [root.join("proto"), root.join("third_party/proto")];
    for include in &includes {
        println!("cargo::rerun-if-changed={}", include.display());
    }

    let mut compiler = protox::Compiler::new(&includes)?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(proto_files(&includes[0])?)?
        .open_file(ERROR_DETAILS)?;
    let pool = compiler.descriptor_pool();

    let generated = generate::generate(&pool).map_err(|faults| faults.join("\n"))?;
    fs::write(out.join("impls.rs"), generated.impls)?;
    fs::write(out.join("tables.rs"), generated.tables)?;
    // `file_descriptor_set()` would drop every custom option.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| !WITHOUT_CODE.contains(&file.name()));
    let mut config = prost_build::Config::new();
    config.disable_comments([".google"]);
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::Codec")
        .extern_path(".guildhall.common.v1.Reason", "::status::Reason")
        .bytes(".google.api.HttpBody.data")
        .skip_debug(redact::messages(&pool))
        .include_file("modules.rs")
        .compile_fds_with_config(files, config)?;
    Ok(())
}

/// Every `.proto` below `folder`, relative to it, sorted so that the output does not depend on the file system.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
