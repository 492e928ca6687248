//! Rebuilds when a migration is added: `sqlx::migrate!` alone does not see a new file.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
