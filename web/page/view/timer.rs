//! Work that is repeated while something lasts.

use std::time::Duration;

use leptos::prelude::*;

/// Calls `act` once every `period` until the effect that called this runs again, or its view is gone.
pub fn repeat(period: Duration, act: impl Fn() + 'static) {
    let timer = set_interval_with_handle(act, period);
    on_cleanup(move || {
        if let Ok(timer) = timer {
            timer.clear();
        }
    });
}
