//! Says that migrations are part of the build: a new file is otherwise not seen.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
