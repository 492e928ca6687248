//! Embeds the pages about errors, so that the `type` of every problem leads to one.

use std::{env, fmt::Write, fs, path::Path};

fn main() {
    // Asked when it runs: a target directory may serve several checkouts.
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../docs/errors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let mut table = "&[\n".to_owned();
    for page in pages {
        let name = page.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        writeln!(table, "    ({name:?}, {text:?}),").expect("a String takes everything");
    }
    table.push(']');
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("error_pages.rs");
    fs::write(out, table).expect("cargo's folder can be written");
}
