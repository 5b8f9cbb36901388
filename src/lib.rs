//! corecast
#![forbid(unsafe_code)]
#![allow(dead_code)]

mod error;
mod id;
mod time;
mod wire;

pub use error::*;
pub use id::*;
pub use time::Timestamp;
pub use wire::*;
