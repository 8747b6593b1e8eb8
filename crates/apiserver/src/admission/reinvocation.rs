//! What the first pass over the mutating plugins leaves to the second: a plugin that changed the object has those that
//! ran before it look at the object once more.

use std::collections::{BTreeMap, BTreeSet};

use kminik_meta::Object;
use parking_lot::Mutex;

/// The memory of one request's passes.
#[derive(Default)]
pub struct Reinvocation {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: bool,
    second: bool,
    plugins: BTreeMap<&'static str, Memory>,
}

/// What is remembered of one plugin, which asks many: webhooks or policies.
#[derive(Default)]
struct Memory {
    /// Those asked so far that want to be asked again if the object changes.
    asked: BTreeSet<String>,
    /// Those to be asked in the second pass.
    due: BTreeSet<String>,
    /// The object as the plugin left it.
    output: Option<Object>,
}

impl Reinvocation {
    /// Begins the second pass, if one is wanted.
    pub(super) fn begin_second(&self) -> bool {
        let mut state = self.state.lock();
        state.second = state.wanted;
        state.second
    }

    /// Whether this is the second pass.
    pub(super) fn is_second(&self) -> bool {
        self.state.lock().second
    }

    /// A plugin begins: in the second pass, all it has asked are due if the object is not as it left it.
    pub(super) fn enter(&self, plugin: &'static str, object: Option<&Object>) {
        let mut state = self.state.lock();
        if state.second {
            let memory = state.plugins.entry(plugin).or_default();
            if memory.output.as_ref() != object {
                memory.due.append(&mut memory.asked);
            }
        }
    }

    /// Whether this one is to be asked: everyone in the first pass, those that are due in the second.
    pub(super) fn is_due(&self, plugin: &'static str, id: &str) -> bool {
        let state = self.state.lock();
        !state.second || state.plugins.get(plugin).is_some_and(|memory| memory.due.contains(id))
    }

    /// One of the plugin's changed the object: all before it are due again.
    pub(super) fn changed(&self, plugin: &'static str) {
        let mut state = self.state.lock();
        state.wanted = true;
        let memory = state.plugins.entry(plugin).or_default();
        memory.due.append(&mut memory.asked);
    }

    /// One that wants to be asked again was asked.
    pub(super) fn asked(&self, plugin: &'static str, id: &str) {
        self.state.lock().plugins.entry(plugin).or_default().asked.insert(id.to_owned());
    }

    /// The plugin is done; `output` is needed only in the first pass.
    pub(super) fn leave(&self, plugin: &'static str, output: Option<&Object>) {
        let mut state = self.state.lock();
        if !state.second {
            state.plugins.entry(plugin).or_default().output = output.cloned();
        }
    }
}
