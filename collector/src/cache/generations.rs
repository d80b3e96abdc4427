//! When names were invalidated: an entry whose reading began before is not valid.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// Maximum number of names that are tracked one by one; beyond it, all count as invalidated.
const MOST_NAMES: usize = 4_096;

/// A moment among the things that were forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u64);

#[derive(Debug, Default)]
pub(super) struct Generations {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Generation,
    /// Nothing from before this is good.
    floor: Generation,
    by_name: FxHashMap<Box<str>, Generation>,
}

impl Generations {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Generation {
        self.state().now
    }

    pub(super) fn advance(&self, name: &str) {
        let mut state = self.state();
        state.now.0 += 1;
        let now = state.now;
        if state.by_name.len() >= MOST_NAMES && !state.by_name.contains_key(name) {
            state.by_name.clear();
            state.floor = now;
        }
        state.by_name.insert(name.into(), now);
    }

    pub(super) fn advance_all(&self) {
        let mut state = self.state();
        state.now.0 += 1;
        state.floor = state.now;
        state.by_name.clear();
    }

    /// Whether what was begun to be read then was not forgotten since.
    pub(super) fn is_current(&self, name: &str, begun: Generation) -> bool {
        let state = self.state();
        begun >= state.floor && state.by_name.get(name).is_none_or(|forgotten| begun >= *forgotten)
    }
}
