//! Limits through their public surface.

mod in_process;
mod on_redis;
