//! The `guildhall` program, built for the tests beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    guildhall::main()
}
