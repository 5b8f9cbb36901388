//! Attacks on a corecast engine, over real sockets.
//!
//! The peers here speak `WIRE.md` by themselves, in plaintext and encrypted, and share no code with the engine: a mistake is not made on
//! both sides. They control every byte, come from whatever loopback address they like, and record what they sent. On top of them are the
//! attacks, one file per family, each a function of a [`Target`] and a [`Scale`] that ends in a [`Report`] of what it did and saw. The
//! engine's tests run them small and look at the engine meanwhile; `corecast-loadgen hostile` runs them large against a server.
//!
//! ```text
//! wire                          frames and greetings by hand
//! noise                         the encrypted handshake and its records, with every liberty
//! link  peer                    one connection: raw, and with a session on it
//! target  report                whom to attack, how much, and what came of it
//! openers  handshake  replay    before anybody has proved anything
//! floods                        many connections that cost their sender nothing
//! records                       what breaks the encryption of an established peer
//! frames                        what breaks the rules of frames, or strains them
//! ```
#![forbid(unsafe_code)]

pub mod floods;
pub mod frames;
pub mod handshake;
pub mod link;
pub mod noise;
pub mod openers;
pub mod peer;
pub mod records;
pub mod replay;
pub mod report;
pub mod target;
pub mod wire;

pub use link::{Answer, Ending, Link, Listener};
pub use noise::{Keys, Records, Suite};
pub use peer::{Failure, Frame, Peer};
pub use report::Report;
pub use target::{Protection, Scale, Sources, Target, Who};
