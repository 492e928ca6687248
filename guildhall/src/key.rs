//! `guildhall key`: makes a master key.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chassis::MasterKey;
use clap::Args;
use ids::Source;

#[derive(Args)]
pub struct Options {
    /// The file to write. One that is there is left alone: what its key has sealed would be lost.
    file: PathBuf,
}

pub fn run(Options { file }: &Options) -> Result<()> {
    MasterKey::create(file, &Source::system()).context("no key was made")?;
    println!(
        "{} holds a new master key, for its owner alone (mode 0600). Name it in `platform.master_key_file`, and keep a copy: nobody \
         opens without it what it has sealed.",
        file.display()
    );
    Ok(())
}
