//! Bitcoin Core's JSON-RPC as a chain source. The devchain server speaks the same part of
//! it, so this one source serves both.

mod branch;
mod client;
mod fees;
mod pool;
mod source;

pub use client::{Kind, RpcClient};
pub use source::{RpcConfig, RpcSource};
