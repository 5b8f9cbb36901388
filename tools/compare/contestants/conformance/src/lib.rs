//! Starts a contestant as a process, connects real sockets on loopback, and checks what it must do.
//!
//! ```text
//! program    the process: started, asked to end, never left behind
//! peers      its other end by hand, on blocking sockets, in each of the protocols
//! contract   what holds; a program lists in its `tests/contract.rs` what holds for it
//! ```

pub mod contract;
pub mod peers;
pub mod program;
#[allow(dead_code)]
#[path = "../../../src/wire.rs"]
mod wire;

/// Makes a test of each function of [`contract`] that is named.
#[macro_export]
macro_rules! contract {
    ($peer:ty, $program:expr; $($test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                $crate::contract::$test::<$peer>($program);
            }
        )+
    };
}
