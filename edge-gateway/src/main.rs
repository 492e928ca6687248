//! The edge in a process of its own: the same as `guildhall serve edge-gateway`.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_gateway::PROCESS.main()
}
