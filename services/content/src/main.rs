//! The content service in a process of its own: the same as `guildhall serve content`.

use std::process::ExitCode;

fn main() -> ExitCode {
    content::PROCESS.main()
}
