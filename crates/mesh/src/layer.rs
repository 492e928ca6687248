//! What happens to every call on its way: one file per layer.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod cut_off;
pub mod deadline;
pub(crate) mod framing;
pub(crate) mod replay;
pub(crate) mod retry;
