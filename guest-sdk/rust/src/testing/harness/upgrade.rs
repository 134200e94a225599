//! State that an older version wrote.

use serde_json::Value;

use super::{Harness, expect, of, values};
use crate::{
    bindings::exports::StateKind,
    operator::{self, Operator},
    part::State,
    value,
};

impl<O: Operator> Harness<O> {
    /// Puts a value that an older version wrote for `key` (the values of the key columns) into the value state `state`, migrated as the host does.
    pub fn migrate_value<Old: State, const N: usize>(&mut self, state: &str, key: [impl Into<Value>; N], old: Old) {
        self.open();
        let migrated = operator::migrate::<O>(state, (Old::VERSION, &Old::data_type()), &value::column_of_one(&old));
        let column = expect(migrated, "the value cannot be migrated");
        let mut store = self.store.borrow_mut();
        let number = store.states.iter().position(|types| types.declared.name == state).expect("a state that migrates is declared");
        assert!(store.states[number].declared.kind == StateKind::Value, "state `{state}` holds no single values");
        let mut migrated = values(&store.states[number].value, &column);
        assert_eq!(migrated.len(), 1, "one value becomes one value");
        let key = serde_json::to_string(&key.map(Into::into)[..]).expect("JSON values can be written");
        of(&mut store.keys, &key).values.insert(number, migrated.remove(0));
    }
}
