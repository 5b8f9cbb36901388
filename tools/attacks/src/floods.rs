//! Many connections that cost their sender nothing: half-open ones, resets, first messages.

use std::time::Instant;

use crate::link::Link;
use crate::openers::{Held, good_opening};
use crate::report::Report;
use crate::target::{Scale, Target};

/// Connections that are opened and reset at once, again and again, until there were so many.
#[must_use]
pub fn reset_storm(target: &Target, scale: &Scale) -> Report {
    let mut report = Report::default();
    for number in 0..scale.connections {
        match Link::connect(scale.sources.next(), target.address) {
            Ok(mut link) => {
                report.connected += 1;
                // Every other one has begun to speak.
                if number % 2 == 1 {
                    let _ = link.send(&target.magic());
                }
                link.reset();
            }
            Err(_) => report.connect_failures += 1,
        }
    }
    report
}

/// Connections that each send half of a good opening and then wait. They are held.
#[must_use]
pub fn half_open(target: &Target, scale: &Scale) -> Held {
    let opening = good_opening(target, 1);
    Held::open(target, scale, &opening[..opening.len() / 2])
}

/// Connections that each send a first message that is valid in every respect, made anew each time, and do not go on. They are held.
#[must_use]
pub fn first_messages(target: &Target, scale: &Scale) -> Held {
    let mut held = Held::default();
    for number in 0..scale.connections {
        match Link::connect(scale.sources.next(), target.address) {
            Ok(mut link) => {
                let _ = link.send(&good_opening(target, number as u64));
                held.links.push(link);
            }
            Err(_) => held.failures += 1,
        }
    }
    held
}

/// Connections that are opened and dropped in order as fast as they come, for as long as the scale says; at most so many.
#[must_use]
pub fn churn(target: &Target, scale: &Scale) -> Report {
    let end = Instant::now() + scale.duration;
    let mut report = Report::default();
    while report.connected + report.connect_failures < scale.connections as u64 && Instant::now() < end {
        match Link::connect(scale.sources.next(), target.address) {
            Ok(_) => report.connected += 1,
            Err(_) => report.connect_failures += 1,
        }
    }
    report
}
