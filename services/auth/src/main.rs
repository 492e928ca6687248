//! The auth service in a process of its own: the same as `guildhall serve auth`.

use std::process::ExitCode;

fn main() -> ExitCode {
    auth::PROCESS.main()
}
