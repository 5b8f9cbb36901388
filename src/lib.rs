//! corecast
#![forbid(unsafe_code)]
#![allow(dead_code)]

mod codec;
mod config;
mod error;
mod handler;
mod id;
mod metrics;
mod proto;
mod rate;
mod rng;
mod shard;
mod time;
mod wire;

pub use codec::*;
pub use config::*;
pub use error::*;
pub use handler::*;
pub use id::*;
pub use metrics::{Counter, Stats};
pub use time::Timestamp;
pub use wire::{Frame, FrameError, GoodbyeCode, Lane, Meta, RefusalCode};
